"""Relative gain against parameters (VL-PET's Figure 1)."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from pet_bench.report.figures.labels import Label, place_labels
from pet_bench.report.figures.look import (
    BARS,
    INK,
    MUTED,
    SUSPECT,
    Figure,
    footnote,
    log_axis,
    look,
    point,
    reach,
    seeds_note,
)
from pet_bench.report.marks import mark_of
from pet_bench.report.tables.fill import Filled

GAIN = (-100.0, np.inf)  # no score is below 0


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
    column, rows, labels = filled.style.columns[-1], filled.frame.to_dict("records"), []
    assert column.relative
    name, first = column.name, rows[0]
    for row in rows:
        points, mark = [], mark_of(row["method"], filled.style.marks)
        for side in [""] * with_ours + [" published"] * with_published:
            x, y, std = row["percent" + side], row[name + side], row[f"{name}{side} std"]
            if np.isfinite([x, y]).all():
                points.append((x, y))
                point(axis, x, y, reach(y, std, GAIN), mark, hollow=bool(side), size=10 if side else 8)
                label = row["name"] + " †" * (not side and row["suspect"] > 0) if len(points) == 1 else ""
                labels.append((label, mark.color, x, y, np.nan_to_num(std)))
        axis.plot(*zip(*points, strict=True) if points else ((), ()), color=MUTED, linewidth=0.9, zorder=2)
    axis.axhline(0, color=MUTED, linestyle="--", linewidth=1.1, zorder=1)
    stand_in = f"{first['ours']}: the mini world, not comparable"
    where = filled.style.backbones[first["backbone"]].name if with_published else stand_in
    axis.set_title(where + (" (published)" if with_published and not with_ours else ""))
    axis.set(xlabel="trainable parameters (% of all)", ylabel=f"relative gain over {column.relative.name} (%)")
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
