"""The mini world with one thing changed at a time: why its seeds lay so far apart.

`mini-image-text` has mid-grey as 0, so that the background, four fifths of every picture, is a large number everywhere;
in `mini-image-text-centred` the background is 0. Of its captions a quarter say shapes and numbers only, and which kind
beams choose decides what they score; in `mini-image-text-named` all say colours and shapes. `mini-image-text-v2` is
both, and larger. What that does: docs/evidence.md.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pet_bench.data.cache import cache_dir
from pet_bench.data.patches import patches
from pet_bench.mini.language import NAMED
from pet_bench.mini.world import BACKGROUND
from pet_bench.mini.write import write_image_text
from pet_bench.tasks.suites import MINI_IMAGE_TEXT, centred_patches

CENTRE = {"extract": partial(patches, zero=BACKGROUND)}


def drawn(name: str, changes: dict[str, Any]) -> Callable[[], Path]:
    def folder() -> Path:
        """Drawn once into the cache."""
        root = cache_dir() / name
        if not root.is_dir():
            write_image_text(root, **changes)
        return root

    return folder


CENTRED = replace(
    MINI_IMAGE_TEXT,
    name="mini-image-text-centred",
    embedded=drawn("mini-image-text-centred", CENTRE),
    extractor=centred_patches,
)
SAID_ALIKE = replace(
    MINI_IMAGE_TEXT,
    name="mini-image-text-named",
    embedded=drawn("mini-image-text-named", {"wordings": NAMED}),
)
