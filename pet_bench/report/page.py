"""One self-contained HTML page of a grid's results: leaderboard, costs, learning curves, question types, examples.

Nothing is loaded from anywhere: style, script, numbers and pictures are in the file, and its Content-Security-Policy
lets nothing but its own script run. In a notebook:

    frame = pet_bench.load_results("demo")
    Path("page.html").write_text(page(frame, curves=pet_bench.load_curves("demo")), encoding="utf-8")
"""

from __future__ import annotations

import io
import json
from base64 import b64encode
from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import sha256
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from pet_bench.report.bounds import bounds
from pet_bench.report.examples import Shown
from pet_bench.report.figures import COSTS, costs
from pet_bench.report.marks import ON_DARK, mark_of
from pet_bench.report.statistics import rank_notes
from pet_bench.report.table import comparison, named, scored, tasks_of
from pet_bench.report.table import notes as table_notes

ROW = ["suite", "backbone", "control", "method", "setup"]  # of the leaderboard: all that trials share but their seed
SMALL, LARGE = 100, 320  # pixels: pictures with a side below are doubled, larger ones reduced to this

Key = tuple[str, ...]


def page(
    frame: pd.DataFrame,
    *,
    curves: pd.DataFrame | None = None,
    breakdowns: pd.DataFrame | None = None,
    predictions: pd.DataFrame | None = None,
    shown: Mapping[tuple[str, str], Mapping[str, Shown]] | None = None,
    notes: Sequence[str] | None = None,
    best: Collection[Key] = (),
    title: str = "Results",
    count: int = 100,
    seed: int = 0,
) -> str:
    """The page of the trials in `frame` (`pet_bench.load_results`), as HTML.

    curves, breakdowns, predictions: of at least these trials, as `pet_bench.load_curves` and so on give them; what is
    left out is no part of the page. shown: by suite and task the test's examples by id (`report.examples.examples`);
    without them only ids and answers are seen. notes: lines beneath the leaderboard, by default those on metrics,
    trials and ranks. best: (suite, backbone, method, setup, score) of what is bold
    (`report.statistics.significantly_best`). count: examples of each task, see `choose`.
    """
    table = comparison(frame)
    if notes is None:
        notes = [*table_notes(frame), *rank_notes(table)]
    places = [
        _place(suite, backbone, group, frame, set(best))
        for (suite, backbone), group in table.groupby(["suite", "backbone"], sort=False)
    ]
    where = {
        key: (index, number)
        for index, place in enumerate(places)
        for number, row in enumerate(place["rows"])
        if (key := row.pop("key"))
    }
    used = set(scored(frame).id)
    if curves is not None:
        _add_curves(places, where, curves[curves.id.isin(used)])
    if breakdowns is not None:
        _add_breakdowns(places, where, breakdowns[breakdowns.id.isin(used)])
    data = {
        "notes": list(notes),
        "dark": ON_DARK,
        "costs": {name: what for name, (what, _) in COSTS.items()},
        "places": places,
        "examples": {},
        "pictures": [],
    }
    if predictions is not None:
        predictions = predictions[predictions.id.isin(used)].astype({"score": float})
        data |= _examples(where, predictions, shown or {}, count, seed)
    return _html(title, data)


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


# numbers --------------------------------------------------------------------------------------------------------------


def _place(suite: str, backbone: str, table: pd.DataFrame, frame: pd.DataFrame, best: set[Key]) -> dict[str, Any]:
    """A suite on a backbone: its leaderboard and what methods cost."""
    here = frame[(frame.suite == suite) & (frame.backbone == backbone)]
    primary = here[here.primary.eq(True)]
    tasks = [task for task in tasks_of(table) if table[task].notna().any()]
    spent = costs(here).set_index(["method", "setup"]) if len(scored(here)) else pd.DataFrame()
    rows = []
    for row, name in zip(table.to_dict("records"), named(table), strict=True):
        mark = mark_of(name)  # a control's is its method's
        name += f", {row['control']}" if row["kind"] == "control" else ""
        known = row["kind"] == "method" and (row["method"], row["setup"]) in spent.index
        cost = spent.loc[(row["method"], row["setup"])] if known else {}
        rows.append({
            "key": tuple(row[column] for column in ROW),
            "name": name,
            "kind": row["kind"],
            "mark": [mark.color, mark.marker, mark.dash],
            "scores": {task: [_number(row[task]), _number(row[f"{task} std"])] for task in [*tasks, "average"]},
            "best": [
                task
                for task in [*tasks, "average"]
                if row["kind"] == "method" and (suite, backbone, row["method"], row["setup"], task) in best
            ],
            **{column: _number(row[column]) for column in ("percent", "trainable", "rank", "n", "trials", "suspect")},
            "costs": {name: _number(cost.get(name)) for name in COSTS},
        })  # fmt: skip
    return {
        "name": f"{suite} on {backbone}",
        "suite": suite,
        "metrics": {task: _joined(primary[primary.task == task].metric) for task in tasks},
        "bounds": {task: [*map(_number, bounds([task]))] for task in tasks}
        | {"average": [*map(_number, bounds(tasks))]},
        "devices": _joined(here.device),
        "trials": int(here.id.nunique()),
        "rows": rows,
        "curves": {},
        "parts": {},
    }


