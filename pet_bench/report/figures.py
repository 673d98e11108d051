"""Figures: relative gain against parameters (VL-PET's Figure 1), and what a score costs (Pareto fronts)."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from pet_bench.report.look import COLORS, MARKERS, MUTED, look, place_labels, point, write
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


def relative_gain_figure(filled: Filled, path: Path) -> list[Path]:
    """Relative gain over full fine-tuning (%) against trainable parameters (% of all, log axis): VL-PET's Figure 1.

    filled: a style whose last column is a relative gain, on one backbone. Published points are hollow circles, ours
    filled diamonds with one standard deviation over seeds; those of the mini world have a panel of their own. Writes
    `path` as .png, .svg and .pdf.
    """
    panels = [(True, False), (False, True)] if filled.mini else [(True, True)]
    with look():
        figure, axes = plt.subplots(
            1, len(panels), figsize=(6.8 * len(panels), 5.4), squeeze=False, layout="constrained"
        )
        labels = [_gains(axis, filled, *shown) for axis, shown in zip(axes.flat, panels, strict=True)]
        figure.canvas.draw()
        figure.set_layout_engine("none")
        for axis, own in zip(axes.flat, labels, strict=True):
            place_labels(axis, own, size=8.5)
        return write(figure, path, (".png", ".svg", ".pdf"))


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
    axis.set_xscale("log")
    low, high = min(values, default=1), max(values, default=100)
    axis.set_xlim(low / 1.7, high * 1.7)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


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


def pareto_figure(frame: pd.DataFrame, path: Path) -> list[Path]:
    """Average score against parameters (log axis), memory and time: a row of panels per suite and backbone.

    Methods on the Pareto front are filled and joined by a line of what is reached at most at a cost, the others hollow;
    † marks a method with suspect trials. Writes `path` as .png and .svg.
    """
    groups = list(costs(frame).groupby(["suite", "backbone"], sort=False))
    with look():
        shape = max(len(groups), 1), len(COSTS)
        figure, axes = plt.subplots(
            *shape, figsize=(5.0 * shape[1], 4.4 * shape[0]), squeeze=False, layout="constrained", sharey="row"
        )
        labels = {}
        for row, ((suite, backbone), table) in zip(axes, groups, strict=False):
            devices = ", ".join(dict.fromkeys(table.device))
            row[0].set_title(f"{suite} on {backbone}" + (f" ({devices})" if devices else ""))
            row[0].set_ylabel("average score")
            for axis, cost in zip(row, COSTS, strict=True):
                labels[axis] = _pareto(axis, table, cost)
        figure.canvas.draw()
        figure.set_layout_engine("none")
        for axis, own in labels.items():
            place_labels(axis, own, size=8.5)
        return write(figure, path)


def _pareto(axis: Axes, table: pd.DataFrame, cost: str) -> list[Label]:
    table = table[np.isfinite(table[cost]) & np.isfinite(table.average.astype(float))]
    axis.set_xlabel(COSTS[cost][0])
    axis.margins(x=0.2, y=0.14)
    if cost == "trainable":
        axis.set_xscale("log")
    front, labels = pareto_front(table[cost], table.average), []
    best = table[front].sort_values(cost)
    axis.plot(best[cost].repeat(2)[1:], best.average.repeat(2)[:-1], color=MUTED, linewidth=1.1, zorder=1)
    for index, row in enumerate(table.to_dict("records")):
        color, marker = COLORS[index % len(COLORS)], MARKERS[index // len(COLORS) % len(MARKERS)]
        point(axis, row[cost], row["average"], row["average std"], marker, color, hollow=not front.iloc[index])
        name = row["method"] + " †" * bool(row["suspect"])
        labels.append((name, color, row[cost], row["average"], np.nan_to_num(row["average std"])))
    return sorted(labels, key=lambda label: -label[3])
