"""METEOR 1.5 of captions (Denkowski and Lavie, WMT 2014), by its authors' Java program."""

from __future__ import annotations

from collections.abc import Sequence

from pet_bench.metrics import java
from pet_bench.metrics.captions import CaptionMetric
from pet_bench.metrics.scores import Scorable, Scores


class METEOR(CaptionMetric):
    """METEOR of a whole set, which is not the mean over its items. Needs Java and `pycocoevalcap`."""

    name = "meteor"

    def check(self) -> None:
        java.check(self.name)

    def __call__(self, predictions: dict[str, str], examples: Sequence[Scorable]) -> Scores:
        self.check()
        keys, texts, references = zip(*self.tokenised(predictions, examples), strict=True)
        total, each = java.meteor(texts, references)
        return Scores({"METEOR": 100.0 * total}, {key: 100.0 * score for key, score in zip(keys, each, strict=True)})
