"""Batches of tensors: one task's, and those of several tasks trained jointly."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import ceil
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from pet_bench.data.task import Example, Task
from pet_bench.packed import Packed, Rows
from pet_bench.spec import Control

Spare = dict[str, tuple[int, int]]  # text → its part that is cut first


class Reader(Protocol):
    """How a family of backbones reads and writes, see `pet_bench.backbone.reader`."""

    pad: int

    def tokens(self, texts: Sequence[str], limit: int | None) -> list[list[int]]: ...

    def targets(self, texts: Sequence[str], limit: int | None) -> list[list[int]]: ...

    def shortened(self, text: str, limit: int, spare: tuple[int, int]) -> list[int]: ...

    def said(self, ids: list[int]) -> str: ...

    def inputs(self, text: torch.Tensor, seen: Any, said: Sequence[str]) -> dict[str, Rows]: ...


class Store(Protocol):
    """What holds the images of examples: `data.store.FeatureStore` or `data.images.ImageStore`."""

    def rows(self, examples: Sequence[Example]) -> np.ndarray: ...

    def gather(self, rows: np.ndarray, *, control: Control = "none") -> Any: ...

    def named(self, rows: np.ndarray, *, control: Control = "none") -> dict[str, Rows]: ...


@dataclass(frozen=True)
class Batch:
    """B examples of one task.

    tensors: what the model reads, by the names that it has for it, each with B rows, or as many as an example has of
    it. targets (B, T) int64, padded with -100; labels (n,) int64, the positions in the flat targets of what is none;
    scores (B,) float32, the score of each target. indices (B,) int64, the examples' positions in their list.
    """

    task: str
    ids: tuple[str, ...]
    tensors: dict[str, Rows]
    targets: torch.Tensor
    labels: torch.Tensor
    scores: torch.Tensor
    indices: torch.Tensor

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def inputs(self) -> dict[str, Any]:
        """What the model is asked about."""
        return {**self.tensors, "task": self.task}

    def to(self, device: torch.device | str) -> Batch:
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """In memory that an accelerator copies from by itself; what lies on one stays there."""
        return self._each(lambda tensor: tensor.pin_memory() if tensor.device.type == "cpu" else tensor)

    def split(self, parts: int) -> list[Batch]:
        """So many batches as equal in size as possible, or one an example where there are fewer; padding stays."""
        if parts == 1:
            return [self]
        rows = np.array_split(np.arange(len(self)), min(parts, len(self)))
        spans = [slice(part[0], part[-1] + 1) for part in rows]
        return [self._rows(at) for at in spans]

    def _rows(self, at: slice) -> Batch:
        return replace(
            self,
            ids=self.ids[at],
            tensors={
                name: rows.of(at) if isinstance(rows, Packed) else rows[at] for name, rows in self.tensors.items()
            },
            targets=self.targets[at],
            labels=labels_of(self.targets[at]),
            scores=self.scores[at],
            indices=self.indices[at],
        )

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """With every tensor changed."""
        return replace(
            self,
            tensors={
                n: rows.each(change) if isinstance(rows, Packed) else change(rows) for n, rows in self.tensors.items()
            },
            targets=change(self.targets),
            labels=change(self.labels),
            scores=change(self.scores),
            indices=change(self.indices),
        )


def labels_of(targets: torch.Tensor) -> torch.Tensor:
    """The positions (n,) in the flat targets of what is no padding. On the CPU: a device would be waited for."""
    return (targets.flatten() != -100).nonzero()[:, 0]


@dataclass(frozen=True)
class Shuffle:
    """How training examples are shuffled. The defaults are the published runs', whose order is the same for any seed.

    seed: 0 is the published order. bucket: batches among which texts of like length are brought together (1: none).
    """

    seed: int = 0
    bucket: int = 1

    def of(self, epoch: int) -> int:
        """The seed of an epoch's generators, 32 bits."""
        return int(np.random.SeedSequence((self.seed, epoch)).generate_state(1)[0]) if self.seed else epoch


