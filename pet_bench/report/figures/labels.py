"""Names in figures, placed where they cover nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.textpath import TextPath
from matplotlib.transforms import Bbox

from pet_bench.report.figures.look import INK
from pet_bench.report.marks import Mark

Label = tuple[str, str, float, float, float]  # text, colour, x, y, half height of the point's bar


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
    canvas = axis.figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)  # `look.Figure` has it
    renderer = canvas.get_renderer()
    taken = [text.get_window_extent(renderer) for text in axis.texts]
    if legend := axis.get_legend():
        taken.append(legend.get_window_extent(renderer))
    for _, _, x, mean, std in labels:
        low, high = (axis.transData.transform((x, mean + sign * std)) for sign in (-1, 1))
        taken.append(Bbox([low - 8, high + 8]))
    inside = _corners([axis.get_window_extent(renderer)])
    lines = [line for line in axis.lines if line.get_linestyle() != "None"]
    strokes = _corners(
        Bbox(ends).padded(1) for line in lines for ends in pairwise(line.get_transform().transform(line.get_xydata()))
    )
    places = np.array([axis.transData.transform((x, mean)) for _, _, x, mean, _ in labels])
    for (name, color, x, mean, _), place in zip(labels, places, strict=True):
        if not name:
            continue
        best: tuple[float, Text, Bbox] | None = None
        covered = _corners(taken)
        leader = {"arrowstyle": "-", "color": color, "linewidth": 0.7}
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
                cost = sum(_overlaps(box, covered)) + box.width * box.height - sum(_overlaps(box, inside))
                cost += 0.2 * sum(_overlaps(box, strokes))
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
            if best and not best[0]:
                break
        if best:
            taken.append(best[2])


def _passed(start: np.ndarray, end: np.ndarray, places: np.ndarray) -> int:
    """How many of the other places are within 9 pixels of the way from start to end."""
    way = end - start
    share = np.clip((places - start) @ way / max(way @ way, 1e-9), 0, 1)
    near = np.hypot(*(places - start - share[:, None] * way).T) < 9
    return int((near & (np.hypot(*(places - start).T) > 9)).sum())


def _corners(boxes: Iterable[Bbox]) -> np.ndarray:
    """Left, bottom, right and top of each: (n, 4)."""
    return np.reshape([[*box.min, *box.max] for box in boxes], (-1, 4))


def _overlaps(box: Bbox, others: np.ndarray) -> list[float]:
    """The area that a box has in common with each of some others (`_corners`)."""
    left, bottom, right, top = others.T
    width = np.minimum(box.xmax, right) - np.maximum(box.xmin, left)
    height = np.minimum(box.ymax, top) - np.maximum(box.ymin, bottom)
    return (width.clip(0) * height.clip(0)).tolist()


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
        line = partial(Line2D, color=mark.color, transform=axis.transAxes, clip_on=False)
        axis.figure.add_artist(line(xs[:2], [height, place], linewidth=0.6))
        axis.figure.add_artist(
            line(
                xs[2:], [place] * 3, linewidth=1.6, linestyle=mark.dash, marker=mark.marker, markevery=[1],
                markersize=5 * mark.size,
            )
        )  # fmt: skip
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
