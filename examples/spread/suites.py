"""The mini world with one thing changed of how its pictures become numbers: why its seeds lay so far apart.

`mini-image-text` has mid-grey as 0, so that the background, four fifths of every picture, is a large number everywhere.
In `mini-image-text-centred` the background is 0, and nothing else is different; `mini-image-text-v2` is larger, too.
What that does: docs/evidence.md.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from pet_bench.data.cache import cache_dir
from pet_bench.data.patches import patches
from pet_bench.mini.world import BACKGROUND
from pet_bench.mini.write import write_image_text
from pet_bench.tasks.suites import MINI_IMAGE_TEXT, centred_patches


def centred() -> Path:
    """Drawn once into the cache."""
    root = cache_dir() / "mini-image-text-centred"
    if not root.is_dir():
        write_image_text(root, extract=partial(patches, zero=BACKGROUND))
    return root


CENTRED = replace(MINI_IMAGE_TEXT, name="mini-image-text-centred", embedded=centred, extractor=centred_patches)
