"""Score against trainable parameters, as PNG and SVG."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.text import Text
from matplotlib.transforms import Bbox

INK, MUTED = "#222222", "#6b6b6b"
# Okabe and Ito's colours, told apart under colour-blindness
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
MARKERS = "osD^vP"


def score_vs_parameters(table: pd.DataFrame, path: Path, score: str = "average") -> list[Path]:
    """Draw a comparison (`report.table.comparison`), one panel per suite and backbone.

    Points are methods with error bars of one standard deviation over seeds, with † where a trial is suspect; the best
    control and the majority answer are lines. Writes `path` with the suffixes .png and .svg and returns both.
    """
    panels = [(key, group) for key, group in table.groupby(["suite", "backbone"], sort=False)]
    columns = min(len(panels), 2) or 1
    rows = -(-len(panels) // columns) or 1
    figure, axes = plt.subplots(rows, columns, figsize=(6.8 * columns, 4.6 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (key, group) in zip(axes.flat, panels, strict=False):
        _panel(axis, " on ".join(key), group, score)
    figure.canvas.draw()
    figure.set_layout_engine("none")  # labels are placed in the layout as it stands
    for axis in axes.flat[: len(panels)]:
        _place_labels(axis)
    written = [path.with_suffix(suffix) for suffix in (".png", ".svg")]
    path.parent.mkdir(parents=True, exist_ok=True)
    with plt.rc_context({"svg.hashsalt": "pet-bench", "svg.fonttype": "none"}):
        figure.savefig(written[0], dpi=160, metadata={"Software": None})
        figure.savefig(written[1], metadata={"Date": None})
    plt.close(figure)
    return written


def _panel(axis: Axes, title: str, group: pd.DataFrame, score: str) -> None:
    group = group[np.isfinite(group[score].astype(float))]
    methods = group[(group.kind == "method") & group.trainable.gt(0)]
    axis.set_title(title, loc="left", fontsize=11, color=INK)
    axis.set_xscale("log")
    axis.set_xlabel("trainable parameters", color=INK)
    axis.set_ylabel(score, color=INK)
    axis.grid(True, which="major", color="#e6e6e6", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(colors=MUTED, which="both")
    axis.margins(y=0.14)
    if len(methods):
        low, high = float(methods.trainable.min()), float(methods.trainable.max())
        room = max(3.0, (high / low) ** 0.2)  # for the labels
        axis.set_xlim(low / room, high * room)
    axis.labels = []
    for index, row in enumerate(methods.itertuples()):
        mean, std = getattr(row, score), methods[f"{score} std"].iloc[index]
        color, marker = COLORS[index % len(COLORS)], MARKERS[index // len(COLORS) % len(MARKERS)]
        axis.errorbar(
            row.trainable, mean, yerr=None if np.isnan(std) else std, fmt=marker, color=color, markersize=7,
            capsize=3, elinewidth=1.2, markeredgecolor="white", markeredgewidth=0.8, zorder=3,
        )  # fmt: skip
        name = f"{row.method} †" if row.suspect else row.method
        axis.labels.append((name, color, row.trainable, mean, 0.0 if np.isnan(std) else std))
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


def _rule(axis: Axes, height: float, style: str, text: str) -> None:
    axis.axhline(height, color=MUTED, linestyle=style, linewidth=1.1, zorder=1)
    place = {"xy": (0.005, height), "xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    axis.annotate(text, xytext=(0, 3), fontsize=8, color=MUTED, gid="rule", **place)


def _place_labels(axis: Axes) -> None:
    """Put each label at the first place around its point where it covers nothing, or at the least bad."""
    renderer = axis.figure.canvas.get_renderer()
    taken = [text.get_window_extent(renderer) for text in axis.texts]
    for _, _, x, mean, std in axis.labels:
        low, high = (axis.transData.transform((x, mean + sign * std)) for sign in (-1, 1))
        taken.append(Bbox([low - 6, high + 6]))
    frame = axis.get_window_extent(renderer)
    heights = [line.get_window_extent(renderer) for line in axis.lines if line.get_linestyle() in ("--", ":")]
    for name, color, x, mean, _ in axis.labels:
        best, leader = None, {"arrowstyle": "-", "color": color, "linewidth": 0.7}
        for distance in (9, 16, 26, 40, 56, 75, 100, 130):
            for angle in np.deg2rad([0, 180, 90, -90, 35, -35, 145, -145, 65, -65, 115, -115]):
                dx, dy = distance * np.cos(angle), distance * np.sin(angle)
                text = axis.annotate(
                    name, (x, mean), xytext=(dx, dy), textcoords="offset points", fontsize=9, color=INK,
                    ha="left" if dx > 1 else "right" if dx < -1 else "center",
                    va="bottom" if dy > 1 else "top" if dy < -1 else "center", zorder=4,
                    arrowprops=leader if distance > 16 else None,
                )  # fmt: skip
                text.update_positions(renderer)
                box = Text.get_window_extent(text, renderer)  # without the leader
                cost = sum(_overlap(box, other) for other in taken) + box.width * box.height - _overlap(box, frame)
                cost += 0.2 * sum(_overlap(box, line.padded(1)) for line in heights)
                if best is None or cost < best[0]:
                    if best:
                        best[1].remove()
                    best = (cost, text, box)
                else:
                    text.remove()
                if not cost:
                    break
            if not best[0]:
                break
        taken.append(best[2])


def _overlap(a: Bbox, b: Bbox) -> float:
    common = Bbox.intersection(a, b)
    return common.width * common.height if common is not None else 0.0
