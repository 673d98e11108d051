"""In the place of an image that an example does not have: a black picture, or for features zeros.

Tasks that have such examples say `masks_empty`, so that zeros are hidden from attention.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pet_bench.data.task import FEATURES

FOLDER = Path(__file__).parent / "blank_pictures"  # with the picture below images/, as an album has it
NAME = "blank"


def feature(home: Path, read: Callable[[Path], np.ndarray]) -> np.ndarray:
    """Zeros in the shape of any other feature of a data set's folder; raises OSError where there is none."""
    folder = home / FEATURES
    other = next(folder.rglob("*.h5"), None)
    if other is None:
        raise OSError(f"the shape of no image's feature is that of any other, and there is none in {folder}")
    return np.zeros_like(read(other))
