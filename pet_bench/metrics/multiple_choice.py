"""Accuracy of multiple-choice questions, as the official scorers of TVQA and How2QA take it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pet_bench.metrics.scores import PERCENT, Bounds, Scorable, Scores, mean, paired


class MultipleChoiceAccuracy:
    """Share of predictions that equal the right choice. An example's references: `{"answer": the right choice}`."""

    plugin_kind = "metric"
    name = "multiple-choice-accuracy"
    bounds: ClassVar[Bounds] = PERCENT

    def __call__(self, predictions: dict[str, str], examples: Sequence[Scorable]) -> Scores:
        per_example = {
            example.id: 100.0 * (prediction == example.references["answer"])
            for prediction, example in paired(self.name, predictions, examples)
        }
        return Scores({"accuracy": mean(list(per_example.values()))}, per_example)
