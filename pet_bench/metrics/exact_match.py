"""Exact match against soft labels, as GQA is scored in the published code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pet_bench.metrics.scores import PERCENT, Bounds, Scorable, Scores, mean, paired


class ExactMatch:
    """Mean of `label.get(prediction, 0)`: the strings must be equal, letter case included.

    An example's references: `{"label": {answer: score}}`.
    """

    plugin_kind = "metric"
    name = "exact-match"
    bounds: ClassVar[Bounds] = PERCENT

    def __call__(self, predictions: dict[str, str], examples: Sequence[Scorable]) -> Scores:
        per_example = {
            example.id: 100.0 * example.references["label"].get(prediction, 0.0)
            for prediction, example in paired(self.name, predictions, examples)
        }
        return Scores({"accuracy": mean(list(per_example.values()))}, per_example)
