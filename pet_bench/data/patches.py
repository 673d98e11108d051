"""Raw pixels as grid features: the extractor of the small, embedded data sets."""

from __future__ import annotations

import numpy as np
from PIL import Image


def patches(image: Image.Image, *, grid: int = 6, patch: int = 8, zero: float = 127.5) -> np.ndarray:
    """Cut an image into a square grid of flattened pixel patches.

    f_j = (vec(x_j) - zero) / 127.5; with the default black is -1, white is 1 and mid-grey is 0. The image is resized to
    ``grid * patch`` pixels a side with a bicubic filter, aspect ratio not kept (nothing is resampled when it
    has that size already). Nothing is learned here: what pixels mean is left to the visual projector.

    Returns ``(grid * grid, 3 * patch * patch)`` float16, cells row-major, within a cell ``(y, x, channel)``.
    """
    side = grid * patch
    image = image.convert("RGB")
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    pixels = np.asarray(image, np.float32) / 127.5 - np.float32(zero / 127.5)
    cells = pixels.reshape(grid, patch, grid, patch, 3).swapaxes(1, 2)
    return cells.reshape(grid * grid, 3 * patch * patch).astype(np.float16)
