"""How all figures look: readable in print and for the colour-blind, each kind of point with a marker of its own."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

INK, MUTED, RULE = "#222222", "#6b6b6b", "#e6e6e6"
# Okabe and Ito's colours, told apart under colour-blindness
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
MARKERS = "osD^vP"
RC = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.grid.which": "major",
    "axes.labelcolor": INK,
    "axes.prop_cycle": matplotlib.cycler(color=COLORS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.markersize": 7,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "pet-bench",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


def look() -> AbstractContextManager[None]:
    """All that draws a figure, from its making to its writing, stands under this."""
    return plt.rc_context(RC)


def write(figure: Figure, path: Path, suffixes: Iterable[str] = (".png", ".svg")) -> list[Path]:
    """Write a figure as `path` with each suffix and close it; equal figures are equal files."""
    written = [path.with_suffix(suffix) for suffix in suffixes]
    path.parent.mkdir(parents=True, exist_ok=True)
    for target in written:
        made = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}[target.suffix]
        figure.savefig(target, dpi=160, metadata=made)
    plt.close(figure)
    return written


def point(
    axis: Axes, x: float, y: float, std: float, marker: str, color: str, hollow: bool = False, size: float = 7
) -> None:
    """One point with its error bar (std NaN: none); a hollow one shows what is under it."""
    axis.errorbar(
        x, y, yerr=None if np.isnan(std) else std, fmt=marker, color=color, markersize=size, capsize=3,
        elinewidth=1.2,
        markerfacecolor="none" if hollow else color, markeredgecolor=color if hollow else "white",
        markeredgewidth=1.4 if hollow else 0.8, zorder=4 if hollow else 3,
    )  # fmt: skip


def place_labels(axis: Axes, labels: list[tuple[str, str, float, float, float]], size: float = 9) -> None:
    """Put each label (text, colour, x, y, half height of the point's bar) where it covers nothing, or covers least.

    An empty text only keeps its point uncovered. Texts already there and bars are not covered, and lines only where
    need be. The figure's layout must be final.
    """
    renderer = axis.figure.canvas.get_renderer()
    taken = [text.get_window_extent(renderer) for text in axis.texts]
    if legend := axis.get_legend():
        taken.append(legend.get_window_extent(renderer))
    for _, _, x, mean, std in labels:
        low, high = (axis.transData.transform((x, mean + sign * std)) for sign in (-1, 1))
        taken.append(Bbox([low - 8, high + 8]))
    frame = axis.get_window_extent(renderer)
    lines = [line for line in axis.lines if line.get_linestyle() != "None"]
    strokes = [
        Bbox(ends).padded(1) for line in lines for ends in pairwise(line.get_transform().transform(line.get_xydata()))
    ]
    for name, color, x, mean, _ in labels:
        if not name:
            continue
        best, leader = None, {"arrowstyle": "-", "color": color, "linewidth": 0.7}
        for distance in (9, 16, 26, 40, 56, 75, 100, 130):
            for angle in np.deg2rad([0, 180, 90, -90, 35, -35, 145, -145, 65, -65, 115, -115]):
                dx, dy = distance * np.cos(angle), distance * np.sin(angle)
                text = axis.annotate(
                    name, (x, mean), xytext=(dx, dy), textcoords="offset points", fontsize=size, color=INK,
                    ha="left" if dx > 1 else "right" if dx < -1 else "center",
                    va="bottom" if dy > 1 else "top" if dy < -1 else "center", zorder=4,
                    arrowprops=leader if distance > 16 else None,
                )  # fmt: skip
                text.update_positions(renderer)
                box = Text.get_window_extent(text, renderer)  # without the leader
                cost = sum(_overlap(box, other) for other in taken) + box.width * box.height - _overlap(box, frame)
                cost += 0.2 * sum(_overlap(box, stroke) for stroke in strokes)
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
