"""Granularity gates over the tokens of one example (VL-PET, section 3.2), as heat maps and as means.

All of it reads what `pet_bench.trial.gates.Gates.to_frame` gives, or its CSV file.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from PIL import Image

from pet_bench.report.figures.look import INK, MUTED, Figure, look

SITE = ["site", "insert", "kind"]
PARTS = ["prompt", "text", "image", "answer"]
COLORMAP = "cividis"  # even in lightness, and the same to the colour-blind
# inches: squares of a token and of a frame, a grid of visual tokens, a row of dimensions; margins and what is between
CELL, FRAME, GRID, ROW, LEFT, TOP, GAP = 0.26, 0.15, 1.25, 7.0, 0.75, 0.5, 0.2
ACROSS, MAPS = 44, 6  # tokens, and layers with a grid of their own, that stand side by side
INK_ONLY: dict[str, Any] = {"color": INK, "parse_math": False}  # a token may be a dollar sign


def read_gates(path: Path) -> pd.DataFrame:
    """The frame that was written to a CSV file, tokens such as "null" and "NA" as they were."""
    text = ["id", "backbone", "method", "task", "example", "stack", "site", "kind", "token", "part"]
    whole = dict.fromkeys(["image", "row", "column"], "Int64")
    types, missing = dict.fromkeys(text, str) | whole, {name: [""] for name in whole}
    return pd.read_csv(path, dtype=types, keep_default_na=False, na_values=missing, float_precision="round_trip")


def mean_gates(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per site, insert and layer: the mean gate over the tokens of each part that the example has."""
    keys = [*SITE, "layer"]
    means = frame.groupby([*keys, "part"], sort=False)["mean"].mean().unstack("part")
    order = pd.MultiIndex.from_frame(frame[keys].drop_duplicates())
    return means.reindex(order)[[part for part in PARTS if part in means]].reset_index().rename_axis(None, axis=1)


def gates_figure(frame: pd.DataFrame, pictures: Sequence[Path] = (), dimensions: pd.DataFrame | None = None) -> Figure:
    """The mean gate over the dimensions as heat maps, all on one scale of colours, site by site.

    Text: layers × tokens, a long one in several lines. Images: a grid of tokens for each layer, beside the picture;
    frames of a clip: layers × frames. pictures: of the example's images, in their order. dimensions: of gates that are
    the same for all tokens (`Gates.dimensions`); these are then drawn as layers × dimensions instead. Layers, images
    and frames count from 0. Raises ValueError where `frame` is not of one trial and one example.
    """
    about = frame[["id", "backbone", "method", "task", "example"]].drop_duplicates()
    if len(about) != 1:
        raise ValueError(f"the gates of one trial on one example are drawn, found {len(about)} of them")
    vectors = {} if dimensions is None else dict(list(dimensions.groupby(SITE, sort=False)))
    page = Page()
    for key, rows in frame.groupby(SITE, sort=False):
        site, insert, kind = key  # an insert counts from 0, and only those after the first are named
        page.heading(f"{site}, {kind} gate" + (f", insert {insert}" if insert else ""))
        if key in vectors:
            page.dimensions(vectors[key])
            continue
        words, seen = rows[rows.part != "image"], rows[rows.part == "image"]
        if len(words):
            page.tokens(words)
        for image in sorted(seen.image.unique()):
            part, picture = seen[seen.image == image], pictures[image] if image < len(pictures) else None
            what, add = ("image", page.grids) if part.row.max() else ("clip", page.frames)
            add(part, f"{what} {image}" if seen.image.nunique() > 1 else what, picture)
        page.y += GAP
    trial = about.iloc[0]
    return page.draw(f"{trial.method} on {trial.backbone}, {trial.task} {trial.example}")


@dataclass
class Panel:
    """A place in inches from the upper left corner, and what draws there. values: layers, or rows, × columns."""

    x: float
    y: float
    width: float
    height: float
    paint: Callable[[Axes], None]
    values: np.ndarray | None = None


