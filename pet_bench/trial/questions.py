"""People's own questions: a text and an image, as a picture or as features, to the example that a model reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps

from pet_bench.data.clips import ClipTask, resample
from pet_bench.data.images import ImageStore
from pet_bench.data.pictures import in_rgb, opened
from pet_bench.data.store import HALF, FeatureStore
from pet_bench.data.suite import Suite
from pet_bench.data.task import Example, Task
from pet_bench.errors import UserError, shortened, text_of, unknown
from pet_bench.files import impostor_at
from pet_bench.packed import Rows
from pet_bench.spec import Control, Fed

KEYS = ("text", "image", "images")
MOST = 64  # pictures of one question

Extractor = Callable[[Path], np.ndarray]


class Question(NamedTuple):
    """An example and what the model sees of its images: features (tokens, width), or pictures (height, width, 3)."""

    example: Example
    seen: list[np.ndarray]


class Given(FeatureStore):
    """The features of questions, in half precision as packed ones are."""

    def __init__(self, questions: Iterable[Question]):
        keys, features = _flat(questions)
        self.array = np.stack(features)
        self.tokens = self.array.shape[1]
        self.index = {key: row for row, key in enumerate(keys)}
        self.used, self.resident = np.arange(len(keys)), None


class Shown(ImageStore):
    """The pictures of questions."""

    def __init__(self, questions: Iterable[Question]):
        keys, self.pictures = _flat(questions)
        self.index = {key: row for row, key in enumerate(keys)}
        self.places = [(0, *picture.shape[:2]) for picture in self.pictures]

    def named(self, rows: np.ndarray, *, control: Control = "none") -> dict[str, Rows]:
        """Nothing: what is kept of pictures is not of these."""
        return {}

    def picture(self, row: int) -> np.ndarray:
        return self.pictures[row]


def _flat(questions: Iterable[Question]) -> tuple[list[str], list[np.ndarray]]:
    pairs = [pair for example, seen in questions for pair in zip(example.images, seen, strict=True)]
    return [key for key, _ in pairs], [one for _, one in pairs]


def given_store(questions: Iterable[Question], fed: Fed) -> Given | Shown:
    """What holds what the model sees of these."""
    return Shown(questions) if fed == "pixels" else Given(questions)


def question(given: Any, number: int, task: Task, suite: Suite, fed: Fed = "features") -> Question:
    """`{"text": "what color is the ball?", "image": …}` as the example of that number.

    text: without the task's prompt, which is added where it is not there; may be left out where it is all of the text.
    image: features (N, f) or, of several images, (I, N, f), as NumPy array or torch tensor; where the suite makes
    features of pictures, also the path of one. Of a model that is fed with pixels, a picture: its path, one of Pillow's
    or an array (height, width, 3) of uint8. images: a list of these, one an image. A clip may have any number of
    frames. Raises UserError with what was found and what is possible.
    """
    what = f"example {number}"
    if not isinstance(given, Mapping):
        raise UserError(f'{what}: expected an Example or {{"text": …, "image": …}}, found {shortened(repr(given))}')
    if strange := [key for key in given if key not in KEYS]:
        raise UserError.many(unknown(f"key of {what}", key, KEYS) for key in strange)
    if ("image" in given) == ("images" in given):
        raise UserError(f'{what}: give either "image" or "images", a list of them')
    text = given.get("text", "")
    if not isinstance(text, str):
        raise UserError(f"{what}: text is no text, found {shortened(repr(text))}")
    images = [given["image"]] if "image" in given else given["images"]
    if not isinstance(images, list | tuple):
        raise UserError(f'{what}: images is a list, found {shortened(repr(images))}; one alone is an "image"')
    if fed == "pixels":
        seen, most = [_picture(image, what) for image in images], MOST
    else:
        seen, most = [one for image in images for one in _features(image, what, task, suite)], suite.visual.images
    if not 1 <= len(seen) <= most:
        raise UserError(f"{what} has {len(seen)} images (possible: 1 to {most})")
    keys = tuple(f"{number}/{i}" for i in range(len(seen)))
    return Question(Example(str(number), prompted(task, text), keys), seen)


def _picture(image: Any, what: str) -> np.ndarray:
    """A picture as (height, width, 3) uint8, as packed ones are."""
    if isinstance(image, Image.Image):
        return np.asarray(in_rgb(ImageOps.exif_transpose(image)))
    if isinstance(image, str | Path):
        try:
            if odd := impostor_at(Path(image)):
                raise UserError(odd)
            return np.asarray(opened(image))
        except UserError as error:
            raise UserError(f'{what}: picture "{shortened(str(image))}" {error}') from None
    if isinstance(image, np.ndarray):
        if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size:
            return image
        kind = f"an array {image.shape} of {image.dtype}"
    else:
        kind = shortened(text_of(image))
    raise UserError(
        f"{what}: expected the path of a picture, a PIL image or an array (height, width, 3) of uint8, found {kind}"
    )


def prompted(task: Task, text: str) -> str:
    """The text as the task's readers have it: the prompt stands before it, of clips behind it."""
    if isinstance(task, ClipTask):
        return text if text.endswith(task.prompt) else " ".join(filter(None, (text, task.prompt)))
    return text if text.startswith(task.prompt) else task.prompt + text


def _features(image: Any, what: str, task: Task, suite: Suite) -> list[np.ndarray]:
    """One image's features, or those of several that are one array, each (tokens, width) in half precision."""
    shape = suite.visual.tokens, suite.visual.width
    possible = f"an array of features {shape}" + (", or the path of a picture" if suite.extractor else "")
    if isinstance(image, str | Path):
        if suite.extractor is None:
            raise UserError(
                f"{what}: suite {suite.name} makes no features of pictures, found {shortened(str(image))!r}; give "
                f"{possible} (`pet-bench data features` writes those of CLIP)"
            )
        image = _extracted(suite.extractor, Path(image), what)
    elif isinstance(image, torch.Tensor):
        image = image.detach().cpu().float().numpy()
    if not isinstance(image, np.ndarray) or image.dtype.kind != "f":
        raise UserError(f"{what}: expected {possible}, found {shortened(text_of(image))}")
    several = list(image) if image.ndim == 3 else [image]
    if isinstance(task, ClipTask) and all(one.ndim == 2 and len(one) for one in several):
        several = [resample(one, shape[0]) for one in several]
    if wrong := [one.shape for one in several if one.shape != shape]:
        raise UserError(
            f"{what}: features have shape {wrong[0]}, expected {shape}, or (images, {shape[0]}, {shape[1]})"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        half = [one.astype(HALF) for one in several]
    if not all(np.isfinite(one).all() for one in half):
        raise UserError(f"{what}: features hold NaN, infinity or a value beyond half precision")
    return half


def _extracted(extractor: Extractor, path: Path, what: str) -> np.ndarray:
    try:
        return extractor(path)
    except OSError as error:
        raise UserError(f'{what}: picture "{path}" cannot be read: {error.strerror or error}') from error
