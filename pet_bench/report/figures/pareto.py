"""What a score costs: Pareto fronts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from pet_bench.report.bounds import bounds
from pet_bench.report.costs import COSTS, costs
from pet_bench.report.figures.labels import Label, legend_beside, place_labels, spread
from pet_bench.report.figures.look import (
    BARS,
    MANY,
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
)
from pet_bench.report.marks import mark_of
from pet_bench.report.summary import comparison, named, scored

LEAST = 0.02  # of a cost: what a panel shows of it at least
NAME = 0.045  # of a panel's height: what the name of a line takes, above it or, where the next is near, below


def pareto_front(cost: pd.Series, score: pd.Series) -> pd.Series:
    """Which are on the front: no other costs as little and scores as much, and one of the two strictly better."""
    costs, scores = cost.to_numpy(float), score.to_numpy(float)
    cheaper, better = costs[:, None] >= costs, scores[:, None] <= scores
    strictly = (costs[:, None] > costs) | (scores[:, None] < scores)
    finite = np.isfinite(costs) & np.isfinite(scores)
    return pd.Series(finite & ~(cheaper & better & strictly & finite).any(axis=1), cost.index)


@look()
def pareto_figure(frame: pd.DataFrame) -> Figure:
    """Average score against parameters (log axis), memory and time: a row of panels per suite and backbone.

    Methods on the Pareto front are filled and joined by a line of what is reached at most at a cost, the others open;
    † marks a method with suspect trials; of two in one place the lower is drawn larger. The best of each control and
    the majority answer are lines, or named at the edge they lie beyond (`_rules`). Where methods are more than `MANY`,
    all are named in a legend, and beside their points only those on a front or whose mark another has too.
    """
    table = costs(frame)
    table = table.assign(name=named(table))
    groups = list(table.groupby(["suite", "backbone"], sort=False))
    rest = comparison(frame)[lambda rows: rows.average.astype(float).notna() & rows.kind.ne("method")]
    shape = max(len(groups), 1), len(COSTS)
    figure = Figure(5.0 * shape[1], 4.6 * shape[0] + 0.4)
    axes, labels = figure.subplots(*shape, squeeze=False, sharey="row"), {}
    for row, ((suite, backbone), own) in zip(axes, groups, strict=False):
        limits = bounds(scored(frame)[lambda rows, suite=suite: rows.suite == suite].task.unique())
        devices = ", ".join(dict.fromkeys(own.device))
        row[0].set_title(f"{suite} on {backbone}" + (f" ({devices})" if devices else ""))
        row[0].set_ylabel("average score")
        for axis, cost in zip(row, COSTS, strict=True):
            labels[axis] = _pareto(axis, own, cost, limits)
        _rules(row, rest[(rest.suite == suite) & (rest.backbone == backbone)])
        if len(own) > MANY:
            ranked = own.sort_values("average", ascending=False, kind="stable").to_dict("records")
            legend_beside(row[-1], [(_dagger(method), mark_of(method["name"])) for method in ranked])
    footnote(figure, _pareto_note(table))
    figure.settle()
    for axis, named_points in labels.items():
        place_labels(axis, named_points, size=8.5)
    return figure


def _pareto(axis: Axes, table: pd.DataFrame, cost: str, limits: tuple[float, float]) -> list[Label]:
    table = table[np.isfinite(table[cost]) & np.isfinite(table.average.astype(float))]
    axis.set_xlabel(COSTS[cost][0])
    axis.margins(x=0.2, y=0.14)
    if cost == "trainable":
        log_axis(axis, "x")
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    front = pareto_front(table[cost], table.average)
    steps = table[front].sort_values(cost)
    axis.plot(steps[cost].repeat(2)[1:], steps.average.repeat(2)[:-1], color=MUTED, linewidth=1.1, zorder=1)
    marks = table.name.map(mark_of)
    wanted = (front | marks.duplicated(keep=False)) if len(table) > MANY else front | True
    labels: dict[tuple[float, float], Label] = {}
    places = table[[cost, "average"]].astype(float)
    if cost == "trainable":
        places[cost] = np.log10(places[cost])
    under = beneath(places.to_numpy(), np.ptp(places, axis=0).replace(0, 1))
    for row, mark, best, named_here, twins in zip(table.to_dict("records"), marks, front, wanted, under, strict=True):
        x, y, std = row[cost], row["average"], row["average std"]
        point(axis, x, y, reach(y, std, limits), mark, hollow=not best, size=8 if best else 7, beneath=twins)
        low, high = reach(y, np.nan_to_num(std), limits)
        twin = labels.get((x, y))
        names = [name for name in (twin and twin[0], named_here and _dagger(row)) if name]
        labels[x, y] = (" = ".join(names), mark.color, x, y, max(y - low, high - y))
    if cost != "trainable" and len(table):
        _no_smaller(axis, table[cost].astype(float))
    return sorted(labels.values(), key=lambda label: -label[3])


def _no_smaller(axis: Axes, costs: pd.Series) -> None:
    """Costs that are all but the same stand near each other, under numbers that can be read."""
    axis.ticklabel_format(axis="x", useOffset=False)
    middle, least = (costs.min() + costs.max()) / 2, LEAST * costs.max()
    if np.ptp(costs) < least:
        axis.set_xlim(middle - 0.7 * least, middle + 0.7 * least)


def _rules(row: Sequence[Axes], rest: pd.DataFrame) -> None:
    """The best of each control and the majority answer: a line each, named in the first panel.

    One further off than half the panel's height would press the methods into a corner: it is named at the edge, with
    its score, and has no line.
    """
    low, high = row[0].get_ylim() if row[0].lines else (-np.inf, np.inf)
    best = rest.sort_values("average").drop_duplicates(["kind", "control"], keep="last")
    names = []
    for line in best.to_dict("records"):
        control, average = line["kind"] == "control", line["average"]
        name = f"best {line['control']} control ({line['method']})" if control else line["method"]
        if 1.5 * low - 0.5 * high <= average <= 1.5 * high - 0.5 * low:
            for axis in row:
                axis.axhline(average, color=MUTED, linestyle="--" if control else ":", linewidth=1.1, zorder=1)
        else:
            name += f" {average:.4g} " + ("↓" if average < low else "↑")
        names.append(name)
    low, high = row[0].get_ylim()
    heights = ((best.average - low) / (high - low)).clip(0, 1).tolist()
    under = [above - height < NAME for height, above in zip(heights, [*heights[1:], 2.0], strict=True)]
    wanted = [height + NAME * (0.5 - below) for height, below in zip(heights, under, strict=True)]
    inside = [(place - NAME / 2) / (1 - NAME) for place in wanted]
    for name, place in zip(names, spread(inside, NAME / (1 - NAME)), strict=True):
        row[0].annotate(
            name, (0.005, NAME / 2 + place * (1 - NAME)), xycoords="axes fraction", fontsize=8, color=MUTED, va="center"
        )


def _dagger(row: dict) -> str:
    return row["name"] + " †" * bool(row["suspect"])


def _pareto_note(table: pd.DataFrame) -> str:
    if table.empty:
        return ""
    notes = [
        "filled, joined by the line: on the Pareto front, where no other method costs as little and scores as much",
        "open: the other methods",
        seeds_note(table.set_index("name").n),
    ]
    if table["average std"].notna().any():
        notes.append(f"bars: {BARS}")
    notes.append("of two in one place the one beneath is larger")
    if table.suspect.any():
        notes.append(SUSPECT)
    return "; ".join(notes)
