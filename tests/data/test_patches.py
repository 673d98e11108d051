from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pet_bench.data.patches import patches


def test_cells_are_row_major_and_pixels_within_them_too():
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    cut = patches(Image.fromarray(pixels))
    assert cut.shape == (36, 192)
    assert cut.dtype == np.float16
    for row, column in [(0, 0), (0, 5), (2, 3), (5, 1)]:
        cell = pixels[8 * row : 8 * row + 8, 8 * column : 8 * column + 8].reshape(-1)
        np.testing.assert_allclose(cut[6 * row + column], cell / 127.5 - 1, atol=1e-3)


@pytest.mark.parametrize(("grey", "value"), [(0, -1.0), (255, 1.0)])
def test_black_and_white_bound_the_range(grey, value):
    assert (patches(Image.new("L", (100, 100), grey)) == value).all()


@pytest.mark.parametrize("size", [(100, 100), (20, 70), (48, 47)])
def test_other_sizes_are_resized_like_pillow_bicubic(size):
    pixels = np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    resized = image.resize((48, 48), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(patches(image), patches(resized))


def test_another_grid():
    assert patches(Image.new("RGB", (30, 30)), grid=3, patch=4).shape == (9, 48)
