"""Score against trainable parameters."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pet_bench.report.look import MANY, MUTED, Figure, legend_beside, look, mark, place_labels, point


@look()
def score_vs_parameters(table: pd.DataFrame, score: str = "average") -> Figure:
    """Draw a comparison (`report.table.comparison`), one panel per suite and backbone.

    Points are methods with error bars of one standard deviation over seeds, with † where a trial is suspect; the best
    control and the majority answer are lines. More than `MANY` methods are named in a legend, the best first.
    """
    panels = [(key, group) for key, group in table.groupby(["suite", "backbone"], sort=False)]
    columns = min(len(panels), 2) or 1
    rows = -(-len(panels) // columns) or 1
    figure = Figure(6.8 * columns, 4.6 * rows)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    labels = [
        _panel(axis, " on ".join(key), group, score) for axis, (key, group) in zip(axes.flat, panels, strict=False)
    ]
    figure.settle()
    for axis, own in zip(axes.flat, labels, strict=False):
        place_labels(axis, own)
    return figure


def _panel(axis: Axes, title: str, group: pd.DataFrame, score: str) -> list[tuple[str, str, float, float, float]]:
    """Draw one panel; gives its labels."""
    group = group[np.isfinite(group[score].astype(float))]
    methods = group[(group.kind == "method") & group.trainable.gt(0)]
    axis.set(title=title, xscale="log", xlabel="trainable parameters", ylabel=score)
    axis.margins(y=0.14)
    if len(methods):
        low, high = float(methods.trainable.min()), float(methods.trainable.max())
        room = max(3.0, (high / low) ** 0.2)  # for the labels
        axis.set_xlim(low / room, high * room)
    labels = []
    for index, row in enumerate(methods.itertuples()):
        mean, std = getattr(row, score), methods[f"{score} std"].iloc[index]
        marker, color = mark(index)
        point(axis, row.trainable, mean, std, marker, color)
        name = f"{row.method} †" if row.suspect else row.method
        labels.append((name, color, row.trainable, mean, 0.0 if np.isnan(std) else std))
    if len(labels) > MANY:
        ranked = sorted(range(len(labels)), key=lambda index: -labels[index][3])
        legend_beside(axis, [(labels[index][0], *mark(index)) for index in ranked])
        labels = []
    controls = group[group.kind == "control"]
    for control, rows in controls.groupby("control", sort=False):
        best = rows.loc[rows[score].idxmax()]
        _rule(axis, best[score], "--", f"best {control} control ({best.method})")
    for row in group[group.kind == "majority"].to_dict("records"):
        _rule(axis, row[score], ":", row["method"])
    heights = [*methods[score], *(line.get_ydata()[0] for line in axis.lines if line.get_linestyle() in ("--", ":"))]
    if heights:  # a rule on the axis itself would not be seen
        spare = 0.06 * (max(heights) - min(heights) or 1)
        axis.set_ylim(min(axis.get_ylim()[0], min(heights) - spare), max(axis.get_ylim()[1], max(heights) + spare))
    return labels


def _rule(axis: Axes, height: float, style: str, text: str) -> None:
    axis.axhline(height, color=MUTED, linestyle=style, linewidth=1.1, zorder=1)
    place = {"xy": (0.005, height), "xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    axis.annotate(text, xytext=(0, 3), fontsize=8, color=MUTED, gid="rule", **place)
