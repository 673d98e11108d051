"""Tidy results to one row per method: mean and sample standard deviation over seeds."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from pet_bench.grid.plan.spec import Skipped

KINDS = ("method", "skipped", "control", "majority")
MEASURED = ("metric", "options", "split")
SCORES = ["task", "metric", "primary", "value", "split", "n", "majority", "options", "average"]


def scored(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with the scores of all trials that enter means: the done ones, and the suspect ones that have scores.

    A trial whose training collapsed is suspect; without it a method that collapses now and then would look better.
    """
    return frame[frame.status.isin(["done", "suspect"]) & frame.task.notna()]


def primary_scores(frame: pd.DataFrame) -> pd.DataFrame:
    """Of these the rows with tasks' primary metrics."""
    rows = scored(frame)
    return rows[rows.primary.eq(True)]


def measured(row: Mapping[Hashable, Any]) -> str:
    """How a row's score was measured: its metric, that one's options and the split."""
    options = f" ({row['options']})" if row["options"] else ""
    return f"{row['metric']}{options} on {row['split']}"


def without_suspect(frame: pd.DataFrame) -> pd.DataFrame:
    """The same trials, the suspect ones without their scores."""
    suspect = frame.status == "suspect"
    bare = frame.assign(**{column: frame[column].mask(suspect) for column in SCORES})
    return bare[~suspect | ~bare.id.duplicated()].reset_index(drop=True)


def comparison(frame: pd.DataFrame, skipped: Sequence[Skipped] = ()) -> pd.DataFrame:
    """Tidy results (`results.store.to_frame`) to one row per suite, backbone, method and control.

    Columns: suite, backbone, method, control, setup, kind ("method", "control", "majority" or "skipped"), trainable,
    percent, for each task its primary metric's mean over seeds and `<task> std` (sample standard deviation, none for
    one seed), average and `average std` (of the trials' averages), rank (mean over the tasks of a method's rank among
    the methods, 1 the best, ties averaged), n (trials in the means), trials (all) and suspect (those of the n).
    skipped: what the grids leave out (`Grid.skipped`): a row each without numbers in every suite of its backbone
    (in all, where the backbone has no trial), and then a column, reason, why.
    """
    primary = primary_scores(frame)
    tasks = list(dict.fromkeys(primary.task))
    keys = ["suite", "backbone", "control", "method", "setup"]
    groups = frame.groupby(keys, sort=False, dropna=False)
    rows = [dict(zip(keys, key, strict=True)) | _over_seeds(group, tasks) for key, group in groups]
    present = {(row["suite"], row["backbone"], row["method"]) for row in rows}
    for one in dict.fromkeys(skipped):
        suites = frame.suite[frame.backbone == one.backbone].unique()
        for suite in suites if len(suites) else frame.suite.unique():
            if (place := (suite, one.backbone, one.method)) not in present:
                row = dict(zip(("suite", "backbone", "method"), place, strict=True))
                rows.append(row | {"control": "none", "kind": "skipped", "reason": one.reason})
    rows += _majorities(primary)
    columns = ["suite", "backbone", "method", "control", "setup", "kind", "trainable", "percent"]
    columns += [name for task in [*tasks, "average"] for name in (task, f"{task} std")] + ["rank"]
    counts = ["n", "trials", "suspect"]
    reason = ["reason"] if any("reason" in row for row in rows) else []
    table = pd.DataFrame(rows, columns=columns + counts + reason)
    table = table.astype(dict.fromkeys(["trainable", *counts], "Int64"))
    for _, group in table[table.kind == "method"].groupby(["suite", "backbone"], sort=False):
        scores = group[tasks].astype(float).dropna(axis=1, how="all").dropna()
        if min(scores.shape) > 1:
            table.loc[scores.index, "rank"] = scores.rank(ascending=False).mean(axis=1)
    order = table.assign(kind=table.kind.map(KINDS.index))
    order = order.sort_values(["suite", "backbone", "kind", "percent"], ascending=[True, True, True, False])
    return table.loc[order.index].reset_index(drop=True)


def _over_seeds(group: pd.DataFrame, tasks: Iterable[str]) -> dict[str, Any]:
    """Means and sample standard deviations of the trials of one setup."""
    trials = group.drop_duplicates("id")
    used, primary = scored(trials), primary_scores(group)
    row: dict[str, Any] = {
        "kind": "method" if group.control.iloc[0] == "none" else "control",
        "trainable": used.trainable.max(), "percent": used.percent.max(),
    }  # fmt: skip
    for task in tasks:
        values = primary[primary.task == task].value
        row[task], row[f"{task} std"] = values.mean(), values.std(ddof=1)
    row["average"], row["average std"] = used.average.mean(), used.average.std(ddof=1)
    return row | {"n": len(used), "trials": len(trials), "suspect": used.status.eq("suspect").sum()}


def _majorities(primary: pd.DataFrame) -> Iterable[dict[Any, Any]]:
    """A row of what the commonest answers score, for each suite and backbone where that is known."""
    for (suite, backbone), group in primary.groupby(["suite", "backbone"], sort=False):
        majority = group[group.control == "none"].groupby("task", sort=False).majority.mean()
        if majority.notna().any():
            row = {"suite": suite, "backbone": backbone, "method": "majority answer", "kind": "majority"}
            own = majority.reindex(list(dict.fromkeys(group.task)))
            yield row | majority.to_dict() | {"average": own.mean() if own.notna().all() else None}


def named(rows: pd.DataFrame) -> pd.Series:
    """The method of each row, where trials of one name differ in their recipe with the beginning of their setup."""
    keys = [key for key in ("suite", "backbone", "control", "method") if key in rows]
    several = rows.groupby(keys, dropna=False).setup.transform("nunique") > 1
    return rows.method.where(~several, rows.method + " (" + rows.setup.str[:6] + ")")


def tasks_of(table: pd.DataFrame) -> list[str]:
    """The score columns of a comparison: its tasks."""
    columns = list(table.columns)
    return columns[columns.index("percent") + 1 : columns.index("average")][::2]
