"""What every metric takes and gives."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from pydantic import FiniteFloat

from pet_bench.errors import PluginError, UserError
from pet_bench.registry import METRICS, ask, attribute_faults, hook_faults, title

Bounds = tuple[float, float]
PERCENT: Bounds = (0.0, 100.0)
BOUNDS: dict[str, Bounds] = {  # by the beginning of a score's name
    **dict.fromkeys(("accuracy", "consistency", "label", "BLEU", "ROUGE", "METEOR"), PERCENT),
    "CIDEr": (0.0, 1000.0),
}
ANY: Bounds = (-math.inf, math.inf)
VALUES = dict[str, FiniteFloat]
LENGTHS = ("1-5", "6-10", "11-15", "16-20", "21+")


class Scorable(Protocol):
    """What scoring reads of an example: its id and the plain data that its task left for the metric.

    groups: what it counts towards in breakdowns, `{"question type": "how many", "length": "6-10"}`.
    """

    @property
    def id(self) -> str: ...

    @property
    def references(self) -> dict[str, Any]: ...

    @property
    def groups(self) -> dict[str, str]: ...


@dataclass(frozen=True)
class Item:
    """A Scorable and nothing more."""

    id: str
    references: dict[str, Any]
    groups: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Scores:
    """Scores × 100, unrounded. The first of `values` is the primary one: the mean of `per_example`, but for BLEU."""

    values: dict[str, float]
    per_example: dict[str, float]

    @property
    def primary(self) -> float:
        return next(iter(self.values.values()))


class Metric(Protocol):
    plugin_kind: ClassVar[str] = "metric"
    name: ClassVar[str]
    bounds: ClassVar[Bounds]  # the least and the most that its scores can be
    # a metric names in `corpus` those of its scores that are of the whole set and no mean of the examples', as BLEU's;
    # a metric that needs more than Python has `check(self) -> None`, which raises UserError where that is missing, and
    # one that some examples make meaningless `check_examples(self, examples) -> None`, which does where they do

    def __call__(self, predictions: dict[str, str], examples: Sequence[Scorable]) -> Scores: ...


def bounds(score: str) -> Bounds:
    """The least and the most that a score of that name, `accuracy-2016` say, can be; of unknown ones any number."""
    return BOUNDS.get(score.split("-")[0], ANY)


def possible(score: str, value: float) -> bool:
    """Whether a score of that name can be `value`, but for rounding (a perfect CIDEr may be 1000.0000000000001)."""
    low, high = bounds(score)
    return math.isfinite(value) and low - 1e-6 <= value <= high + 1e-6


def averages(score: str) -> bool:
    """Whether a primary score is the mean of its examples' (`Scores.per_example`): what no metric has in `corpus`."""
    return not any(score in getattr(metric, "corpus", ()) for metric in METRICS)


def faults(plugin: Any) -> Iterator[str]:
    """What keeps a class from being a metric, a line each; there is no base to extend."""
    yield from hook_faults(plugin)


def scored(metric: Metric, predictions: dict[str, str], examples: Sequence[Scorable]) -> Scores:
    """What a metric gives; raises PluginError where it fails and where that are no finite scores of the examples."""
    scores = ask(metric, "__call__", predictions, examples, returns=Scores)
    said = [
        f"{title(metric)}: {fault}" for fault in attribute_faults(scores, {"values": VALUES, "per_example": VALUES})
    ]
    if not said and not scores.values:
        said.append(f"{title(metric)}: values is empty")
    if not said and (others := scores.per_example.keys() ^ {example.id for example in examples}):
        said.append(f"{title(metric)}: per_example is not of the examples: {min(others)!r} is in one of them only")
    if said:
        raise PluginError(*said)
    return scores


def paired(metric: str, predictions: dict[str, str], examples: Sequence[Scorable]) -> list[tuple[str, Scorable]]:
    """(prediction, example) for every example.

    Raises UserError where there is nothing to score, an example has no prediction or a prediction no example.
    """
    if not examples:
        raise UserError(f"{metric}: no examples to score")
    known = {example.id for example in examples}
    faults = [
        f"{metric}: {len(ids)} {what}, the first is {min(ids)!r}"
        for what, ids in (
            ("examples have no prediction", known - predictions.keys()),
            ("predictions belong to no example", predictions.keys() - known),
        )
        if ids
    ]
    if faults:
        raise UserError.many(faults)
    return [(predictions[example.id], example) for example in examples]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def length_group(*texts: str) -> str:
    """The mean number of words of some texts in steps of five: "1-5", "6-10", …, "21+"."""
    words = sum(len(text.split()) for text in texts) / len(texts)
    return LENGTHS[min(max(0, math.ceil(words / 5) - 1), 4)]


def breakdowns(scores: Scores, examples: Sequence[Scorable]) -> dict[str, dict[str, tuple[float, int]]]:
    """group → value → (mean score of the examples with that value, their number), values in natural order."""
    by_group: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for example in examples:
        for group, value in example.groups.items():
            by_group[group][value].append(scores.per_example[example.id])
    return {
        group: {value: (mean(parts[value]), len(parts[value])) for value in sorted(parts, key=_natural)}
        for group, parts in by_group.items()
    }


def _natural(value: str) -> tuple[int, str]:
    number = re.match(r"\d+", value)
    return int(number[0]) if number else 0, value
