"""The official accuracy of TextVQA (Singh et al. 2019, arXiv:1904.08920), as its evaluation server takes it.

The rule is that of `TextVQAAccuracyEvaluator` in facebookresearch/mmf (first in pythia, commit c46b3b3), which LLaVA
and others evaluate with: predictions and annotators' answers are normalised alike, and always, which neither version of
VQA's accuracy does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar

from pet_bench.metrics.scores import PERCENT, Bounds, Scorable, Scores, mean, paired
from pet_bench.metrics.vqa_accuracy import normalise, shared


@lru_cache(maxsize=1 << 16)
def processed(text: str) -> str:
    """Lower case; commas and question marks go and `'s` becomes a word; then VQA's normalisation."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return normalise(text.strip())


class TextVQAAccuracy:
    """Mean over the ten annotators of min(1, others of them who gave the predicted answer / 3).

    An example's references: `{"answers": [the annotators' answers]}`.
    """

    plugin_kind = "metric"
    name = "textvqa-accuracy"
    bounds: ClassVar[Bounds] = PERCENT

    def __call__(self, predictions: dict[str, str], examples: Sequence[Scorable]) -> Scores:
        per_example = {
            example.id: 100.0 * shared(processed(prediction), [processed(a) for a in example.references["answers"]])
            for prediction, example in paired(self.name, predictions, examples)
        }
        return Scores({"accuracy": mean(list(per_example.values()))}, per_example)
