"""What each setting of a grid does, all else equal."""

from __future__ import annotations

import re
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.gridspec import SubplotSpec
from matplotlib.ticker import MaxNLocator

from pet_bench.errors import UserError, unknown
from pet_bench.report.bounds import bounds
from pet_bench.report.figures.axes import Axis, axes_of, short, text
from pet_bench.report.figures.look import (
    BARS,
    MUTED,
    SUSPECT,
    Figure,
    beneath,
    footnote,
    log_axis,
    look,
    point,
    reach,
    seeds_note,
    stack,
)
from pet_bench.report.marks import marks_apart
from pet_bench.report.summary import primary_scores


def setups(frame: pd.DataFrame, score: str = "average") -> pd.DataFrame:
    """Tidy results to a row per setup (no controls), indexed by it: means over seeds.

    Columns: suite, backbone, method, score, std (sample), low and high (what the score can be), percent (trainable), n,
    suspect. score: the average or a task, whose primary metric is taken. Raises UserError for a task that is not there.
    """
    rows = primary_scores(frame)
    rows = rows[rows.control == "none"]
    if score == "average":
        trials = rows.drop_duplicates("id").assign(score=lambda trials: trials.average)
    elif score in set(rows.task):
        trials = rows[rows.task == score].assign(score=lambda trials: trials.value)
    else:
        raise unknown("score", score, ["average", *dict.fromkeys(rows.task)])
    trials = trials[np.isfinite(trials.score.astype(float))]
    groups = trials.groupby("setup", sort=False)
    table = groups.agg(
        suite=("suite", "first"), backbone=("backbone", "first"), method=("method", "first"),
        score=("score", "mean"), percent=("percent", "mean"), n=("id", "size"),
    )  # fmt: skip
    table["std"] = groups.score.std(ddof=1)
    limits = {suite: bounds(own.task if score == "average" else [score]) for suite, own in rows.groupby("suite")}
    table["low"], table["high"] = ([limits[suite][side] for suite in table.suite] for side in (0, 1))
    table["suspect"] = groups.status.agg(lambda status: status.eq("suspect").sum())
    return table


@look()
def ablation_figure(frame: pd.DataFrame, settings: pd.DataFrame, score: str = "average") -> Figure:
    """What each setting does, all else equal: a panel per axis (`axes_of`), beside or beneath it the trainable share.

    frame, settings: of the same trials (`pet_bench.load_results`, `load_settings`); values that are no numbers stand
    in the order of the rows of `settings`. score: the average or a task. Numbers are lines with a band of one sample
    standard deviation over seeds, others points with bars, with † where a trial is suspect; dashed is the setup from
    which most others differ in one setting. Raises UserError where no setting varies alone.
    """
    table = setups(frame, score)
    settings = settings[settings.setup.isin(table.index)]
    panels = axes_of(settings)
    if not panels:
        raise UserError(
            f"no setting varies alone among the {len(table)} setups with scores: an ablation needs trials that are "
            "equal but for one setting and the seed"
        )
    worlds = len(settings[["suite", "backbone"]].drop_duplicates())
    figure, places = stack([_height(axis) for axis in panels], 6.75)
    for place, axis in zip(places, panels, strict=True):
        main = (_numbers if axis.numeric else _categories)(place, axis, table, score)
        main.set_title(_title(axis, worlds > 1))
        if len(axis.lines) > 1:
            main.legend(fontsize=8, loc="upper left" if axis.numeric else "lower left", ncols=_legend(axis)[0])
    footnote(figure, _note(table, panels))
    figure.settle()
    return figure


def _title(axis: Axis, where: bool) -> str:
    title = short(axis.setting)
    if axis.numeric and axis.companions:
        title += f" (and with it {', '.join(map(short, axis.companions))})"
    if len(axis.lines) == 1:
        title += f": {axis.lines[0].label}"
    return fill(title + f", {axis.suite} on {axis.backbone}" * where, 70)


