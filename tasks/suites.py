"""The suites: which tasks are trained jointly, on what features."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import numpy as np

from pet_bench.data.cache import cache_dir, unwritable
from pet_bench.data.suite import Suite
from pet_bench.spec import Visual


def mini_image_text() -> Path:
    """The mini world, drawn once into the cache."""
    from pet_bench.data import patches
    from pet_bench.mini import language, world, write

    return drawn("mini-image-text", (world, language, write, patches), write.write_image_text)


def mini_image_text_v2() -> Path:
    """The mini world in its second sizes, likewise: features are 0 where nothing is, captions of one kind."""
    from pet_bench.data import patches
    from pet_bench.mini import language, world, write

    def written(root: Path) -> None:
        extract = partial(patches.patches, zero=world.BACKGROUND)
        write.write_image_text(root, sizes=write.SECOND, extract=extract, wordings=language.NAMED)

    return drawn("mini-image-text-v2", (world, language, write, patches), written)


def mini_video_text() -> Path:
    """The mini world in motion, drawn once into the cache."""
    from pet_bench.mini import clip_language, clips, world, write_clips

    return drawn("mini-video-text", (world, clips, clip_language, write_clips), write_clips.write_video_text)


def mini_video_text_v2() -> Path:
    """The mini world in motion in its second sizes, likewise: no description says where things go."""
    from pet_bench.mini import clip_language, clips, world, write_clips

    def written(root: Path) -> None:
        write_clips.write_video_text(root, sizes=write_clips.SECOND, moving=0)

    return drawn("mini-video-text-v2", (world, clips, clip_language, write_clips), written)


def picture_patches(picture: Path, zero: float = 127.5) -> np.ndarray:
    """The features of a picture of one's own, as those of the mini world's are made."""
    from PIL import Image

    from pet_bench.data.patches import patches

    with Image.open(picture) as image:
        return patches(image, zero=zero)


def centred_patches(picture: Path) -> np.ndarray:
    """Likewise, as those of its second version."""
    from pet_bench.mini.world import BACKGROUND

    return picture_patches(picture, BACKGROUND)


def drawn(name: str, sources: Iterable[ModuleType], write: Callable[[Path], None]) -> Path:
    """The folder that `write` fills, named after the source of what draws."""
    text = b"".join(Path(str(module.__file__)).read_bytes() for module in sources)
    root = cache_dir() / name / sha256(text).hexdigest()[:12]
    if not root.is_dir():
        try:
            write(root)
        except OSError as error:
            if not root.is_dir():  # otherwise another process was first
                raise unwritable("the mini world:", root.parent, error) from None
    return root


IMAGE_TEXT = Suite(
    name="image-text",
    tasks=("vqa", "gqa", "nlvr2", "coco-caption"),
    visual=Visual(width=2048, tokens=49, pooled=36, images=2),
)
VIDEO_TEXT = Suite(
    name="video-text",
    tasks=("tvqa", "how2qa", "tvc", "yc2c"),
    visual=Visual(width=512, tokens=64, pooled=64, images=2),
)
MINI_IMAGE_TEXT = Suite(
    name="mini-image-text",
    tasks=IMAGE_TEXT.tasks,
    visual=Visual(width=192, tokens=36, pooled=36, images=2),
    embedded=mini_image_text,
    extractor=picture_patches,
)
MINI_IMAGE_TEXT_V2 = replace(
    MINI_IMAGE_TEXT,
    name="mini-image-text-v2",
    recipe={"epochs": 1, "batch_size": 16, "warmup": 0.3},
    embedded=mini_image_text_v2,
    extractor=centred_patches,
)
MINI_VIDEO_TEXT = Suite(
    name="mini-video-text",
    tasks=VIDEO_TEXT.tasks,
    visual=Visual(width=432, tokens=64, pooled=64, images=2),
    recipe={"epochs": 8},
    embedded=mini_video_text,
)
MINI_VIDEO_TEXT_V2 = replace(MINI_VIDEO_TEXT, name="mini-video-text-v2", embedded=mini_video_text_v2)
NLVR_V1 = Suite(
    name="nlvr-v1",
    tasks=("nlvr-v1",),
    visual=Visual(width=192, tokens=36, pooled=36, images=3),
    recipe={"epochs": 10, "batch_size": 50},
    extractor=picture_patches,
)
VQA_ZOO = Suite(name="vqa-zoo", tasks=("okvqa", "textvqa", "vizwiz"), visual=IMAGE_TEXT.visual)
SCIENCE = Suite(name="science", tasks=("scienceqa",), visual=IMAGE_TEXT.visual)
FLICKR30K = Suite(name="flickr30k", tasks=("flickr30k-caption",), visual=IMAGE_TEXT.visual)
CHAT = Suite(name="chat", tasks=("chat",), visual=replace(IMAGE_TEXT.visual, images=8))
