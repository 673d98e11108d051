"""The mini world with one thing changed at a time: why its seeds lay so far apart.

`mini-image-text` has mid-grey as 0, so that the background, four fifths of every picture, is a large number everywhere;
in `mini-image-text-centred` the background is 0. Of its captions a quarter say shapes and numbers only, and which kind
beams choose decides what they score; in `mini-image-text-named` all say colours and shapes. `mini-image-text-v2` is
both, and larger. What that does: docs/evidence.md.
"""

from dataclasses import replace
from functools import partial

from pet_bench.data import patches
from pet_bench.mini import language, world, write
from pet_bench.tasks.suites import MINI_IMAGE_TEXT, centred_patches, drawn

SOURCES = (world, language, write, patches)

CENTRED = replace(
    MINI_IMAGE_TEXT,
    name="mini-image-text-centred",
    embedded=partial(
        drawn,
        "mini-image-text-centred",
        SOURCES,
        partial(write.write_image_text, extract=partial(patches.patches, zero=world.BACKGROUND)),
    ),
    extractor=centred_patches,
)
SAID_ALIKE = replace(
    MINI_IMAGE_TEXT,
    name="mini-image-text-named",
    embedded=partial(drawn, "mini-image-text-named", SOURCES, partial(write.write_image_text, wordings=language.NAMED)),
)