def _add_curves(places: list[dict], where: dict[Key, tuple[int, int]], curves: pd.DataFrame) -> None:
    """Means and standard deviations over seeds: task → measure → row → [[epoch, mean, std], …].

    Measures are the loss in training and the task's own metric in validation.
    """
    curves = curves[(curves.measure == "loss") | curves.primary.eq(True)]
    points = curves.assign(task=curves.task.fillna("all tasks")).groupby([*ROW, "task", "split", "measure", "step"])
    points = points.agg(epoch=("epoch", "mean"), mean=("value", "mean"), std=("value", "std"))
    names = {"train": "training", "valid": "validation"}
    for (*key, task, split, measure, _), *numbers in points.itertuples():
        index, row = where[tuple(key)]
        of = places[index]["curves"].setdefault(task, {}).setdefault(f"{names.get(split, split)} {measure}", {})
        of.setdefault(row, []).append([_number(number, 4) for number in numbers])


def _add_breakdowns(places: list[dict], where: dict[Key, tuple[int, int]], breakdowns: pd.DataFrame) -> None:
    """Task → group → part → number of examples, and row → [mean, std] over seeds."""
    found = breakdowns.groupby([*ROW, "task", "group", "part"], sort=False)
    found = found.agg(n=("n", "first"), mean=("value", "mean"), std=("value", "std"))
    for (*key, task, group, part), n, *numbers in found.itertuples():
        index, row = where[tuple(key)]
        parts = places[index]["parts"].setdefault(task, {}).setdefault(group, {})
        parts.setdefault(part, {"n": int(n), "rows": {}})["rows"][row] = [_number(number, 4) for number in numbers]


# examples -------------------------------------------------------------------------------------------------------------


def _examples(
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
    album, found = Album(), {}
    for suite, rows in predictions.groupby("suite", sort=False):
        trials = rows.drop_duplicates("id")
        order = {id: number for number, id in enumerate(trials.id)}
        places = [[*where[tuple(getattr(trial, key) for key in ROW)], int(trial.seed)] for trial in trials.itertuples()]
        found[suite] = {"trials": places, "tasks": {}}
        for task, of in rows.groupby("task", sort=False):
            chosen = choose(of, count, seed)
            known, items = shown.get((suite, task), {}), []
            said: dict[str, dict[tuple[str, float | None], int]] = {id: {} for id in chosen}
            given = {id: [-1] * len(order) for id in chosen}
            for id, trial, text, score in zip(of.example, of.id, of.prediction, of.score, strict=True):
                if id in chosen:
                    answer = text, _number(score, 2)
                    given[id][order[trial]] = said[id].setdefault(answer, len(said[id]))
            for id, drawn in chosen.items():
                one = known.get(id, Shown(id, "", (), ()))
                pictures = [album.add(picture) for picture in one.pictures]
                items.append([id, one.text, list(one.answers), pictures, int(drawn), list(said[id]), given[id]])
            found[suite]["tasks"][task] = {
                "of": int(of.example.nunique()),
                "graded": _graded(of.score),
                "described": bool(known),
                "items": items,
            }
    return {"examples": found, "pictures": album.pictures}


def _graded(scores: pd.Series) -> bool:
    """Whether answers are right or wrong, if some only in part; a caption's score is neither."""
    return bool(scores.dropna().between(0, 100).all() and scores.isin([0, 100]).mean() > 0.5)


class Album:
    """Pictures as data: URIs, each once."""

    def __init__(self) -> None:
        self.pictures: list[str] = []
        self._places: dict[Path | str, int] = {}

    def add(self, path: Path) -> int:
        """The place of a picture in the album."""
        if path not in self._places:
            uri = self._encoded(path)
            if uri not in self._places:
                self._places[uri] = len(self.pictures)
                self.pictures.append(uri)
            self._places[path] = self._places[uri]
        return self._places[path]

    @staticmethod
    def _encoded(path: Path) -> str:
        with Image.open(path) as file:
            image = file.convert("RGB")
        if min(image.size) < SMALL:  # WebP halves the resolution of colours, which such a picture cannot spare
            image = image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST)
        else:
            image.thumbnail((LARGE, LARGE))
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=80, method=6)
        return f"data:image/webp;base64,{b64encode(buffer.getvalue()).decode()}"


# HTML -----------------------------------------------------------------------------------------------------------------


def _html(title: str, data: dict[str, Any]) -> str:
    parts = {suffix: (files(__package__) / f"page.{suffix}").read_text("utf-8") for suffix in ("html", "css", "js")}
    own = b64encode(sha256(parts["js"].encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{own}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    values = {"policy": policy, "title": escape(title), "style": parts["css"], "script": parts["js"]}
    return Template(parts["html"]).substitute(values, data=_json(data))


def _json(data: Any) -> str:
    """JSON that can stand in a <script>: no character that HTML could take for markup, nor half of a surrogate pair."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text = text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")
    return text.encode("utf-8", "backslashreplace").decode()


def _number(value: Any, digits: int | None = None) -> float | int | None:
    """A plain number, None for one that is missing or not finite; whole ones without a point."""
    if value is None or pd.isna(value) or not np.isfinite(value):
        return None
    value = float(value) if digits is None else round(float(value), digits)
    return int(value) if value.is_integer() else value


def _joined(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(value for value in values if isinstance(value, str) and value))
