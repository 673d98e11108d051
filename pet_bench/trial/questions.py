"""People's own questions: a text and an image, as a picture or as features, to the example that a model reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from pet_bench.data.clips import ClipTask, resample
from pet_bench.data.store import HALF, FeatureStore
from pet_bench.data.suite import Suite
from pet_bench.data.task import Example, Task
from pet_bench.errors import UserError, shortened, text_of, unknown

KEYS = ("text", "image", "images")

Extractor = Callable[[Path], np.ndarray]


class Question(NamedTuple):
    """An example with its features (images, tokens, width)."""

    example: Example
    features: np.ndarray


class Given(FeatureStore):
    """The features of questions, in half precision as packed ones are."""

    def __init__(self, questions: Iterable[Question]):
        pairs = [pair for example, features in questions for pair in zip(example.images, features, strict=True)]
        self.array = np.stack([feature for _, feature in pairs])
        self.index = {key: row for row, (key, _) in enumerate(pairs)}
        self.used, self.resident = np.arange(len(pairs)), None


def question(given: Any, number: int, task: Task, suite: Suite) -> Question:
    """`{"text": "what color is the ball?", "image": …}` as the example of that number.

    text: without the task's prompt, which is added where it is not there; may be left out where it is all of the text.
    image: features (N, f) or, of several images, (I, N, f), as NumPy array or torch tensor; where the suite makes
    features of pictures, also the path of one. images: a list of these, one an image. A clip may have any number of
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
    features = [feature for image in images for feature in _features(image, what, task, suite)]
    if not 1 <= len(features) <= suite.visual.images:
        raise UserError(f"{what} has {len(features)} images (possible: 1 to {suite.visual.images})")
    keys = tuple(f"{number}/{i}" for i in range(len(features)))
    return Question(Example(str(number), prompted(task, text), keys), np.stack(features))


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
