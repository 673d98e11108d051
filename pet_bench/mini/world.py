"""A procedural world: coloured shapes on a 6x6 board, drawn as 48x48 pixels.

Difficulty is chosen, not accidental. Every colour is equally bright against the background, so a linear map
of the pixels can tell colour from shape, and the visual projector of a frozen backbone has something to
find; jitter and noise keep it from being a lookup table. What is left to learn is which words go with which
patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from random import Random
from typing import Self

import numpy as np
from PIL import Image, ImageDraw

GRID = 6
PATCH = 8
BACKGROUND = 80
NOISE = 5.0

# Equal channel sums: no colour is brighter than another.
COLORS = {
    "red": (250, 90, 90),
    "green": (90, 250, 90),
    "blue": (90, 90, 250),
    "yellow": (210, 210, 10),
    "cyan": (10, 210, 210),
    "purple": (210, 10, 210),
}
SHAPES = ("square", "circle", "triangle", "cross")
SIZES = {"small": 2.5, "large": 3.8}  # half the side, in pixels
KINDS = tuple(product(SIZES, COLORS, SHAPES))


@dataclass(frozen=True, order=True)
class Thing:
    """One object of a scene; it fills (part of) one cell."""

    cell: int
    size: str
    color: str
    shape: str

    @property
    def row(self) -> int:
        return self.cell // GRID

    @property
    def column(self) -> int:
        return self.cell % GRID


@cache
def _thing(cell: int, kind: tuple[str, str, str]) -> Thing:
    """Scenes are drawn by the ten thousand, of 1,728 things."""
    return Thing(cell, *kind)


@dataclass(frozen=True)
class Scene:
    """Objects in reading order (row-major by cell)."""

    things: tuple[Thing, ...]

    @classmethod
    def sample(cls, rng: Random, count: int | None = None, most: int = 5) -> Self:
        """A scene of `count` objects, by default 2 to `most`; attributes and cells are drawn uniformly."""
        cells = sorted(rng.sample(range(GRID * GRID), count or rng.randint(2, most)))
        return cls(tuple(_thing(cell, rng.choice(KINDS)) for cell in cells))

    def having(self, **attributes: str) -> list[Thing]:
        """The objects that have every attribute given (size, color, shape)."""
        return [t for t in self.things if all(getattr(t, a) == value for a, value in attributes.items())]

    def to_json(self) -> list[list[int | str]]:
        return [[t.cell, t.size, t.color, t.shape] for t in self.things]

    @classmethod
    def from_json(cls, rows: Sequence[Sequence]) -> Self:
        return cls(tuple(Thing(*row) for row in rows))


@cache
def stamp(shape: str, half: float, dx: float, dy: float) -> np.ndarray:
    """Coverage of a cell by a shape, ``(PATCH, PATCH)`` in [0, 1], anti-aliased."""
    fine = 8
    canvas = Image.new("L", (PATCH * fine, PATCH * fine))
    pen = ImageDraw.Draw(canvas)
    x, y, h = (PATCH / 2 + dx) * fine, (PATCH / 2 + dy) * fine, half * fine
    box = (x - h, y - h, x + h, y + h)
    match shape:
        case "square":
            pen.rectangle(box, fill=255)
        case "circle":
            pen.ellipse(box, outline=255, width=round(0.5 * h))
        case "triangle":
            pen.polygon([(x, y - h), (x - h, y + h), (x + h, y + h)], fill=255)
        case "cross":
            pen.line((x - h, y - h, x + h, y + h), fill=255, width=round(0.55 * h))
            pen.line((x - h, y + h, x + h, y - h), fill=255, width=round(0.55 * h))
    return np.asarray(canvas.resize((PATCH, PATCH), Image.Resampling.BOX), np.float32) / 255


def draw(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """The scene as a 48x48 RGB image: sub-pixel jitter, slightly varying size and colour, faint noise."""
    side = GRID * PATCH
    pixels = np.full((side, side, 3), BACKGROUND, np.float32)
    for thing in scene.things:
        dx, dy = rng.integers(-1, 2, 2) / 4
        half = SIZES[thing.size] + float(rng.integers(-1, 2)) / 8
        coverage = stamp(thing.shape, half, float(dx), float(dy))[..., None]
        color = np.asarray(COLORS[thing.color], np.float32) + rng.normal(0, 6, 3)
        y, x = thing.row * PATCH, thing.column * PATCH
        cell = pixels[y : y + PATCH, x : x + PATCH]
        cell += coverage * (color - cell)
    pixels += rng.normal(0, NOISE, pixels.shape)
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))
