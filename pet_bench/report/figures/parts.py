"""Scores by part of a test: question types, answer types, shows, lengths."""

from __future__ import annotations

import re
from collections.abc import Sequence
from textwrap import fill

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pet_bench.errors import UserError, unknown
from pet_bench.report.bounds import bounds
from pet_bench.report.figures.labels import room_beside
from pet_bench.report.figures.look import BARS, GREY, SUSPECT, Figure, chosen, footnote, look, point, reach, seeds_note
from pet_bench.report.marks import mark_of
from pet_bench.report.summary import named

KEYS = ["suite", "backbone", "task", "group"]
WIDE, LINE, LANE = 1.75, 5, 0.19  # inches of a panel, how many stand side by side, inches of a method
LEAST = 4.5  # inches, of the whole figure
ROOM, HIGH = 25, 0.15  # characters of a heading in the width of a panel, inches of a line of it


def parts(breakdowns: pd.DataFrame) -> pd.DataFrame:
    """Breakdowns (`pet_bench.load_breakdowns`) over seeds: a row per suite, backbone, task, group, method and part.

    Of the done and suspect trials, no controls. Columns: suite, backbone, task, group, method (where trials of one
    name differ in their recipe, with the beginning of their `setup`), part, metric, mean, std (sample, NaN for one
    seed), n (seeds), suspect (those of the n), examples.
    """
    rows = breakdowns[(breakdowns.control == "none") & breakdowns.status.isin(["done", "suspect"])]
    rows = rows.assign(method=named(rows), suspect=rows.status.eq("suspect"))
    groups = rows.groupby([*KEYS, "method", "part"], sort=False)
    table = groups.agg(
        metric=("metric", "first"), mean=("value", "mean"), n=("id", "nunique"), suspect=("suspect", "sum"),
        examples=("n", "max"),
    )  # fmt: skip
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
    """Scores over the parts of each task's test (`parts`): a block per suite, backbone, task and group.

    A part is a panel, with its number of examples, of one scale in a block; the `most` frequent ones are shown.
    Methods are rows, the best over all that is shown first, with bars of one sample standard deviation over seeds that
    end where scores end. methods: only these, the others are grey ticks in a row beneath. group: by default each
    task's first that is not the length, where there is one. Raises UserError for frames without breakdowns and a task,
    group or methods that are not there.
    """
    table = parts(breakdowns)
    if table.empty:
        raise UserError("no breakdown of a finished trial in this frame (controls are left out)")
    table = _chosen(table, task, group)
    weighted = table.assign(sum=table["mean"] * table.examples).groupby([*KEYS, "method"])[["sum", "examples"]].sum()
    scores = (weighted["sum"] / weighted.examples).unstack("method").rank(axis=1).mean()
    ranked = list(scores.sort_values(ascending=False, kind="stable").index)
    shown = chosen(ranked, methods)
    suspect = set(table.method[table.suspect > 0])
    names = [name + " †" * (name in suspect) for name in shown]
    names += [f"{len(ranked) - len(shown)} others"] * (len(shown) < len(ranked))
    lines = _lines(table, most)
    columns, headings = max(map(len, lines)), [[_heading(*panel) for panel in line] for line in lines]
    height = sum(0.65 + LANE * len(names) + HIGH * max(len(text.split("\n")) for text in line) for line in headings)
    figure = Figure(max(LEAST, room_beside(names) + WIDE * columns), height + 0.3)
    axes = figure.subplots(len(lines), columns, squeeze=False, sharey=True)
    for row, line, texts in zip(axes, lines, headings, strict=True):
        for axis, (_, rows, part), text in zip(row, line, texts, strict=False):
            _draw(axis, rows, part, shown)
            axis.set_title(text, fontsize=9)
        row[0].set_yticks(range(len(names)), names, fontsize=8)
        for axis in row[len(line) :]:
            axis.set_visible(False)
    footnote(figure, _note(table, len(shown) < len(ranked)))
    figure.settle()
    return figure


def _heading(title: str, rows: pd.DataFrame, part: str) -> str:
    """Of a panel: its block's title, if it is the first there, above the names of all of that, and its own name."""
    sizes = rows.groupby("part", sort=False).examples.max()
    names = {name: fill(f"{name} (n\xa0=\xa0{size:,})", ROOM).replace("\xa0", " ") for name, size in sizes.items()}
    below = max(name.count("\n") for name in names.values()) - names[part].count("\n")
    above = fill(title, ROOM * min(len(names), LINE), break_on_hyphens=False)
    return f"{above}\n{below * chr(10)}{names[part]}"


def _lines(table: pd.DataFrame, most: int) -> list[list[tuple[str, pd.DataFrame, str]]]:
    """The panels line by line, a block in one where it fits: (title of its first, rows of the block, part)."""
    several = len(table[["suite", "backbone"]].drop_duplicates()) > 1
    lines: list[list[tuple[str, pd.DataFrame, str]]] = [[]]
    for (suite, backbone, task, group), block in table.groupby(KEYS, sort=False):
        rows, total = _ordered(block, most), block.part.nunique()
        shown = list(dict.fromkeys(rows.part))
        title = f"{task}, by {group}" + f" ({len(shown)} most frequent of {total})" * (len(shown) < total)
        title += f", {suite} on {backbone}" * several
        if lines[-1] and len(lines[-1]) + len(shown) > LINE:
            lines.append([])
        for index, part in enumerate(shown):
            if len(lines[-1]) == LINE:
                lines.append([])
            lines[-1].append((title if index == 0 else "", rows, part))
    return lines


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
        order.sort(key=lambda part: int(re.findall(r"\d+", str(part))[0]))
    rows = rows[rows.part.isin(order)]
    return rows.assign(place=rows.part.map(order.index)).sort_values("place", kind="stable")


def _draw(axis: Axes, rows: pd.DataFrame, part: str, shown: list[str]) -> None:
    """One part; rows: of all parts of the block, which have one scale."""
    own, limits = rows[rows.part == part], bounds(rows.task.unique())
    for row in own[own.method.isin(shown)].to_dict("records"):
        place = shown.index(row["method"])
        ends = reach(row["mean"], row["std"], limits)
        point(axis, row["mean"], place, ends, mark_of(row["method"]), size=6.5, upright=False)
    others = own[~own.method.isin(shown)]["mean"]
    axis.plot(others, [len(shown)] * len(others), "|", color=GREY, markersize=9, markeredgewidth=1.3)
    low, high = reach(rows["mean"], rows["std"].fillna(0), limits)
    room = 0.06 * (high.max() - low.min()) or 1
    axis.set_xlim(low.min() - room, high.max() + room)
    axis.set_ylim(len(shown) - 0.4 + (len(others) > 0), -0.6)
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelsize=8)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.set_xlabel(" / ".join(rows.metric.unique()), fontsize=8)


def _note(table: pd.DataFrame, others: bool) -> str:
    notes = [seeds_note(table.groupby("method").n.max())]
    if table["std"].notna().any():
        notes.append(f"bars: {BARS}")
    notes.append("n beside a part: its examples in the test")
    if others:
        notes.append("grey ticks: the other methods")
    if table.suspect.any():
        notes.append(SUSPECT)
    return "; ".join(notes)
