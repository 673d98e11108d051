"""The numbers of a page: leaderboards, costs, learning curves, breakdowns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from pet_bench.report.bounds import bounds
from pet_bench.report.costs import ASIDE, COSTS, costs
from pet_bench.report.marks import mark_of
from pet_bench.report.summary import named, scored, tasks_of

ROW = ["suite", "backbone", "control", "method", "setup"]  # of the leaderboard: all that trials share but their seed
SHOWN = ("percent", "trainable", "rank", "n", "trials", "suspect")
Key = tuple[str, ...]


def leaderboard(suite: str, backbone: str, table: pd.DataFrame, frame: pd.DataFrame, best: set[Key]) -> dict[str, Any]:
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
            "scores": {task: [json_number(row[task]), json_number(row[f"{task} std"])] for task in [*tasks, "average"]},
            "best": [
                task
                for task in [*tasks, "average"]
                if row["kind"] == "method" and (suite, backbone, row["method"], row["setup"], task) in best
            ],
            **{column: json_number(row[column]) for column in SHOWN},
            "costs": {name: json_number(cost.get(name)) for name in COSTS | ASIDE},
        })  # fmt: skip
    return {
        "name": f"{suite} on {backbone}",
        "suite": suite,
        "metrics": {task: _joined(primary[primary.task == task].metric) for task in tasks},
        "bounds": {task: [*map(json_number, bounds([task]))] for task in tasks}
        | {"average": [*map(json_number, bounds(tasks))]},
        "devices": _joined(here.device),
        "trials": int(here.id.nunique()),
        "rows": rows,
        "curves": {},
        "parts": {},
    }


def add_curves(places: list[dict], where: dict[Key, tuple[int, int]], curves: pd.DataFrame) -> None:
    """Means and standard deviations over seeds: task → measure → row → [[epoch, mean, std], …].

    Measures are the loss in training and the task's own metric in validation.
    """
    curves = curves[(curves.measure == "loss") | curves.primary.eq(True)]
    groups = curves.assign(task=curves.task.fillna("all tasks")).groupby([*ROW, "task", "split", "measure", "step"])
    points = groups.agg(epoch=("epoch", "mean"), mean=("value", "mean"), std=("value", "std"))
    names = {"train": "training", "valid": "validation"}
    for (*key, task, split, measure, _), *numbers in points.itertuples():
        index, row = where[tuple(key)]
        of = places[index]["curves"].setdefault(task, {}).setdefault(f"{names.get(split, split)} {measure}", {})
        of.setdefault(row, []).append([json_number(number, 4) for number in numbers])


def add_breakdowns(places: list[dict], where: dict[Key, tuple[int, int]], breakdowns: pd.DataFrame) -> None:
    """Task → group → part → number of examples, and row → [mean, std] over seeds."""
    groups = breakdowns.groupby([*ROW, "task", "group", "part"], sort=False)
    means = groups.agg(n=("n", "first"), mean=("value", "mean"), std=("value", "std"))
    for (*key, task, group, part), n, *numbers in means.itertuples():
        index, row = where[tuple(key)]
        parts = places[index]["parts"].setdefault(task, {}).setdefault(group, {})
        parts.setdefault(part, {"n": int(n), "rows": {}})["rows"][row] = [json_number(number, 4) for number in numbers]


def json_number(value: Any, digits: int | None = None) -> float | int | None:
    """A plain number, None for one that is missing or not finite; whole ones without a point."""
    if value is None or pd.isna(value) or not np.isfinite(value):
        return None
    value = float(value) if digits is None else round(float(value), digits)
    return int(value) if value.is_integer() else value


def _joined(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(value for value in values if isinstance(value, str) and value))
