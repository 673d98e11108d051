"""Corruptions of text and images at five strengths: controls at test time, which no trial is ever trained on.

Names, forms and strengths follow Chen et al., "Benchmarking Robustness of Adaptation Methods on Pre-trained
Vision-Language Models" (NeurIPS 2023, arXiv:2306.02080), and through them ImageNet-C (Hendrycks and Dietterich, ICLR
2019, arXiv:1903.12261). Deliberate differences: exactly the stated share of letters, words or tokens changes (rounded
up, so that every strength does something) where they throw a coin for each; a stronger corruption changes what a weaker
one does and more, for both draw the same numbers; stored features, which they do not corrupt, are corrupted too.

What is drawn depends on seed, example and name alone: it is the same for every method, batch size and machine (but for
`jpeg` and `blur`, which are Pillow's). Answers and references stay as they are. Strength 0 is nothing at all.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageFilter

from pet_bench.spec import Fed

PERCENTS = (10, 20, 30, 40, 50)  # of text: those of arXiv:2306.02080
KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def chosen(count: int, percent: float, rng: Generator, least: int = 1) -> np.ndarray:
    """Which of `count` things so many percent are, rounded up; those of fewer percent are among them."""
    return rng.permutation(count)[: max(least, math.ceil(percent * count / 100))]


# text -----------------------------------------------------------------------------------------------------------------


def keyboard(text: str, percent: float, rng: Generator) -> str:
    """So many percent of the letters a-z become a neighbour on a QWERTY keyboard (`keyboard` in 2306.02080)."""
    letters, said = list(text), rng.random(len(text))
    places = [i for i, letter in enumerate(text) if letter.lower() in NEIGHBOURS]
    for at in chosen(len(places), percent, rng):
        near = NEIGHBOURS[text[i := places[at]].lower()]
        other = near[int(said[i] * len(near))]
        letters[i] = other.upper() if text[i].isupper() else other
    return "".join(letters)


def char_swap(text: str, percent: float, rng: Generator) -> str:
    """So many percent of the letters that another one follows in their word trade places with it (a typing error;
    `random_char_swap` in 2306.02080 trades with any letter of the text)."""
    letters = list(text)
    pairs = [i for i in range(len(text) - 1) if text[i : i + 2].isalnum() and text[i] != text[i + 1]]
    for at in sorted(chosen(len(pairs), percent, rng)):
        i = pairs[at]
        letters[i], letters[i + 1] = letters[i + 1], letters[i]
    return "".join(letters)


def word_drop(text: str, percent: float, rng: Generator) -> str:
    """So many percent of the words are left out, never all (`random_word_delete` in 2306.02080)."""
    words, spaces = _words(text)
    gone = {*chosen(len(words), percent, rng)[: len(words) - 1].tolist()}
    kept = [i for i in range(len(words)) if i not in gone]
    return _joined([words[i] for i in kept], [spaces[0], *(spaces[i] for i in kept[1:]), spaces[-1]])


def word_swap(text: str, percent: float, rng: Generator) -> str:
    """So many percent of the words, two at least, change places in a ring (`random_word_swap` in 2306.02080 trades so
    many pairs)."""
    words, spaces = _words(text)
    ring = chosen(len(words), percent, rng, least=2).tolist()
    moved = dict(zip(ring, [*ring[1:], *ring[:1]], strict=True))
    return _joined([words[moved.get(i, i)] for i in range(len(words))], spaces)


def word_mask(text: str, percent: float, rng: Generator) -> str:
    """So many percent of the words become `[UNK]`, in letters, which every tokenizer reads in its own way (`drop_*` in
    2306.02080)."""
    words, spaces = _words(text)
    for i in chosen(len(words), percent, rng):
        words[i] = "[UNK]"
    return _joined(words, spaces)


def _words(text: str) -> tuple[list[str], list[str]]:
    """The words, and the space before each and behind the last."""
    parts = re.split(r"(\S+)", text)
    return parts[1::2], parts[::2]


def _joined(words: list[str], spaces: list[str]) -> str:
    return "".join(space + word for space, word in zip(spaces, [*words, ""], strict=True))


def _neighbours() -> dict[str, str]:
    """Letter → those beside it in its row, and those above and below."""
    near = {}
    for row, keys in enumerate(KEYS):
        for i, key in enumerate(keys):
            around = keys[max(0, i - 1) : i] + keys[i + 1 : i + 2]
            above = KEYS[row - 1][i : i + 2] if row else ""
            below = KEYS[row + 1][max(0, i - 1) : i + 1] if row + 1 < len(KEYS) else ""
            near[key] = around + above + below
    return near


NEIGHBOURS = _neighbours()


# stored features: x (N, f) float32, square: whether N stands for a grid -----------------------------------------------


def feature_noise(x: np.ndarray, c: float, rng: Generator, *, square: bool) -> np.ndarray:
    """x + c σ ε, ε ~ N(0, 1), σ the standard deviation of all numbers of this image (ours)."""
    return x + c * x.std() * rng.standard_normal(x.shape, np.float32)


def feature_contrast(x: np.ndarray, c: float, rng: Generator, *, square: bool) -> np.ndarray:
    """μ + c (x - μ), μ (f,) the mean token of this image: ImageNet-C's contrast, of features (ours)."""
    mean = x.mean(axis=0)
    return mean + c * (x - mean)


