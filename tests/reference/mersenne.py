"""What PyTorch's CPU generator makes of a seed, as arithmetic: uniforms of 24 bits, and normals by Box and Muller.

NumPy's `RandomState` is frozen and its words are PyTorch's; the last bit of `torch.randn` depends on the vector unit
of the processor, so that it cannot be stored by its seed alone (`packs` adds the bits that are missing here).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from numpy.typing import NDArray

BLOCK = 16  # uniforms that become as many normals: the first half radii, the second angles
SEEDS = 30_000  # that are tried
ALIKE = 1 - 1e-9


@dataclass(frozen=True)
class Draw:
    """mean + std · normals, from that word of the stream on."""

    start: int
    mean: float
    std: float


class Stream:
    """The words of a seed."""

    def __init__(self, seed: int, length: int = 1 << 16):
        self.seed = seed
        words = np.random.RandomState(seed).randint(0, 1 << 32, length, np.uint32)
        self.uniforms = (words & 0xFFFFFF) / float(1 << 24)

    @classmethod
    def beginning(cls, values: NDArray) -> Stream | None:
        """The one whose first words these values are drawn from, up to a mean and a scale; None if there is none."""
        seeds = np.flatnonzero(_beginnings() @ _unit(values.ravel()[:BLOCK]) > ALIKE)
        return cls(int(seeds[0])) if seeds.size else None

    def normals(self, start: int, size: int) -> NDArray:
        """`torch.randn(size)`, for at least 16, when the generator is at that word.

        Of a size that is no multiple of 16 the last 16 are drawn again, from the words after.
        """
        whole = size - size % BLOCK
        z = _box_muller(self.uniforms[start : start + whole])
        if whole == size:
            return z
        end = start + size
        return np.concatenate([z[: size - BLOCK], _box_muller(self.uniforms[end : end + BLOCK])])

    def drawn(self, size: int, draw: Draw) -> NDArray:
        return np.float32(draw.mean) + self.normals(draw.start, size) * np.float32(draw.std)

    def draw_of(self, values: NDArray) -> Draw | None:
        """How these values were drawn from the stream, if they were; of fewer than 16 it cannot be told."""
        if values.size < BLOCK:
            return None
        for start in np.flatnonzero(self._halves @ _unit(values[: BLOCK // 2]) > ALIKE).tolist():
            if start + values.size + BLOCK > self.uniforms.size:
                return None
            z = self.normals(start, values.size)
            if _unit(z) @ _unit(values) > ALIKE:
                std, mean = np.polyfit(z.astype(np.float64), values.astype(np.float64), 1)
                return Draw(start, round(float(mean), 6), float(f"{std:.9g}"))
        return None

    @cached_property
    def _halves(self) -> NDArray:
        """The first half of the block that begins at each word."""
        radii, angles = np.sqrt(-2 * np.log(1 - self.uniforms)), 2 * np.pi * self.uniforms
        firsts = radii[: -BLOCK // 2] * np.cos(angles[BLOCK // 2 :])
        return _unit(np.lib.stride_tricks.sliding_window_view(firsts, BLOCK // 2))


def _box_muller(uniforms: NDArray) -> NDArray:
    """Blocks of uniforms in [0, 1) to normals, each step rounded to float32."""
    blocks = uniforms.reshape(-1, 2, BLOCK // 2)
    radius = np.sqrt(-2 * np.log(1 - blocks[:, :1]).astype(np.float32))
    angle = (np.float32(2 * np.pi) * blocks[:, 1].astype(np.float32)).astype(np.float64)
    return (radius * np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)).ravel()


@cache
def _beginnings() -> NDArray:
    generator, uniforms = torch.Generator(), torch.empty(SEEDS, BLOCK)
    for seed in range(SEEDS):  # a seed takes NumPy twenty times as long
        uniforms[seed].uniform_(generator=generator.manual_seed(seed))
    return _unit(_box_muller(uniforms.numpy()).reshape(SEEDS, BLOCK))


def _unit(rows: NDArray) -> NDArray:
    """Each row without its mean and of length 1: two that differ in shift and scale only have the product 1."""
    rows = rows.astype(np.float64)
    centred = rows - rows.mean(-1, keepdims=True)
    return centred / (np.linalg.norm(centred, axis=-1, keepdims=True) + 1e-30)
