"""Accuracy and consistency of true/false statements about images (Suhr et al. 2019, arXiv:1811.00491)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import ClassVar

from pet_bench.metrics.scores import PERCENT, Bounds, Scorable, Scores, mean, paired


def sentence_of(identifier: str) -> str:
    """The key that all image pairs of one NLVR2 sentence share: the identifier without its third field."""
    split, group, _, sentence = identifier.split("-")
    return f"{split}-{group}--{sentence}"


class NLVRAccuracy:
    """accuracy: share of right predictions. consistency: share of sentences right on all their images.

    An example's references: `{"label": "true" | "false", "group": key of its sentence}`.
    """

    plugin_kind = "metric"
    name = "nlvr-accuracy"
    bounds: ClassVar[Bounds] = PERCENT

    def __call__(self, predictions: dict[str, str], examples: Sequence[Scorable]) -> Scores:
        per_example, groups = {}, defaultdict(list)
        for prediction, example in paired(self.name, predictions, examples):
            right = 100.0 * (prediction == example.references["label"])
            per_example[example.id] = right
            groups[example.references["group"]].append(right)
        values = {
            "accuracy": mean(list(per_example.values())),
            "consistency": mean([min(group) for group in groups.values()]),
        }
        return Scores(values, per_example)