def token_drop(x: np.ndarray, percent: float, rng: Generator, *, square: bool) -> np.ndarray:
    """So many percent of the tokens are 0 (ours; patch drop in Naseer et al., NeurIPS 2021, arXiv:2105.10497)."""
    x = x.copy()
    x[chosen(len(x), percent, rng)] = 0
    return x


def token_shuffle(x: np.ndarray, percent: float, rng: Generator, *, square: bool) -> np.ndarray:
    """So many percent of the tokens, two at least, change places in a ring (ours; patch shuffle, ibid.)."""
    x, ring = x.copy(), chosen(len(x), percent, rng, least=2)
    x[ring] = x[np.roll(ring, 1)]
    return x


def feature_occlusion(x: np.ndarray, percent: float, rng: Generator, *, square: bool) -> np.ndarray:
    """A square of so many percent of the grid is 0, or, where tokens stand for time, a run (ours; occlusion of a
    region as in Zeiler and Fergus, ECCV 2014, arXiv:1311.2901)."""
    x, side, at = x.copy(), math.isqrt(len(x)), rng.random(2)
    if square and side * side == len(x):
        grid = x.reshape(side, side, -1)
        _square(grid, percent, at)
        return grid.reshape(x.shape)
    length = math.ceil(percent * len(x) / 100)
    start = int(at[0] * (len(x) - length + 1))
    x[start : start + length] = 0
    return x


def _square(x: np.ndarray, percent: float, at: np.ndarray, value: float = 0) -> None:
    """Fill a part of so many percent of x (H, W, …), of its proportions, at a place that `at` (2,) tells."""
    sides = [math.ceil(size * math.sqrt(percent / 100)) for size in x.shape[:2]]
    top, left = (int(u * (size - side + 1)) for u, size, side in zip(at, x.shape[:2], sides, strict=True))
    x[top : top + sides[0], left : left + sides[1]] = value


# pictures: x (H, W, 3) uint8 ------------------------------------------------------------------------------------------


def noise(x: np.ndarray, c: float, rng: Generator) -> np.ndarray:
    """clip(x + c ε), ε ~ N(0, 1), white being 1 (`gaussian_noise` in ImageNet-C)."""
    return _bytes(x / 255 + c * rng.standard_normal(x.shape, np.float32))


def contrast(x: np.ndarray, c: float, rng: Generator) -> np.ndarray:
    """clip(μ + c (x - μ)), μ (3,) the mean of this picture (`contrast` in ImageNet-C)."""
    mean = (x / 255).mean(axis=(0, 1))
    return _bytes(mean + c * (x / 255 - mean))


def blur(x: np.ndarray, sigma: float, rng: Generator) -> np.ndarray:
    """A Gaussian blur of so many pixels (`gaussian_blur` in ImageNet-C, there of pictures of 224)."""
    return np.asarray(Image.fromarray(x).filter(ImageFilter.GaussianBlur(sigma)))


def jpeg(x: np.ndarray, quality: float, rng: Generator) -> np.ndarray:
    """Written as JPEG of that quality and read again (`jpeg_compression` in ImageNet-C)."""
    Image.fromarray(x).save(file := io.BytesIO(), "JPEG", quality=int(quality))
    return np.asarray(Image.open(file).convert("RGB"))


def occlusion(x: np.ndarray, percent: float, rng: Generator) -> np.ndarray:
    """A grey part of so many percent of the picture, of its proportions (ours, as of features)."""
    x = x.copy()
    _square(x, percent, rng.random(2), 128)
    return x


def _bytes(x: np.ndarray) -> np.ndarray:
    return (np.clip(x, 0, 1) * 255).round().astype(np.uint8)


# by name --------------------------------------------------------------------------------------------------------------

Levels = tuple[float, ...]  # by strength
NOISE: Levels = (0.08, 0.12, 0.18, 0.26, 0.38)
CONTRAST: Levels = (0.4, 0.3, 0.2, 0.1, 0.05)
TEXT: dict[str, tuple[Callable[..., str], Levels]] = {
    "keyboard": (keyboard, PERCENTS),
    "char-swap": (char_swap, PERCENTS),
    "word-drop": (word_drop, PERCENTS),
    "word-swap": (word_swap, PERCENTS),
    "word-mask": (word_mask, PERCENTS),
}
SEEN: dict[Fed, dict[str, tuple[Callable[..., np.ndarray], Levels]]] = {
    "features": {
        "noise": (feature_noise, (0.25, 0.5, 0.75, 1.0, 1.5)),
        "contrast": (feature_contrast, CONTRAST),
        "occlusion": (feature_occlusion, PERCENTS),
        "token-drop": (token_drop, PERCENTS),
        "token-shuffle": (token_shuffle, (20, 40, 60, 80, 100)),
    },
    "pixels": {
        "noise": (noise, NOISE),
        "contrast": (contrast, CONTRAST),
        "blur": (blur, (1, 2, 3, 4, 6)),
        "jpeg": (jpeg, (25, 18, 15, 10, 7)),
        "occlusion": (occlusion, PERCENTS),
    },
}


def possible(fed: Fed) -> list[str]:
    """Names of the corruptions of what such a backbone reads, those of text first."""
    return [*TEXT, *SEEN[fed]]
