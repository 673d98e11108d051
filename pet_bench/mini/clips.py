"""The procedural world in motion: clips of shots, in each of which one object goes from the middle to a side.

A frame is 24x24 pixels and becomes one vector: its pixels at half the resolution. A linear map of the vector can tell
colour, shape and place. What goes where is not in a shot's first frame, and what comes first or last takes the clip.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import NamedTuple, Self

import numpy as np

from pet_bench.mini.world import BACKGROUND, COLORS, NOISE, PATCH, SHAPES, SIZES, stamp

SIDE = 3 * PATCH  # pixels of a frame, each way
WIDTH = 3 * (SIDE // 2) ** 2
SECONDS = 1.5  # from one frame to the next, as in the published features
FRAMES = 3  # of a shot
CONTRAST = 40
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "nowhere": (0, 0)}
PLACES = {"left": "left", "right": "right", "up": "above", "down": "below", "nowhere": ""}


class Frame(NamedTuple):
    """One object, (x, y) pixels off the middle; place: in words, none in the middle."""

    color: str
    shape: str
    x: int
    y: int
    place: str

    @property
    def told(self) -> str:
        """`red circle above`"""
        return " ".join(filter(None, (self.color, self.shape, self.place)))


@dataclass(frozen=True)
class Shot:
    """An object that goes from the middle of the picture in a direction, or stays there."""

    color: str
    shape: str
    direction: str

    @property
    def frames(self) -> tuple[Frame, ...]:
        dx, dy = (PATCH // 2 * way for way in DIRECTIONS[self.direction])
        places = ["", *[PLACES[self.direction]] * (FRAMES - 1)]
        return tuple(Frame(self.color, self.shape, dx * t, dy * t, place) for t, place in enumerate(places))


@dataclass(frozen=True)
class Clip:
    """Shots one after the other; no two objects share colour or shape."""

    shots: tuple[Shot, ...]

    @classmethod
    def sample(cls, rng: Random, most: int = 4) -> Self:
        count = rng.randint(2, most)
        colors, shapes = rng.sample(tuple(COLORS), count), rng.sample(SHAPES, count)
        return cls(
            tuple(
                Shot(color, shape, rng.choice(tuple(DIRECTIONS))) for color, shape in zip(colors, shapes, strict=True)
            )
        )

    @property
    def frames(self) -> tuple[Frame, ...]:
        return tuple(frame for shot in self.shots for frame in shot.frames)

    @property
    def seconds(self) -> float:
        return SECONDS * len(self.frames)

    def to_json(self) -> list[list[str]]:
        return [[shot.color, shot.shape, shot.direction] for shot in self.shots]


def draw(clip: Clip, rng: np.random.Generator) -> np.ndarray:
    """The pixels (T, 24, 24, 3) uint8 of a clip: jitter, slightly varying size and colour, faint noise."""
    pixels = np.full((len(clip.frames), SIDE, SIDE, 3), BACKGROUND, np.float32)
    for picture, frame in zip(pixels, clip.frames, strict=True):
        dx, dy = rng.integers(-1, 2, 2) / 4
        half = SIZES["large"] + float(rng.integers(-1, 2)) / 8
        coverage = stamp(frame.shape, half, float(dx), float(dy))[..., None]
        color = np.asarray(COLORS[frame.color], np.float32) + rng.normal(0, 6, 3)
        y, x = PATCH + frame.y, PATCH + frame.x
        cell = picture[y : y + PATCH, x : x + PATCH]
        cell += coverage * (color - cell)
    pixels += rng.normal(0, NOISE, pixels.shape)
    return pixels.round().clip(0, 255).astype(np.uint8)


def features(pixels: np.ndarray) -> np.ndarray:
    """Frame vectors (T, WIDTH) float16 of pixels (T, 24, 24, 3): means of 2x2 pixels, the background 0.

    Without that the object, a ninth of the picture, would be a slight change of a large constant vector, and methods
    would take several times as long to see it.
    """
    half = SIDE // 2
    small = pixels.astype(np.float32).reshape(len(pixels), half, 2, half, 2, 3).mean(axis=(2, 4))
    return ((small - BACKGROUND) / CONTRAST).reshape(len(pixels), WIDTH).astype(np.float16)
