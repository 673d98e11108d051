"""ROUGE-L of captions (Lin 2004), as the COCO caption evaluation computes it."""

from __future__ import annotations

from collections.abc import Sequence

from pet_bench.metrics.cider import with_captions
from pet_bench.metrics.ptb import tokenize
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


class ROUGEL:
    """Mean ROUGE-L, on text tokenised by `pet_bench.metrics.ptb`. An example's references: `{"captions": [str]}`."""

    plugin_kind = "metric"
    name = "rouge-l"

    def __call__(self, predictions: dict[str, str], examples: Sequence[Scorable]) -> Scores:
        per_example = {
            example.id: 100.0 * rouge_l(tokenize(prediction), captions)
            for prediction, example, captions in with_captions(self.name, predictions, examples)
        }
        return Scores({"ROUGE-L": mean(list(per_example.values()))}, per_example)
