"""Figures: relative gain against parameters (VL-PET's Figure 1), and what a score costs (Pareto fronts)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from pet_bench.report.bounds import bounds
from pet_bench.report.look import (
    BARS,
    INK,
    MANY,
    MUTED,
    SUSPECT,
    Figure,
    beneath,
    footnote,
    legend_beside,
    log_axis,
    look,
    place_labels,
    point,
    reach,
    seeds_note,
)
from pet_bench.report.marks import mark_of
from pet_bench.report.published import BACKBONES
from pet_bench.report.styles import Filled
from pet_bench.report.table import comparison, named, scored

Label = tuple[str, str, float, float, float]
GAIN = (-100.0, np.inf)  # no score is below 0
COSTS = {
    "trainable": ("trainable parameters", 1),
    "peak_memory_bytes": ("peak memory in training (GiB)", 2**30),
    "train_seconds": ("training time (minutes)", 60),
}


@look()
def relative_gain_figure(filled: Filled) -> Figure:
    """Relative gain over full fine-tuning (%) against trainable parameters (% of all, log axis): VL-PET's Figure 1.

    filled: a style whose last column is a relative gain, on one backbone. Published points are open, ours filled with
    one standard deviation over seeds; those of the mini world have a panel of their own.
    """
    panels = [(True, False), (False, True)] if filled.mini else [(True, True)]
    figure = Figure(6.8 * len(panels), 5.6)
    axes = figure.subplots(1, len(panels), squeeze=False)
    labels = [_gains(axis, filled, *shown) for axis, shown in zip(axes.flat, panels, strict=True)]
    footnote(figure, _gains_note(filled))
    figure.settle()
    for axis, own in zip(axes.flat, labels, strict=True):
        place_labels(axis, own, size=8.5)
    return figure


def _gains(axis: Axes, filled: Filled, with_published: bool, with_ours: bool) -> list[Label]:
    """Draw one panel; gives its labels: one per method, an empty one for its second point."""
    name, rows, labels = filled.style.columns[-1].name, filled.frame.to_dict("records"), []
    for row in rows:
        points, mark = [], mark_of(row["method"])
        for side in [""] * with_ours + [" published"] * with_published:
            x, y, std = row["percent" + side], row[name + side], row[f"{name}{side} std"]
            if np.isfinite([x, y]).all():
                points.append((x, y))
                point(axis, x, y, reach(y, std, GAIN), mark, hollow=bool(side), size=10 if side else 8)
                label = row["name"] + " †" * (not side and row["suspect"] > 0) if len(points) == 1 else ""
                labels.append((label, mark.color, x, y, np.nan_to_num(std)))
        axis.plot(*zip(*points, strict=True) if points else ((), ()), color=MUTED, linewidth=0.9, zorder=2)
    axis.axhline(0, color=MUTED, linestyle="--", linewidth=1.1, zorder=1)
    where = BACKBONES[rows[0]["backbone"]] if with_published else f"{rows[0]['ours']}: the mini world, not comparable"
    axis.set_title(where + (" (published)" if with_published and not with_ours else ""))
    axis.set(xlabel="trainable parameters (% of all)", ylabel="relative gain over full fine-tuning (%)")
    _percent_axis(axis, [label[2] for label in labels])
    axis.margins(y=0.12)
    if labels and with_published:
        axis.plot([], [], "o", color=INK, label=filled.style.source, markerfacecolor="none", markersize=9)
    if labels and with_ours:
        axis.plot([], [], "o", color=INK, label="ours")
    if labels:
        axis.legend(loc="lower right")
    return sorted(labels, key=lambda label: -label[3])


def _gains_note(filled: Filled) -> str:
    own = filled.frame[filled.frame.n > 0]
    notes = ["open: published"] if not len(own) else [
        "open: published; filled: ours", seeds_note(own.set_index("name").n)
    ]  # fmt: skip
    if own[f"{filled.style.columns[-1].name} std"].notna().any():
        notes.append(f"bars: {BARS}")
    if own.suspect.any():
        notes.append(SUSPECT)
    return "; ".join(notes)


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

    Methods on the Pareto front are filled and joined by a line of what is reached at most at a cost, the others open;
    † marks a method with suspect trials; of two in one place the lower is drawn larger. The best of each control and
    the majority answer are lines. Where methods are more than `MANY`, all are named in a legend, and beside their
    points only those on a front or whose mark another has too.
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
    for axis, own in labels.items():
        place_labels(axis, own, size=8.5)
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
    return sorted(labels.values(), key=lambda label: -label[3])


def _rules(row: Sequence[Axes], rest: pd.DataFrame) -> None:
    """Lines for the best of each control and for the majority answer, named in the first panel."""
    best = rest.sort_values("average", ascending=False).drop_duplicates(["kind", "control"])
    for line in best.itertuples():
        control = line.kind == "control"
        for axis in row:
            axis.axhline(line.average, color=MUTED, linestyle="--" if control else ":", linewidth=1.1, zorder=1)
        text = f"best {line.control} control ({line.method})" if control else line.method
        place = {"xy": (0.005, line.average), "xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        row[0].annotate(text, xytext=(0, 3), fontsize=8, color=MUTED, **place)


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
