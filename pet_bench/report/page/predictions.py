"""The part of a page that shows examples: which, and who answered what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pet_bench.report.page.album import Album
from pet_bench.report.page.examples import Shown
from pet_bench.report.page.numbers import ROW, Key, json_number


def choose(predictions: pd.DataFrame, count: int = 100, seed: int = 0) -> dict[str, bool]:
    """Which examples of a task are shown, those on which methods differ most first, and which were drawn at random.

    All if there are no more than `count`; else a quarter is drawn from all of them, so that some are like the test, and
    the others are those on which the methods' mean scores (over seeds, controls left out) vary most.
    """
    rows = predictions[predictions.control == "none"] if (predictions.control == "none").any() else predictions
    means = rows.groupby(["example", "backbone", "method", "setup"], sort=False).score.mean()
    spread = means.groupby("example", sort=False).std(ddof=0).fillna(0)
    ids = list(dict.fromkeys(predictions.example))
    drawn: set[str] = set()
    if len(ids) > count:
        drawn = {ids[i] for i in np.random.default_rng(seed).choice(len(ids), count // 4, replace=False)}
    order = spread.reindex(ids, fill_value=0).sort_values(ascending=False, kind="stable").index
    others = set([id for id in order if id not in drawn][: count - len(drawn)])
    return {id: id in drawn for id in order if id in drawn | others}


def said_by_example(
    where: dict[Key, tuple[int, int]],
    predictions: pd.DataFrame,
    shown: Mapping[tuple[str, str], Mapping[str, Shown]],
    count: int,
    seed: int,
) -> dict[str, Any]:
    """Suite → its trials [place, row, seed], and task → examples with the distinct answers and which trial gave which.

    Of an example the distinct [text, score] are kept once, and for each trial the place of its own among them, -1 where
    it has none.
    """
    album, suites = Album(), {}
    for suite, rows in predictions.groupby("suite", sort=False):
        trials = rows.drop_duplicates("id").to_dict("records")
        order = {trial["id"]: index for index, trial in enumerate(trials)}
        tasks = {}
        for task, of in rows.groupby("task", sort=False):
            known = shown.get((str(suite), str(task)), {})
            tasks[task] = {
                "of": int(of.example.nunique()),
                "graded": _graded(of.score),
                "described": bool(known),
                "items": _items(of, order, known, album, choose(of, count, seed)),
            }
        places = [[*where[tuple(trial[key] for key in ROW)], int(trial["seed"])] for trial in trials]
        suites[suite] = {"trials": places, "tasks": tasks}
    return {"examples": suites, "pictures": album.pictures}


def _items(
    rows: pd.DataFrame, order: dict[str, int], known: Mapping[str, Shown], album: Album, chosen: dict[str, bool]
) -> list[list[Any]]:
    """A task's chosen examples: id, text, answers, pictures, whether drawn, what was said, and which trial said it."""
    said: dict[str, dict[tuple[str, float | None], int]] = {id: {} for id in chosen}
    given = {id: [-1] * len(order) for id in chosen}
    for id, trial, text, score in zip(rows.example, rows.id, rows.prediction, rows.score, strict=True):
        if id in chosen:
            answer = text, json_number(score, 2)
            given[id][order[trial]] = said[id].setdefault(answer, len(said[id]))
    items = []
    for id, drawn in chosen.items():
        one = known.get(id, Shown(id, "", (), ()))
        pictures = [album.add(picture) for picture in one.pictures]
        items.append([id, one.text, list(one.answers), pictures, int(drawn), list(said[id]), given[id]])
    return items


def _graded(scores: pd.Series) -> bool:
    """Whether answers are right or wrong, if some only in part; a caption's score is neither."""
    return bool(scores.dropna().between(0, 100).all() and scores.isin([0, 100]).mean() > 0.5)