def _legend(axis: Axis) -> tuple[int, float]:
    """Columns and height in inches of a panel's legend."""
    columns = 1 if len(axis.lines) < 6 else 2
    return columns, (0.19 * -(-len(axis.lines) // columns) + 0.12 if len(axis.lines) > 1 else 0)


def _height(axis: Axis) -> float:
    """Of a panel, in inches."""
    return (3.6 if axis.numeric else 1.0 + sum(_row_height(axis, label) for label in _ticks(axis).values())) + _legend(
        axis
    )[1]


def _row_height(axis: Axis, label: str) -> float:
    return max(0.17 * (1 + label.count("\n")), 0.16 * len(axis.lines)) + 0.14


def _ticks(axis: Axis) -> dict[Any, str]:
    """Each value as its tick says it, with what else changes there."""
    also: dict[Any, list[str]] = {value: [] for value in axis.values}
    for line in axis.lines:
        for value, what in zip(line.values, line.also, strict=True):
            also[value] += [what] if what and what not in also[value] else []
    return {value: _wrapped(text(value) + "".join(f" ({what})" for what in own)) for value, own in also.items()}


def _wrapped(words: str, width: int = 36) -> str:
    """In lines, broken at spaces or after the dots of a name."""
    lines = [""]
    for piece in re.split(r"(?<=[ .])", words):
        if lines[-1] and len(lines[-1] + piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


def _numbers(place: SubplotSpec, axis: Axis, table: pd.DataFrame, score: str) -> Axes:
    """A line over a setting's numbers, above the trainable share."""
    above, below = place.subgridspec(2, 1, height_ratios=(3, 1)).subplots(sharex=True, squeeze=False).flat
    series = [
        table.loc[list(line.setups)].assign(value=list(map(float, line.values))).sort_values("value")
        for line in axis.lines
    ]
    span = np.ptp(pd.concat(series).score) or 1
    under = beneath([rows.score for rows in series], span)
    marks = marks_apart(line.label for line in axis.lines)
    for line, rows, mark, twins in zip(axis.lines, series, marks, under, strict=True):
        color = mark.color
        above.plot(
            rows.value, rows.score, mark.dash, color=color, marker=mark.marker, label=line.label,
            markersize=6 + 6 * twins, linewidth=1.5 + 3.2 * twins, zorder=2 - twins / 10,
        )  # fmt: skip
        if rows["std"].notna().any():
            low, high = reach(rows.score, rows["std"], (rows.low.min(), rows.high.max()))
            above.fill_between(rows.value, low, high, color=color, alpha=0.16, linewidth=0)
        for row in rows[rows.suspect > 0].itertuples():
            above.annotate("†", (row.value, row.score), xytext=(0, 5), textcoords="offset points", ha="center")
        below.plot(rows.value, rows.percent, mark.dash, color=color, marker=mark.marker, markersize=4)
    values = axis.values
    if 0 < 10 * values[0] <= values[-1]:
        log_axis(below, "x")
    if len(values) <= 8:
        below.set_xticks(values, [text(value) for value in values])
        below.minorticks_off()
    if axis.reference is not None and axis.reference in table.index:
        above.axhline(table.score[axis.reference], color=MUTED, linestyle="--", linewidth=1.1, zorder=1)
    low, high = above.get_ylim()
    above.set_ylim(low, low + (high - low) / (1 - min(_legend(axis)[1] / 2.4, 0.6)))
    above.set_ylabel("average score" if score == "average" else score)
    below.set(xlabel=short(axis.setting), ylabel="trainable %")
    below.margins(y=0.25)
    below.yaxis.set_major_locator(MaxNLocator(3))
    return above


def _categories(place: SubplotSpec, axis: Axis, table: pd.DataFrame, score: str) -> Axes:
    """A row for each value, the lines' points in it one beneath the other, beside the trainable share."""
    left, right = place.subgridspec(1, 2, width_ratios=(4, 1)).subplots(sharey=True, squeeze=False).flat
    labels = _ticks(axis)
    heights = [_row_height(axis, label) for label in labels.values()]
    middles = dict(zip(labels, np.cumsum(heights) - np.array(heights) / 2, strict=True))
    marks = marks_apart(line.label for line in axis.lines)
    for index, (line, mark) in enumerate(zip(axis.lines, marks, strict=True)):
        shift = 0.16 * (index - (len(axis.lines) - 1) / 2)
        for value, row in zip(line.values, table.loc[list(line.setups)].to_dict("records"), strict=True):
            y = middles[value] + shift
            ends = reach(row["score"], row["std"], (row["low"], row["high"]))
            point(left, row["score"], y, ends, mark, size=6, upright=False)
            point(right, row["percent"], y, None, mark, size=5)
            if row["suspect"]:
                left.annotate("†", (row["score"], y), xytext=(0, 2), textcoords="offset points", ha="center")
        left.plot([], [], mark.marker, color=mark.color, markersize=6, label=line.label)
    left.set_yticks(list(middles.values()), list(labels.values()), fontsize=8.5)
    left.set_ylim(sum(heights) + _legend(axis)[1], 0)
    left.tick_params(axis="y", length=0)
    right.tick_params(axis="y", length=0, labelleft=False)
    if axis.reference is not None and axis.reference in table.index:
        left.axvline(table.score[axis.reference], color=MUTED, linestyle="--", linewidth=1.1, zorder=1)
    left.set_xlabel("average score" if score == "average" else score)
    right.set_xlabel("trainable %")
    for axes, ticks in ((left, 6), (right, 3)):
        axes.margins(x=0.12)
        axes.xaxis.set_major_locator(MaxNLocator(ticks))
    return left


def _note(table: pd.DataFrame, panels: list[Axis]) -> str:
    notes = [seeds_note(table.set_index("method").n)]
    if table["std"].notna().any():
        notes.append(f"bands and bars: {BARS}")
    if references := list(dict.fromkeys(table.method[axis.reference] for axis in panels if axis.reference)):
        notes.append(f"dashed: {', '.join(references)}")
    if table.suspect.any():
        notes.append(SUSPECT)
    shown = {setup for axis in panels for line in axis.lines for setup in line.setups}
    if left := list(dict.fromkeys(table.method[[setup for setup in table.index if setup not in shown]])):
        notes.append(f"alone, in no panel: {', '.join(left)}")
    return "; ".join(notes)
