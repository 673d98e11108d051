"""The scores of single examples, from the predictions that trials saved, and whether trials can be compared at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pet_bench.errors import Faults, UserError
from pet_bench.metrics.scores import averages
from pet_bench.report.summary import MEASURED, measured
from pet_bench.results import predictions as saved

Folders = Path | str | Sequence[Path | str]


class Untested(UserError):
    """Examples cannot be compared, though nothing is wrong: what is known of seeds still holds."""


def predictions(id: str, task: str, metric: str, folders: Folders) -> pd.DataFrame:
    """A trial's predictions for a task, from the first folder that has them: index id, columns prediction and score.

    Raises Untested where there are none, UserError where they are not whole or not scored by the metric.
    """
    rows = pd.DataFrame.from_dict(_kept(id, task, metric, folders), orient="index", columns=["prediction", "score"])
    return rows.rename_axis("id").astype({"score": float})


def _kept(id: str, task: str, metric: str, folders: Folders) -> dict[str, tuple[str, float | None]]:
    """As `predictions`."""
    places = [folders] if isinstance(folders, str | Path) else folders
    if not (file := saved.find(id, task, map(Path, places))):
        raise Untested(f"{task}: predictions of trial {id} are missing")
    return saved.read(file, metric)


def example_scores(rows: pd.DataFrame, folders: Folders) -> pd.DataFrame:
    """Per-example scores of the trials in `rows` (one task's primary scores): a row per example, a column per trial.

    Raises Untested where predictions are missing, are not of the same examples, or do not have the score as their
    mean: BLEU is the score of a corpus, which those of its sentences do not give. Raises UserError where they are not
    whole.
    """
    columns: dict[str, pd.Series] = {}
    indexes: dict[tuple[str, ...], pd.Index] = {}  # nearly always one: what shares an index needs no alignment
    means = {metric: averages(metric) for metric in rows.metric.unique()}
    for id, task, metric, value in zip(*(rows[key].tolist() for key in ("id", "task", "metric", "value")), strict=True):
        kept = _kept(id, task, metric, folders)
        if (ids := tuple(kept)) not in indexes:
            indexes[ids] = pd.Index(ids)
        scores = np.array([score for _, score in kept.values()], float)
        if not means[metric] or not abs(scores.mean() - value) <= 1e-6 + 1e-6 * abs(value):
            raise Untested(f"{task}: {metric} is not the mean of its examples' scores")
        columns[id] = pd.Series(scores, indexes[ids], copy=False)
    table = pd.DataFrame(columns)
    if table.isna().to_numpy().any():
        raise Untested(f"{rows.task.iloc[0]}: the trials' predictions are not for the same examples")
    return table


def check_comparable(rows: pd.DataFrame) -> None:
    """Raises UserError where some trials' primary scores are of different data, splits or scorers."""
    faults = Faults()
    if rows.data.nunique(dropna=False) > 1:
        versions = ", ".join(sorted(rows.data.fillna("unknown").unique()))
        faults.add(f"not comparable: made with different versions of the data ({versions})")
    for task, group in rows.groupby("task", sort=False):
        kinds = {measured(row) for row in group[[*MEASURED]].drop_duplicates().to_dict("records")}
        if len(kinds) > 1:
            faults.add(f"not comparable: {task} is {' in some, '.join(sorted(kinds))} in others")
    faults.check()