class Ragged:
    """Token sequences of different length in one flat array."""

    def __init__(self, sequences: Sequence[Sequence[int]]):
        self.lengths = np.array([len(row) for row in sequences], np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.flat = np.array([token for row in sequences for token in row] or [0], np.int32)

    def padded(self, rows: np.ndarray, value: int) -> torch.Tensor:
        """(B, longest of these rows) int64, padded on the right."""
        lengths = self.lengths[rows]
        columns = np.arange(lengths.max(initial=0))
        tokens = self.flat.take(self.starts[rows][:, None] + columns, mode="clip")
        return torch.from_numpy(np.where(columns < lengths[:, None], tokens, value).astype(np.int64))


class TaskBatches:
    """One task's examples, tokenised once.

    Texts and targets are cut to the task's lengths, special tokens included: at an example's `spare` part first, then
    on the right. Letter case is kept.
    """

    def __init__(
        self, task: Task, examples: Sequence[Example], reader: Reader, store: Store, *, control: Control = "none"
    ):
        self.task, self.examples, self.store = task, examples, store
        self.control: Control = control
        self.reader = reader
        self.rows = store.rows(examples)
        spare = {e.text: e.spare for e in examples if any(e.spare)}
        tokenised = _tokenise(reader.tokens, [e.text for e in examples], task.max_text)
        self.texts, self.text_of = Ragged(_shortened(reader, tokenised, task.max_text, spare)), tokenised.which
        self.said = _as_cut(reader, tokenised, task.max_text)
        # An example's possible targets stand side by side, from `starts` to `ends`.
        targets = [e.targets or (("", 0.0),) for e in examples]
        flat = [pair for pairs in targets for pair in pairs]
        answers = _tokenise(reader.targets, [answer for answer, _ in flat], task.max_target)
        self.targets, self.target_of = Ragged(answers.ids), answers.which
        self.target_scores = np.array([score for _, score in flat], np.float32)
        self.ends = np.cumsum([len(pairs) for pairs in targets])
        self.starts = self.ends - np.diff(self.ends, prepend=0)
        self.single = all(len(pairs) == 1 for pairs in targets)

    def __len__(self) -> int:
        return len(self.examples)

    def count(self, batch_size: int) -> int:
        """Batches in an epoch at this nominal batch size; the last, partial one is kept."""
        return ceil(len(self) / self.task.batch_size(batch_size))

    def order(self, epoch: int, size: int, shuffle: Shuffle) -> np.ndarray:
        """The order of the examples in an epoch, of which every `size` are a batch.

        With buckets, `shuffle.bucket` batches at a time exchange their examples so that texts of like length come
        together; then the batches are shuffled anew, a partial one staying last.
        """
        generator = torch.Generator().manual_seed(shuffle.of(epoch))
        order = torch.randperm(len(self), generator=generator).numpy()
        if shuffle.bucket == 1:
            return order
        lengths, span = self.texts.lengths[self.text_of], shuffle.bucket * size
        buckets = [order[at : at + span] for at in range(0, len(order), span)]
        order = np.concatenate([bucket[np.argsort(-lengths[bucket], kind="stable")] for bucket in buckets])
        whole = len(order) // size * size
        batches = order[:whole].reshape(-1, size)[torch.randperm(whole // size, generator=generator).numpy()]
        return np.concatenate([batches.ravel(), order[whole:]])

    def sampled(self, epoch: int, seed: int) -> np.ndarray:
        """One target an example, (examples,), drawn in proportion to its scores.

        Example i uses draw i of the generator seeded by (seed, epoch), so that its target depends on nothing else.
        """
        starts = self.starts
        if self.single:
            return starts
        draws = np.random.default_rng((seed, epoch)).random(len(self))
        running = np.concatenate([[0.0], np.cumsum(self.target_scores, dtype=np.float64)])
        low, high = running[starts], running[self.ends]
        drawn = np.searchsorted(running, low + draws * (high - low), side="right") - 1
        return np.clip(drawn, starts, self.ends - 1)

    def train_batches(
        self, epoch: int, batch_size: int, seed: int, *, start: int = 0, shuffle: Shuffle | None = None
    ) -> Iterator[Batch]:
        """The batches of an epoch from the `start`-th on, at this nominal batch size."""
        size = self.task.batch_size(batch_size)
        order, targets = self.order(epoch, size, shuffle or Shuffle()), self.sampled(epoch, seed)
        for at in range(start * size, len(self), size):
            indices = order[at : at + size]
            yield self.batch(indices, targets[indices])

    def eval_batches(self, batch_size: int, *, first: int = 0, every: int = 1) -> Iterator[Batch]:
        """All examples once, `batch_size` at a time, those of like length together, each with its best target.

        first, every: of these batches, the ones to be made.
        """
        spans = zip(self.starts, self.ends, strict=True)
        best = np.array([start + self.target_scores[start:end].argmax() for start, end in spans], np.int64)
        order = np.argsort(-self.texts.lengths[self.text_of], kind="stable")
        for at in range(first * batch_size, len(self), every * batch_size):
            indices = order[at : at + batch_size]
            yield self.batch(indices, best[indices])

    def batch(self, indices: np.ndarray, targets: np.ndarray) -> Batch:
        rows, padded = self.rows[indices], self.targets.padded(self.target_of[targets], -100)
        inputs = self.reader.inputs(
            self.texts.padded(self.text_of[indices], self.reader.pad),
            self.store.gather(rows, control=self.control),
            [self.said[row] for row in self.text_of[indices]],
        )
        return Batch(
            task=self.task.name,
            ids=tuple(self.examples[i].id for i in indices),
            tensors=inputs | self.store.named(rows, control=self.control),
            targets=padded,
            labels=labels_of(padded),
            scores=torch.from_numpy(self.target_scores[targets]),
            indices=torch.from_numpy(indices.astype(np.int64)),
        )


class Tokenised(NamedTuple):
    """Distinct texts and the tokens of each, and which of them each text is."""

    distinct: dict[str, int]
    ids: list[list[int]]
    which: np.ndarray


def _tokenise(
    tokens: Callable[[Sequence[str], int | None], list[list[int]]],
    texts: Sequence[str],
    limit: int | None,
    chunk: int = 10_000,
) -> Tokenised:
    """In chunks, as encodings are large until dropped."""
    distinct = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    ids = [row for part in batched(distinct, chunk) for row in tokens(part, limit)]
    return Tokenised(distinct, ids, np.array([distinct[text] for text in texts], np.int64))


def _shortened(reader: Reader, texts: Tokenised, limit: int | None, spare: Spare) -> list[list[int]]:
    """The tokens of each text; those that are too long lack some of their spare part."""
    for text, span in spare.items():
        if limit is not None and len(texts.ids[texts.distinct[text]]) == limit:
            texts.ids[texts.distinct[text]] = reader.shortened(text, limit, span)
    return texts.ids


def _as_cut(reader: Reader, texts: Tokenised, limit: int | None) -> list[str]:
    """Each text as it is, or what is left of it where it may have been cut."""
    return [
        reader.said(ids) if len(ids) == limit else text for text, ids in zip(texts.distinct, texts.ids, strict=True)
    ]


def batched(items: Iterable[str], size: int) -> Iterator[list[str]]:
    items = iter(items)
    while part := list(islice(items, size)):
        yield part


def joint_schedule(batch_counts: dict[str, int], seed: int) -> list[str]:
    """The task of each step of an epoch: every task as often as it has batches.

    The list, tasks in the order given, is shuffled by `random.Random(seed)` and consumed from its end, as in the
    published runs, where the seed is the number of the epoch; it is returned in the order of use.
    """
    schedule = [task for task, count in batch_counts.items() for _ in range(count)]
    random.Random(seed).shuffle(schedule)
    return schedule[::-1]


class MultiTask:
    """Joint training: one batch, of one task, a step. Each task goes through all of its examples once an epoch.

    in_turn: so many epochs are one task's after the other's, each task with all of its own in a row.
    """

    def __init__(
        self,
        tasks: Sequence[TaskBatches],
        *,
        batch_size: int,
        seed: int,
        shuffle: Shuffle | None = None,
        in_turn: int | None = None,
    ):
        self.in_turn = in_turn
        self.tasks = {batches.task.name: batches for batches in tasks}
        self.batch_size, self.seed, self.shuffle = batch_size, seed, shuffle or Shuffle()
        self.counts = {name: batches.count(batch_size) for name, batches in self.tasks.items()}

    def __len__(self) -> int:
        """Steps in an epoch."""
        return sum(self.counts.values())

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from the `start`-th step on, the same ones as without a break."""
        before, steps = self._steps(epoch, start)
        done, streams = Counter(before), {}
        for of in steps:
            if of not in streams:
                name, own = of
                streams[of] = self.tasks[name].train_batches(
                    own, self.batch_size, self.seed, start=done[of], shuffle=self.shuffle
                )
            yield next(streams[of])

    def _steps(self, epoch: int, start: int) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
        """The task of each step and which of its own epochs that is: before the `start`-th step, and from it on."""
        if self.in_turn is None:
            steps = [(name, epoch) for name in joint_schedule(self.counts, self.shuffle.of(epoch))]
            return steps[:start], steps[start:]
        steps = [(name, own) for name, n in self.counts.items() for own in range(self.in_turn) for _ in range(n)]
        first, last = epoch * len(self) + start, (epoch + 1) * len(self)
        return steps[:first], steps[first:last]
