"""Scores by part of a test: question types, answer types, shows, lengths."""

from __future__ import annotations

import re
from collections.abc import Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pet_bench.errors import UserError, unknown
from pet_bench.report.look import GREY, Figure, emphasised, footnote, look, mark, point, stack

KEYS = ["suite", "backbone", "task", "group"]


def parts(breakdowns: pd.DataFrame) -> pd.DataFrame:
    """Breakdowns (`pet_bench.load_breakdowns`) over seeds: a row per suite, backbone, task, group, method and part.

    Of the done and suspect trials, no controls. Columns: suite, backbone, task, group, method (where trials of one
    name differ in their recipe, with the beginning of their `setup`), part, metric, mean, std (sample, NaN for one
    seed), n (seeds), examples.
    """
    rows = breakdowns[(breakdowns.control == "none") & breakdowns.status.isin(["done", "suspect"])]
    several = rows.groupby(["suite", "backbone", "method"]).setup.transform("nunique") > 1
    rows = rows.assign(method=rows.method.where(~several, rows.method + " (" + rows.setup.str[:6] + ")"))
    groups = rows.groupby([*KEYS, "method", "part"], sort=False)
    table = groups.agg(metric=("metric", "first"), mean=("value", "mean"), n=("id", "nunique"), examples=("n", "max"))
    table["std"] = groups.value.std(ddof=1)
    return table.reset_index()


@look()
def question_types_figure(
    breakdowns: pd.DataFrame,
    task: str | None = None,
    group: str | None = None,
    methods: Sequence[str] | None = None,
    most: int = 12,
) -> Figure:
    """Scores over the parts of each task's test (`parts`): a panel per suite, backbone, task and group.

    Each part is a row, with its number of examples; the `most` frequent ones are shown. Coloured, with bars of one
    sample standard deviation over seeds, are `methods`, by default the six that are best over all that is shown; the
    others are grey ticks. group: by default each task's first that is not the length, where there is one. Raises
    UserError for frames without breakdowns and a task, group or methods that are not there.
    """
    table = parts(breakdowns)
    if table.empty:
        raise UserError("no breakdown of a finished trial in this frame (controls are left out)")
    table = _chosen(table, task, group)
    weighted = table.assign(sum=table["mean"] * table.examples).groupby([*KEYS, "method"])[["sum", "examples"]].sum()
    scores = (weighted["sum"] / weighted.examples).unstack("method").rank(axis=1).mean()
    ranked = list(scores.sort_values(ascending=False, kind="stable").index)
    bold = emphasised(ranked, methods)
    panels = [(key, _ordered(rows, most)) for key, rows in table.groupby(KEYS, sort=False)]
    lanes = len(bold) + (len(ranked) > len(bold))
    lines = -(-lanes // (4 if len(panels) > 1 else 3))  # of the legend
    heights = [0.9 + (0.15 + 0.14 * lanes) * rows.part.nunique() for _, rows in panels]
    figure, places = stack(heights, 6.4, 0.5 + 0.22 * lines)
    axes = [figure.add_subplot(place) for place in places]
    several = len(table[["suite", "backbone"]].drop_duplicates()) > 1
    for axis, (key, rows) in zip(axes, panels, strict=True):
        total = table[(table[KEYS] == list(key)).all(axis=1)].part.nunique()
        _draw(axis, rows, bold, lanes)
        shown, where = rows.part.nunique(), f", {key[0]} on {key[1]}" if several else ""
        cut = f" ({shown} most frequent of {total})" if shown < total else ""
        axis.set_title(f"{key[2]}, by {key[3]}{cut}{where}")
    usual = int(table.n.mode().iloc[0])
    _legend(figure, axes[0], table, bold, usual, len(ranked) - len(bold))
    footnote(figure, fill(_note(table, usual), 95 * min(len(panels), 2)))
    figure.settle()
    return figure


def _chosen(table: pd.DataFrame, task: str | None, group: str | None) -> pd.DataFrame:
    if task is not None:
        if task not in set(table.task):
            raise unknown("task", task, table.task.unique())
        table = table[table.task == task]
    if group is not None:
        if group not in set(table.group):
            raise unknown("group", group, table.group.unique())
        return table[table.group == group]
    first = table.groupby("task").group.transform(lambda own: next((one for one in own if one != "length"), "length"))
    return table[table.group == first]


def _ordered(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """The most frequent parts: lengths ascending, others from the most frequent."""
    sizes = rows.groupby("part", sort=False).examples.max().sort_values(ascending=False, kind="stable")[:most]
    order = list(sizes.index)
    if all(re.match(r"\d+", str(part)) for part in order):
        order.sort(key=lambda part: int(re.match(r"\d+", str(part))[0]))
    rows = rows[rows.part.isin(order)]
    return rows.assign(place=rows.part.map(order.index)).sort_values("place", kind="stable")


def _draw(axis: Axes, rows: pd.DataFrame, bold: list[str], lanes: int) -> None:
    labels = {}
    for (place, part), own in rows.groupby(["place", "part"]):
        labels[place] = f"{part}  (n = {own.examples.max():,})"
        heights = place + 0.8 * ((np.arange(lanes) + 0.5) / lanes - 0.5)
        grey = own[~own.method.isin(bold)]["mean"]
        if len(grey):
            axis.plot([grey.min(), grey.max()], heights[[-1, -1]], color=GREY, linewidth=0.8, zorder=1.5)
            axis.plot(grey, [heights[-1]] * len(grey), "|", color=GREY, markersize=9, markeredgewidth=1.3, zorder=1.6)
        for row in own[own.method.isin(bold)].to_dict("records"):
            index = bold.index(row["method"])
            point(axis, row["mean"], heights[index], row["std"], *mark(index), size=5.5, upright=False)
    axis.set_yticks(list(labels), list(labels.values()), fontsize=9)
    axis.set_ylim(len(labels) - 0.5, -0.5)
    axis.tick_params(axis="y", length=0)
    axis.grid(visible=False, axis="y")
    for border in np.arange(0.5, len(labels) - 1):
        axis.axhline(border, color="#d0d0d0", linewidth=0.7, zorder=1)
    axis.set_xlabel(" / ".join(rows.metric.unique()))


def _legend(figure: Figure, axis: Axes, table: pd.DataFrame, bold: list[str], usual: int, others: int) -> None:
    seeds = table.groupby("method").n.max()
    for index, method in enumerate(bold):
        marker, color = mark(index)
        label = method if seeds[method] == usual else f"{method} (n = {seeds[method]})"
        axis.plot([], [], marker, color=color, markersize=6, label=label)
    if others:
        axis.plot([], [], "|", color=GREY, markersize=10, markeredgewidth=1.3, label=f"{others} other methods")
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=4 if figure.get_figwidth() > 7 else 3)


def _note(table: pd.DataFrame, usual: int) -> str:
    notes = [f"means over seeds, n = {usual}" if table.n.max() > 1 else "n = 1 seed"]
    if table["std"].notna().any():
        notes.append("bars: ± 1 sample standard deviation")
    notes.append("n beside a part: its examples in the test")
    return "; ".join(notes)
