"""ROUGE-L of captions (Lin 2004), as the COCO caption evaluation computes it."""

from __future__ import annotations

from collections.abc import Sequence

from pet_bench.metrics.captions import CaptionMetric
from pet_bench.metrics.scores import Scorable, Scores, mean

BETA = 1.2


def common_subsequence(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(right) + 1)
    for word in left:
        diagonal = 0
        for i, other in enumerate(right, start=1):
            diagonal, row[i] = row[i], diagonal + 1 if word == other else max(row[i], row[i - 1])
    return row[-1]


def rouge_l(prediction: str, references: Sequence[str]) -> float:
    """F = (1 + β²) P R / (R + β² P), 0 to 1, of tokenised text, β = 1.2.

    P and R are the best precision and the best recall over the references, of one reference or of two.
    """
    words = prediction.split(" ")  # an empty caption is one empty word, officially
    precision = recall = 0.0
    for reference in references:
        other = reference.split(" ")
        common = common_subsequence(words, other)
        precision, recall = max(precision, common / len(words)), max(recall, common / len(other))
    if not precision or not recall:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


class ROUGEL(CaptionMetric):
    """Mean ROUGE-L over the items."""

    name = "rouge-l"

    def __call__(self, predictions: dict[str, str], examples: Sequence[Scorable]) -> Scores:
        items = self.tokenised(predictions, examples)
        per_example = {key: 100.0 * rouge_l(text, captions) for key, text, captions in items}
        return Scores({"ROUGE-L": mean(list(per_example.values()))}, per_example)
