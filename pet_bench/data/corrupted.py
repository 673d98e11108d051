"""What a task's examples are under a corruption (`data.corrupt`): other texts, or images that are seen otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, cast

import numpy as np
import torch
from numpy.random import Generator

from pet_bench.data.batches import Store
from pet_bench.data.corrupt import SEEN, TEXT, possible
from pet_bench.data.task import Example, Task
from pet_bench.errors import Faults, UserError, unknown
from pet_bench.packed import Rows
from pet_bench.spec import Control, Fed

STRENGTHS = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Corruption:
    """One by name, at a strength: 1 to 5, or 0, which leaves everything as it is."""

    name: str
    strength: int
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.name}:{self.strength}"

    @property
    def of_text(self) -> bool:
        return self.name in TEXT

    def rng(self, *key: object) -> Generator:
        """What is drawn for an example, or for one of its images."""
        text = "\0".join(map(str, (self.seed, self.name, *key)))
        return np.random.default_rng(int.from_bytes(sha256(text.encode()).digest()[:16]))

    def changes(self, task: Task, examples: Iterable[Example], control: Control = "none") -> bool:
        """Whether there is anything to corrupt: captions are asked for by a prompt alone, which stays, and a trial that
        sees no images does not see them corrupted."""
        if self.of_text:
            return any(text.strip() for example in examples for text in _parts(task, example)[1::2])
        return control != "text-only"

    def examples(self, task: Task, examples: Sequence[Example]) -> Sequence[Example]:
        """The examples with corrupted texts; prompts, answers and all else stay."""
        if not (self.of_text and self.strength):
            return examples
        return [self._example(task, example) for example in examples]

    def _example(self, task: Task, example: Example) -> Example:
        change, levels = TEXT[self.name]
        rng, level = self.rng(example.id), levels[self.strength - 1]
        parts = _parts(task, example)
        parts[1::2] = [change(text, level, rng) if text.strip() else text for text in parts[1::2]]
        if not any(example.spare):
            return replace(example, text="".join(parts))
        before = len("".join(parts[:3]))
        return replace(example, text="".join(parts), spare=(before, before + len(parts[3])))

    def store(self, store: Store, task: Task, fed: Fed) -> Store:
        """What holds a task's images, as they are seen corrupted."""
        return store if self.of_text or not self.strength else CorruptedStore(store, self, task, fed)


def _parts(task: Task, example: Example) -> list[str]:
    """A text cut at its prompt and at what is to be shortened first: odd parts are corrupted, even ones stay.

    With a spare part it is the fourth of seven.
    """
    text, (first, last) = example.text, example.spare
    start, end = 0, len(text)
    if task.prompt and text.startswith(task.prompt):
        start = len(task.prompt)
    elif task.prompt and text.endswith(task.prompt):
        end -= len(task.prompt)
    if not any(example.spare):
        return [text[:start], text[start:end], text[end:]]
    first, last = min(max(first, start), end), min(max(last, start), end)
    return [text[:start], text[start:first], "", text[first:last], "", text[last:end], text[end:]]


class CorruptedStore:
    """The images of examples, each corrupted for its example: rows are those of (image, example, number in it)."""

    def __init__(self, store: Store, corruption: Corruption, task: Task, fed: Fed):
        self.whole, self.corruption = store, corruption
        self.fed: Fed = fed
        self.square, self.keeps_empty = task.pictures, task.masks_empty
        self.of: list[tuple[int, str, int]] = []

    def rows(self, examples: Sequence[Example]) -> np.ndarray:
        stored, first = self.whole.rows(examples), len(self.of)
        self.of += [(int(row), e.id, i) for e, rows in zip(examples, stored, strict=True) for i, row in enumerate(rows)]
        return np.arange(first, len(self.of), dtype=np.int64).reshape(stored.shape)

    def gather(self, rows: np.ndarray, *, control: Control = "none") -> Any:
        stored = np.array([self.of[row][0] for row in rows.flat], np.int64).reshape(rows.shape)
        seen = self.whole.gather(stored, control=control)
        if control == "text-only":
            return seen
        change, levels = SEEN[self.fed][self.corruption.name]
        level = levels[self.corruption.strength - 1]
        draws = [self.corruption.rng(*self.of[row][1:]) for row in rows.flat]
        if self.fed == "pixels":
            each = iter(draws)
            return [[change(np.asarray(picture), level, next(each)) for picture in pictures] for pictures in seen]
        features = cast(torch.Tensor, seen)
        flat = features.cpu().numpy().reshape(-1, *features.shape[2:])
        changed = [self._features(change, x, level, rng) for x, rng in zip(flat, draws, strict=True)]
        return torch.from_numpy(np.stack(changed).astype(np.float32)).view_as(features).to(features.device)

    def _features(self, change: Callable[..., np.ndarray], x: np.ndarray, level: float, rng: Generator) -> np.ndarray:
        """Of tokens that are not there, since they are all 0 and hidden for that, none becomes anything else."""
        there = x.any(axis=1) if self.keeps_empty else np.ones(len(x), bool)
        if not there.any():
            return x
        changed = x.copy()
        changed[there] = change(x[there], level, rng, square=self.square and bool(there.all()))
        return changed

    def named(self, rows: np.ndarray, *, control: Control = "none") -> dict[str, Rows]:
        """Nothing: what is kept of pictures is not of corrupted ones."""
        return {}


def parse(texts: Sequence[str], fed: Fed, seed: int = 0) -> list[Corruption]:
    """`noise:3`; `noise` at all five strengths; `all`, `text` or `images`, of either, with or without a strength.

    Raises UserError, with all faults together, for names that there are not, for what the backbone is fed with, and for
    other strengths than 0 to 5.
    """
    groups = {"all": possible(fed), "text": [*TEXT], "images": [*SEEN[fed]]}
    faults, parsed = Faults(), dict[Corruption, None]()
    for text in texts:
        with faults:
            name, colon, strength = text.partition(":")
            if name not in groups and name not in possible(fed):
                raise unknown(f"corruption of text and {fed}", name, [*groups, *possible(fed)])
            if colon and strength not in map(str, (0, *STRENGTHS)):
                raise UserError(f'corruption "{text}": the strength is {strength!r} (possible: 1 to 5, or 0 for none)')
            for one in groups.get(name, [name]):
                parsed |= dict.fromkeys(
                    Corruption(one, level, seed) for level in ([int(strength)] if colon else STRENGTHS)
                )
    faults.check()
    return [*parsed]