@dataclass
class Page:
    """Panels one below the other. y: where the next begins."""

    y: float = TOP
    panels: list[Panel] = field(default_factory=list)
    headings: list[tuple[float, str]] = field(default_factory=list)

    def heading(self, text: str) -> None:
        self.headings.append((self.y, text))
        self.y += 0.3

    def tokens(self, rows: pd.DataFrame) -> None:
        """Layers × tokens, the tokens written below."""
        table, names = _table(rows, "position"), rows.drop_duplicates("position").token.tolist()
        across = -(-len(names) // -(-len(names) // ACROSS))  # lines of the same length
        for start in range(0, len(names), across):
            part, labels = table.iloc[:, start : start + across], names[start : start + across]
            height = CELL * len(part)
            paint = partial(_strip, layers=part.index, places=range(len(labels)), labels=labels, upright=False)
            self.panels.append(Panel(LEFT, self.y, CELL * len(labels), height, paint, part.to_numpy()))
            self.y += height + 0.1 + 0.07 * max(map(len, labels))

    def frames(self, rows: pd.DataFrame, name: str, picture: Path | None) -> None:
        """Layers × frames, below the picture that holds the frames side by side."""
        table = _table(rows, "column")
        places = range(0, table.shape[1], 4)
        paint = partial(_strip, layers=table.index, places=places, labels=table.columns[places], title="frame")
        size = FRAME * table.shape[1], CELL * len(table)
        if picture:
            pixels = _pixels(picture)
            width = min(size[0], 0.5 * pixels.shape[1] / pixels.shape[0])
            height = width * pixels.shape[0] / pixels.shape[1]
            self.panels.append(Panel(LEFT, self.y, width, height, partial(_picture, pixels=pixels, name=name)))
            self.y += height + 0.1
        self.panels.append(Panel(LEFT, self.y, *size, paint, table.to_numpy()))
        self.y += size[1] + 0.45

    def grids(self, rows: pd.DataFrame, name: str, picture: Path | None) -> None:
        """For each layer the visual tokens where they are in the picture, which comes first."""
        layers = list(rows.groupby("layer"))
        x, step = LEFT, GRID + 0.1
        self.y += 0.15  # the grids' titles
        if picture:
            paint = partial(_picture, pixels=_pixels(picture), name=name)
            self.panels.append(Panel(x, self.y, GRID, GRID, paint))
            x += step
        for i, (layer, part) in enumerate(layers):
            values = part.pivot(index="row", columns="column", values="mean").to_numpy(float)
            paint = partial(_grid, title=f"layer {layer}", name=name if i % MAPS == 0 and not picture else "")
            place = x + step * (i % MAPS), self.y + (step + 0.15) * (i // MAPS)
            self.panels.append(Panel(*place, GRID, GRID, paint, values))
        self.y += (step + 0.15) * -(-len(layers) // MAPS) - 0.1

    def dimensions(self, rows: pd.DataFrame) -> None:
        """Layers × dimensions."""
        table = rows.pivot(index="layer", columns="dimension", values="gate")
        places = range(0, table.shape[1], -(-table.shape[1] // 12))
        title = "dimension (the same for all tokens)"
        paint = partial(_strip, layers=table.index, places=places, labels=table.columns[places], title=title)
        self.panels.append(Panel(LEFT, self.y, ROW, CELL * len(table), paint, table.to_numpy()))
        self.y += CELL * len(table) + 0.45

    def draw(self, title: str) -> Figure:
        values = [panel.values for panel in self.panels if panel.values is not None]
        scale = Normalize(min(map(np.nanmin, values)), max(map(np.nanmax, values)))
        right = max(panel.x + panel.width for panel in self.panels)
        width = max(right + 0.95, 5)
        lines = textwrap.wrap(title, int(10 * width))
        down = 0.18 * (len(lines) - 1)  # all else is so much lower
        height = down + max(self.y, TOP + 2.5)
        with look():
            sheet = Sheet(width, height, down)
            sheet.write(0.12 - down, "\n".join(lines), 11)
            for y, text in self.headings:
                sheet.write(y, text, 9.5)
            for panel in self.panels:
                axis = sheet.axes(panel.x, panel.y, panel.width, panel.height)
                axis.tick_params(length=2, labelsize=8)
                axis.spines[:].set_visible(False)
                if panel.values is not None:
                    axis.imshow(panel.values, cmap=COLORMAP, norm=scale, aspect="auto", interpolation="nearest")
                    _separate(axis, panel)
                panel.paint(axis)
            bar = sheet.axes(width - 0.75, TOP + 0.3, 0.14, min(2.0, height - TOP - 0.5))
            sheet.figure.colorbar(ScalarMappable(scale, COLORMAP), cax=bar)
            bar.set_title("gate", fontsize=8.5, loc="left")
            bar.tick_params(labelsize=8)
        return sheet.figure


class Sheet:
    """A figure on which all has its place in inches from the upper left corner, `down` lower than is said."""

    def __init__(self, width: float, height: float, down: float):
        self.figure, self.width, self.height, self.down = Figure(width, height), width, height, down
        self.figure.set_layout_engine("none")

    def axes(self, x: float, y: float, wide: float, high: float) -> Axes:
        width, height = self.width, self.height
        axis = self.figure.add_axes((x / width, 1 - (self.down + y + high) / height, wide / width, high / height))
        axis.grid(visible=False)
        return axis

    def write(self, y: float, text: str, size: float) -> None:
        self.figure.text(
            0.12 / self.width, 1 - (self.down + y) / self.height, text, va="top", fontsize=size, **INK_ONLY
        )


def _separate(axis: Axes, panel: Panel) -> None:
    """White lines between squares that are large enough."""
    assert panel.values is not None
    rows, columns = panel.values.shape
    if panel.width / columns >= FRAME:
        axis.set_xticks(np.arange(1, columns) - 0.5, minor=True)
        axis.set_yticks(np.arange(1, rows) - 0.5, minor=True)
        axis.grid(which="minor", color="white", linewidth=0.8)
        axis.tick_params(which="minor", length=0)


def _table(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    return rows.pivot(index="layer", columns=column, values="mean").astype(float)


def _strip(axis: Axes, *, layers, places, labels, title: str = "", upright: bool = True) -> None:
    axis.set_xticks(list(places), list(labels), rotation=0 if upright else 90, **INK_ONLY)
    axis.set_yticks(range(len(layers)), list(layers))
    axis.set_ylabel("layer", fontsize=8, color=MUTED)
    axis.set_xlabel(title, fontsize=8, color=MUTED)


def _grid(axis: Axes, *, title: str, name: str) -> None:
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize=8, loc="left", pad=3)
    axis.set_ylabel(name, fontsize=8, color=MUTED)


def _picture(axis: Axes, *, pixels: np.ndarray, name: str) -> None:
    axis.imshow(pixels, aspect="auto", interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.set_ylabel(name, fontsize=8, color=MUTED)


def _pixels(picture: Path) -> np.ndarray:
    with Image.open(picture) as image:
        return np.asarray(image.convert("RGB"))
