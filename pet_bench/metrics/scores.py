"""What every metric takes and gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from pet_bench.errors import UserError


class Scorable(Protocol):
    """What a metric reads of an example: its id and the plain data that its task left for the scorer."""

    id: str
    references: dict[str, Any]


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

    def __call__(self, predictions: dict[str, str], examples: Sequence[Scorable]) -> Scores: ...


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
