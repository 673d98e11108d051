"""Tidy results to one row per method: mean and sample standard deviation over seeds."""

from __future__ import annotations

import pandas as pd

KINDS = ("method", "control", "majority")
SCORES = ["task", "metric", "primary", "value", "split", "n", "majority", "options", "average"]


def scored(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with the scores of all trials that enter means: the done ones, and the suspect ones that have scores.

    A trial whose training collapsed is suspect; without it a method that collapses now and then would look better.
    """
    return frame[frame.status.isin(["done", "suspect"]) & frame.task.notna()]


def without_suspect(frame: pd.DataFrame) -> pd.DataFrame:
    """The same trials, the suspect ones without their scores."""
    suspect = frame.status == "suspect"
    bare = frame.assign(**{column: frame[column].mask(suspect) for column in SCORES})
    return bare[~suspect | ~bare.id.duplicated()].reset_index(drop=True)


def comparison(frame: pd.DataFrame) -> pd.DataFrame:
    """Tidy results (`results.store.to_frame`) to one row per suite, backbone, method and control.

    Columns: suite, backbone, method, control, setup, kind ("method", "control" or "majority"), trainable, percent,
    for each task its primary metric's mean over seeds and `<task> std` (sample standard deviation, none for
    one seed), average and `average std` (of the trials' averages), rank (mean over the tasks of a method's rank among
    the methods, 1 the best, ties averaged), n (trials in the means), trials (all) and suspect (those of the n).
    """
    primary = scored(frame)[lambda rows: rows.primary.eq(True)]
    tasks = list(dict.fromkeys(primary.task))
    rows = []
    for keys, group in frame.groupby(["suite", "backbone", "control", "method", "setup"], sort=False, dropna=False):
        suite, backbone, control, method, setup = keys
        trials = group.drop_duplicates("id")
        used = scored(trials)
        row = {
            "suite": suite, "backbone": backbone, "method": method, "control": control,
            "setup": setup, "kind": "method" if control == "none" else "control",
            "trainable": used.trainable.max(), "percent": used.percent.max(),
        }  # fmt: skip
        for task in tasks:
            values = scored(group)[lambda rows, task=task: (rows.task == task) & rows.primary.eq(True)].value
            row[task], row[f"{task} std"] = values.mean(), values.std(ddof=1)
        row["average"], row["average std"] = used.average.mean(), used.average.std(ddof=1)
        rows.append(row | {"n": len(used), "trials": len(trials), "suspect": used.status.eq("suspect").sum()})
    for (suite, backbone), group in primary.groupby(["suite", "backbone"], sort=False):
        majority = group[group.control == "none"].groupby("task", sort=False).majority.mean()
        if majority.notna().any():
            row = {"suite": suite, "backbone": backbone, "method": "majority answer", "kind": "majority"}
            own = majority.reindex(dict.fromkeys(group.task))
            rows.append(row | majority.to_dict() | {"average": own.mean() if own.notna().all() else None})
    columns = ["suite", "backbone", "method", "control", "setup", "kind", "trainable", "percent"]
    columns += [name for task in [*tasks, "average"] for name in (task, f"{task} std")] + ["rank"]
    counts = ["n", "trials", "suspect"]
    table = pd.DataFrame(rows, columns=columns + counts).astype(dict.fromkeys(["trainable", *counts], "Int64"))
    for _, group in table[table.kind == "method"].groupby(["suite", "backbone"], sort=False):
        scores = group[tasks].astype(float).dropna(axis=1, how="all").dropna()
        if min(scores.shape) > 1:
            table.loc[scores.index, "rank"] = scores.rank(ascending=False).mean(axis=1)
    order = table.assign(kind=table.kind.map(KINDS.index))
    order = order.sort_values(["suite", "backbone", "kind", "percent"], ascending=[True, True, True, False])
    return table.loc[order.index].reset_index(drop=True)


def named(rows: pd.DataFrame) -> pd.Series:
    """The method of each row, where trials of one name differ in their recipe with the beginning of their setup."""
    keys = [key for key in ("suite", "backbone", "control", "method") if key in rows]
    several = rows.groupby(keys, dropna=False).setup.transform("nunique") > 1
    return rows.method.where(~several, rows.method + " (" + rows.setup.str[:6] + ")")


def tasks_of(table: pd.DataFrame) -> list[str]:
    """The score columns of a comparison: its tasks."""
    columns = list(table.columns)
    return columns[columns.index("percent") + 1 : columns.index("average")][::2]
