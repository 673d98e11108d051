"""How all figures look: readable in print and for the colour-blind, each kind of point with a marker of its own."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from contextlib import ContextDecorator
from itertools import pairwise
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib
import matplotlib.figure
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.gridspec import SubplotSpec
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox
from PIL import Image

from pet_bench.errors import Faults, unknown
from pet_bench.report.marks import OTHERS, Mark

INK, MUTED, RULE, GREY = "#222222", "#6b6b6b", "#e6e6e6", OTHERS.color
DPI = 160
MANY, FEW = 12, 6  # points that can be named where they stand; lines and bands that can lie over each other
ANY = (-np.inf, np.inf)
BARS = "± 1 sample standard deviation, cut off where scores end"
SUSPECT = "† with suspect trials (loss not finite, predictions collapsed or at chance)"
RC = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.grid.which": "major",
    "axes.labelcolor": INK,
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


def look() -> ContextDecorator:
    """All that draws a figure, from its making to its writing, stands under this, whatever matplotlib's settings are.

    A context, or `@look()` before a function.
    """
    return matplotlib.style.context(["default", RC])


class Figure(matplotlib.figure.Figure):
    """A figure of nobody but its holder: no display, no pyplot, nothing to close; a notebook shows it as it is."""

    def __init__(self, width: float, height: float, layout: str | None = "constrained") -> None:
        super().__init__(figsize=(width, height), layout=layout)
        FigureCanvasAgg(self)

    def settle(self) -> None:
        """Lay it out for good: what is placed by hand afterwards stays where it was put."""
        self.canvas.draw()
        self.set_layout_engine("none")
        for axis in self.axes:  # the solver's last bits vary, and with them the ids in an SVG
            axis.set_position([round(side, 9) for side in axis.get_position().bounds])
            axis.set_in_layout(True)  # setting a position takes it out, and what a notebook crops around it

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        with look():
            self.savefig(file, format="png")
        return file.getvalue()


def write(figure: matplotlib.figure.Figure, path: Path, suffixes: Iterable[str] = (".png", ".svg")) -> list[Path]:
    """Write a figure as `path` with each suffix (.png, .svg, .pdf); equal figures are equal files.

    A PNG has 256 colours, which makes it a third of the size.
    """
    written = [path.with_suffix(suffix) for suffix in suffixes]
    path.parent.mkdir(parents=True, exist_ok=True)
    with look():
        for target in written:
            if target.suffix == ".png":
                file = io.BytesIO()
                figure.savefig(file, format="png", dpi=DPI)
                colours = Image.open(file).convert("RGB").quantize(dither=Image.Dither.NONE)
                colours.save(target, optimize=True, dpi=(DPI, DPI))
            else:
                figure.savefig(target, metadata={"Date" if target.suffix == ".svg" else "CreationDate": None})
    return written


def reach(mean: Any, std: Any, bounds: tuple[float, float] = ANY) -> tuple[Any, Any]:
    """From where to where a bar or a band of one standard deviation goes, within what a score can be."""
    low, high = np.maximum(mean - std, bounds[0]), np.minimum(mean + std, bounds[1])
    return np.minimum(low, mean), np.maximum(high, mean)


def beneath(places: Sequence[Sequence[float]], spans: Sequence[float]) -> list[int]:
    """Of each of some points or lines, how many later ones are where it is, to a hundredth of the spans.

    places: of each its numbers, those of a point or of a line; spans: what a panel shows of each number. Such twins
    are drawn larger the more lie on them, so that each is seen.
    """
    scaled = [np.asarray(place, float) / spans for place in places]
    return [
        sum(one.shape == other.shape and bool((abs(one - other) < 0.01).all()) for other in scaled[index + 1 :])
        for index, one in enumerate(scaled)
    ]


def point(
    axis: Axes, x: float, y: float, ends: Sequence[float] | None, mark: Mark, hollow: bool = False, size: float = 7,
    upright: bool = True, beneath: int = 0,
) -> None:  # fmt: skip
    """One point with its error bar, upright or lying, from end to end (None or NaN: none).

    A hollow one shows what is under it; beneath: how many others are in the same place.
    """
    score = y if upright else x
    bar = None if ends is None or np.isnan(ends).any() else [[score - ends[0]], [ends[1] - score]]
    axis.errorbar(
        x, y, **{"yerr" if upright else "xerr": bar}, fmt=mark.marker, color=mark.color,
        markersize=mark.size * size + 6 * beneath, capsize=3 + 2 * beneath, elinewidth=1.2 + 2.4 * beneath,
        markerfacecolor="none" if hollow else mark.color, markeredgecolor=mark.color if hollow else "white",
        markeredgewidth=1.4 if hollow else 0.8, zorder=(4 if hollow else 3) - beneath / 10,
    )  # fmt: skip


def legend_beside(axis: Axes, named: Iterable[tuple[str, Mark]]) -> None:
    """Label and mark of many points, in their order, to the right of the axis."""
    handles = [
        Line2D([], [], linestyle="none", marker=mark.marker, color=mark.color, label=label, markersize=7 * mark.size)
        for label, mark in named
    ]
    axis.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, borderaxespad=0.0)


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
    places = np.array([axis.transData.transform((x, mean)) for _, _, x, mean, _ in labels])
    for (name, color, x, mean, _), place in zip(labels, places, strict=True):
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
                if distance > 16:  # a leader that passes another point seems to be that one's
                    cost += 300 * _passed(place, np.clip(place, box.min, box.max), places)
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


def room_beside(texts: Iterable[str], size: float = 8) -> float:
    """The inches that `labels_beside` needs to the right of a panel."""
    return 0.55 + max((TextPath((0, 0), text, size=size).get_extents().x1 for text in texts if text), default=0) / 72


def labels_beside(axis: Axes, labels: Sequence[tuple[str, Mark, float]], size: float = 8) -> None:
    """Name the lines of a panel in a column to its right: (text, mark, height y where it ends, NaN where it has none).

    No name is on another; each has its line's stroke before it, led to that height. The figure's layout must be final.
    """
    labels = sorted(labels, key=lambda label: np.nan_to_num(label[2], nan=-np.inf))
    frame, inch = axis.get_window_extent(), axis.figure.dpi
    heights = [(float(axis.transData.transform((0, y))[1]) - frame.y0) / frame.height for *_, y in labels]
    places = spread(
        np.nan_to_num(heights).tolist(), min(1.25 * size / 72 * inch / frame.height, 1 / max(len(labels) - 1, 1))
    )
    xs = 1 + np.array([0.03, 0.2, 0.23, 0.34, 0.45]) * inch / frame.width
    for (text, mark, _), height, place in zip(labels, heights, places, strict=True):
        how = {"color": mark.color, "transform": axis.transAxes, "clip_on": False}
        axis.figure.add_artist(Line2D(xs[:2], [height, place], linewidth=0.6, **how))
        stroke = {"linestyle": mark.dash, "marker": mark.marker, "markevery": [1], "markersize": 5 * mark.size}
        axis.figure.add_artist(Line2D(xs[2:], [place] * 3, linewidth=1.6, **stroke, **how))
        axis.annotate(
            text, (xs[-1], place), xycoords="axes fraction", xytext=(3, 0), textcoords="offset points", fontsize=size,
            color=INK, va="center", annotation_clip=False,
        )  # fmt: skip


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending heights within 0 … 1, moved as little as can be to stand `gap` apart: those too near as one group."""
    groups: list[tuple[float, int]] = []  # middle, how many

    def inside(middle: float, count: int) -> float:
        half = gap * (count - 1) / 2
        return min(max(middle, half), 1 - half)

    for height in heights:
        groups.append((inside(height, 1), 1))
        while len(groups) > 1:
            (below, m), (above, n) = groups[-2:]
            if above - below >= gap * (m + n) / 2 - 1e-9:
                break
            groups[-2:] = [(inside((m * below + n * above) / (m + n), m + n), m + n)]
    return [middle + gap * (index - (count - 1) / 2) for middle, count in groups for index in range(count)]


