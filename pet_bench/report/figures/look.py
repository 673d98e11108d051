"""How all figures look: readable in print and for the colour-blind, each kind of point with a marker of its own."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal

import matplotlib
import matplotlib.figure
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.gridspec import SubplotSpec
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import ArrayLike
from PIL import Image

from pet_bench.errors import Faults, unknown
from pet_bench.report.marks import OTHERS, Mark

if TYPE_CHECKING:
    from contextlib import _GeneratorContextManager

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


def look() -> _GeneratorContextManager[None]:
    """All that draws a figure, from its making to its writing, stands under this, whatever matplotlib's settings are.

    A context, or `@look()` before a function.
    """
    return matplotlib.style.context(["default", RC])


class Figure(matplotlib.figure.Figure):
    """A figure of nobody but its holder: no display, no pyplot, nothing to close; a notebook shows it as it is."""

    def __init__(self, width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> None:
        super().__init__(figsize=(width, height), layout=layout)
        FigureCanvasAgg(self)

    def settle(self) -> None:
        """Lay it out for good: what is placed by hand afterwards stays where it was put."""
        if engine := self.get_layout_engine():
            engine.execute(self)
        self.set_layout_engine("none")
        for axis in self.axes:  # the solver's last bits vary, and with them the ids in an SVG
            left, bottom, width, height = (round(side, 9) for side in axis.get_position().bounds)
            axis.set_position((left, bottom, width, height))
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
    with look(), _drawn_once(figure):
        for target in written:
            if target.suffix == ".png":
                file = io.BytesIO()
                figure.savefig(file, format="rgba", dpi=DPI)
                width, pixels = int(figure.get_figwidth() * DPI), file.getvalue()
                image = Image.frombytes("RGBA", (width, len(pixels) // (4 * width)), pixels)
                colours = image.convert("RGB").quantize(dither=Image.Dither.NONE)
                colours.save(target, optimize=True, dpi=(DPI, DPI))
            else:
                figure.savefig(target, metadata={"Date" if target.suffix == ".svg" else "CreationDate": None})
    return written


@contextmanager
def _drawn_once(figure: matplotlib.figure.Figure) -> Iterator[None]:
    """Saving draws what has a layout engine twice, be it one that lays nothing out, as a figure has that is settled."""
    engine = figure.get_layout_engine()
    if isinstance(engine, PlaceHolderLayoutEngine):
        figure.set_layout_engine(None)
    yield
    figure.set_layout_engine(engine)


def reach(mean: Any, std: Any, bounds: tuple[float, float] = ANY) -> tuple[Any, Any]:
    """From where to where a bar or a band of one standard deviation goes, within what a score can be."""
    low, high = np.maximum(mean - std, bounds[0]), np.minimum(mean + std, bounds[1])
    return np.minimum(low, mean), np.maximum(high, mean)


def beneath(places: Iterable[ArrayLike], spans: ArrayLike) -> list[int]:
    """Of each of some points or lines, how many later ones are where it is, to a hundredth of the spans.

    places: of each its numbers, those of a point or of a line; spans: what a panel shows of each number. Such twins
    are drawn larger the more lie on them, so that each is seen.
    """
    scaled = [np.asarray(place, float) / np.asarray(spans, float) for place in places]
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
        x, y, yerr=bar if upright else None, xerr=None if upright else bar, fmt=mark.marker, color=mark.color,
        markersize=mark.size * size + 6 * beneath, capsize=3 + 2 * beneath, elinewidth=1.2 + 2.4 * beneath,
        markerfacecolor="none" if hollow else mark.color, markeredgecolor=mark.color if hollow else "white",
        markeredgewidth=1.4 if hollow else 0.8, zorder=(4 if hollow else 3) - beneath / 10,
    )  # fmt: skip


def stack(heights: Sequence[float], width: float, more: float = 0.3) -> tuple[Figure, list[SubplotSpec]]:
    """A figure of one column or two, as level as can be, and a place in it for each panel of these heights.

    All in inches; more: height for what stands outside the panels.
    """
    cut = min(range(1, len(heights) + 1), key=lambda cut: max(sum(heights[:cut]), sum(heights[cut:])))
    columns = [list(heights[:cut]), list(heights[cut:])][: 1 + (cut < len(heights))]
    tallest = max(map(sum, columns))
    figure, places = Figure(width * len(columns), tallest + more), []
    grid = figure.add_gridspec(1, len(columns))
    for index, sizes in enumerate(columns):
        rest = [tallest - sum(sizes)] * (tallest - sum(sizes) > 0.1)
        cells = grid[0, index].subgridspec(len(sizes) + len(rest), 1, height_ratios=sizes + rest)
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
