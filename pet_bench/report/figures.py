"""Figures: relative gain against parameters (VL-PET's Figure 1), and what a score costs (Pareto fronts)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pet_bench.report.look import COLORS, MANY, MUTED, Figure, legend_beside, log_axis, look, mark, place_labels, point
from pet_bench.report.published import BACKBONES
from pet_bench.report.styles import Filled
from pet_bench.report.table import scored

Label = tuple[str, str, float, float, float]
PUBLISHED, OURS = ("o", COLORS[0]), ("D", COLORS[1])
COSTS = {
    "trainable": ("trainable parameters", 1),
    "peak_memory_bytes": ("peak memory in training (GiB)", 2**30),
    "train_seconds": ("training time (minutes)", 60),
}


@look()
def relative_gain_figure(filled: Filled) -> Figure:
    """Relative gain over full fine-tuning (%) against trainable parameters (% of all, log axis): VL-PET's Figure 1.

    filled: a style whose last column is a relative gain, on one backbone. Published points are hollow circles, ours
    filled diamonds with one standard deviation over seeds; those of the mini world have a panel of their own.
    """
    panels = [(True, False), (False, True)] if filled.mini else [(True, True)]
    figure = Figure(6.8 * len(panels), 5.4)
    axes = figure.subplots(1, len(panels), squeeze=False)
    labels = [_gains(axis, filled, *shown) for axis, shown in zip(axes.flat, panels, strict=True)]
    figure.settle()
    for axis, own in zip(axes.flat, labels, strict=True):
        place_labels(axis, own, size=8.5)
    return figure


def _gains(axis: Axes, filled: Filled, with_published: bool, with_ours: bool) -> list[Label]:
    """Draw one panel; gives its labels: one per method, an empty one for its second point."""
    name, rows, labels = filled.style.columns[-1].name, filled.frame.to_dict("records"), []
    sides = [("", *OURS, "ours")] * with_ours + [(" published", *PUBLISHED, filled.style.source)] * with_published
    drawn = set()
    for row in rows:
        points = []
        for side, marker, color, what in sides:
            x, y, std = row["percent" + side], row[name + side], row[f"{name}{side} std"]
            if np.isfinite([x, y]).all():
                points.append((x, y))
                point(axis, x, y, std, marker, color, hollow=bool(side), size=10 if side else 7)
                labels.append((row["name"] if len(points) == 1 else "", color, x, y, 0.0 if np.isnan(std) else std))
                drawn.add((what, marker, color, bool(side)))
        axis.plot(*zip(*points, strict=True) if points else ((), ()), color=MUTED, linewidth=0.9, zorder=2)
    for what, marker, color, hollow in sorted(drawn, reverse=True):
        legend = {"markerfacecolor": "none", "markersize": 9} if hollow else {}
        axis.plot([], [], marker, color=color, label=what, **legend)
    axis.axhline(0, color=MUTED, linestyle="--", linewidth=1.1, zorder=1)
    where = BACKBONES[rows[0]["backbone"]] if with_published else f"{rows[0]['ours']}: the mini world, not comparable"
    axis.set_title(where + (" (published)" if with_published and not with_ours else ""))
    axis.set(xlabel="trainable parameters (% of all)", ylabel="relative gain over full fine-tuning (%)")
    _percent_axis(axis, [label[2] for label in labels])
    axis.margins(y=0.12)
    if drawn:
        axis.legend(loc="lower right")
    return sorted(labels, key=lambda label: -label[3])


def _percent_axis(axis: Axes, values: list[float]) -> None:
    log_axis(axis, "x")
    axis.set_xlim(min(values, default=1) / 1.7, max(values, default=100) * 1.7)


def costs(frame: pd.DataFrame) -> pd.DataFrame:
    """Tidy results to a row per suite, backbone, method and setup (no controls): means over trials.

    Columns: average, `average std` (sample), those of `COSTS` in their units, device (all, joined), n and suspect.
    """
    trials = scored(frame)[lambda rows: rows.control == "none"].drop_duplicates("id")
    groups = trials.groupby(["suite", "backbone", "method", "setup"], sort=False)
    table = groups.agg(**{cost: (cost, "mean") for cost in COSTS}, average=("average", "mean"), n=("id", "size"))
    table["average std"] = groups.average.std(ddof=1)
    table["suspect"] = groups.status.agg(lambda status: status.eq("suspect").sum())
    table["device"] = groups.device.agg(lambda names: ", ".join(sorted(set(names.dropna()))))
    for cost, (_, unit) in COSTS.items():
        table[cost] = table[cost].astype(float) / unit
    return table.reset_index()


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

    Methods on the Pareto front are filled and joined by a line of what is reached at most at a cost, the others hollow;
    † marks a method with suspect trials. Where methods are more than `MANY`, only those on a front are named beside
    their points, all in a legend.
    """
    groups = list(costs(frame).groupby(["suite", "backbone"], sort=False))
    shape = max(len(groups), 1), len(COSTS)
    figure = Figure(5.0 * shape[1], 4.4 * shape[0])
    axes, labels = figure.subplots(*shape, squeeze=False, sharey="row"), {}
    for row, ((suite, backbone), table) in zip(axes, groups, strict=False):
        table = table.assign(index=range(len(table)))  # a method looks the same in all panels
        devices = ", ".join(dict.fromkeys(table.device))
        row[0].set_title(f"{suite} on {backbone}" + (f" ({devices})" if devices else ""))
        row[0].set_ylabel("average score")
        for axis, cost in zip(row, COSTS, strict=True):
            labels[axis] = _pareto(axis, table, cost)
        if len(table) > MANY:
            ranked = table.sort_values("average", ascending=False).to_dict("records")
            legend_beside(row[-1], [(_named(method), *mark(method["index"])) for method in ranked])
    figure.settle()
    for axis, own in labels.items():
        place_labels(axis, own, size=8.5)
    return figure


def _pareto(axis: Axes, table: pd.DataFrame, cost: str) -> list[Label]:
    table = table[np.isfinite(table[cost]) & np.isfinite(table.average.astype(float))]
    axis.set_xlabel(COSTS[cost][0])
    axis.margins(x=0.2, y=0.14)
    if cost == "trainable":
        axis.set_xscale("log")
    front, labels = pareto_front(table[cost], table.average), []
    steps = table[front].sort_values(cost)
    axis.plot(steps[cost].repeat(2)[1:], steps.average.repeat(2)[:-1], color=MUTED, linewidth=1.1, zorder=1)
    for row, best in zip(table.to_dict("records"), front, strict=True):
        marker, color = mark(row["index"])
        point(axis, row[cost], row["average"], row["average std"], marker, color, hollow=not best)
        name = _named(row) if best or len(table) <= MANY else ""
        labels.append((name, color, row[cost], row["average"], np.nan_to_num(row["average std"])))
    return sorted(labels, key=lambda label: -label[3])


def _named(row: dict) -> str:
    return row["method"] + " †" * bool(row["suspect"])