def stack(heights: Sequence[float], width: float, more: float = 0.3) -> tuple[Figure, list[SubplotSpec]]:
    """A figure of one column or two, as level as can be, and a place in it for each panel of these heights.

    All in inches; more: height for what stands outside the panels.
    """
    cut = min(range(1, len(heights) + 1), key=lambda cut: max(sum(heights[:cut]), sum(heights[cut:])))
    columns = [list(heights[:cut]), list(heights[cut:])][: 1 + (cut < len(heights))]
    tallest = max(map(sum, columns))
    figure, places = Figure(width * len(columns), tallest + more), []
    for sizes, place in zip(columns, figure.add_gridspec(1, len(columns)), strict=True):
        rest = [tallest - sum(sizes)] * (tallest - sum(sizes) > 0.1)
        cells = place.subgridspec(len(sizes) + len(rest), 1, height_ratios=sizes + rest)
        places += [cells[row, 0] for row in range(len(sizes))]
    return figure, places


def chosen(ranked: Sequence[str], methods: Sequence[str] | None) -> list[str]:
    """Those of the methods, the best first, that are asked for, without a wish all.

    Raises UserError naming every method asked for that is not there.
    """
    if methods is None:
        return list(ranked)
    faults = Faults()
    for method in methods:
        if method not in ranked:
            faults.add(unknown("method", method, ranked))
    faults.check()
    return [method for method in ranked if method in methods]


def log_axis(axes: Axes, which: str) -> None:
    """A log axis, "x" or "y", with its numbers written out."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def footnote(figure: Figure, text: str) -> None:
    """What a reader must know, beneath all panels, in as many lines as it takes; a small figure grows by them."""
    width, height = figure.get_size_inches()
    lines = fill(text, int(14.5 * width))
    if (room := 0.17 * len(lines.splitlines())) > height / 6:
        figure.set_size_inches(width, height + room)
    figure.supxlabel(lines, x=0.01, ha="left", fontsize=8.5, color=MUTED)


def seeds_note(seeds: pd.Series) -> str:
    """How many seeds means are over. seeds: by method."""
    usual = int(seeds.mode().iloc[0])
    if seeds.max() == 1:
        return "n = 1 seed"
    other = [f"{method} {n}" for method, n in seeds[seeds != usual].items()]
    return f"means over n = {usual} seed{'s' * (usual > 1)}" + (
        f" (but {', '.join(dict.fromkeys(other))})" if other else ""
    )


def _passed(start: np.ndarray, end: np.ndarray, places: np.ndarray) -> int:
    """How many of the other places are within 9 pixels of the way from start to end."""
    way = end - start
    share = np.clip((places - start) @ way / max(way @ way, 1e-9), 0, 1)
    near = np.hypot(*(places - start - share[:, None] * way).T) < 9
    return int((near & (np.hypot(*(places - start).T) > 9)).sum())


def _overlap(a: Bbox, b: Bbox) -> float:
    common = Bbox.intersection(a, b)
    return common.width * common.height if common is not None else 0.0
