"""BLEU-1 to BLEU-4 of captions (Papineni et al., ACL 2002), as the COCO caption evaluation computes them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pet_bench.metrics.captions import CaptionMetric
from pet_bench.metrics.cider import ORDERS, Ngrams, ngrams
from pet_bench.metrics.scores import Scorable, Scores

TINY, SMALL = 1e-15, 1e-9  # the official scorer's, so that nothing is divided by 0


@dataclass(frozen=True)
class Counts:
    """Of one caption or of many: matched and possible n-grams for each n, length, length of the nearest reference."""

    matched: tuple[int, ...]
    possible: tuple[int, ...]
    length: int
    reference: int

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            tuple(a + b for a, b in zip(self.matched, other.matched, strict=True)),
            tuple(a + b for a, b in zip(self.possible, other.possible, strict=True)),
            self.length + other.length,
            self.reference + other.reference,
        )

    def bleu(self) -> list[float]:
        """BLEU-1 … BLEU-4, 0 to 1: geometric mean of the precisions, times exp(1 - r/c) where the text is too short."""
        scores, product = [], 1.0
        for n, matched, possible in zip(ORDERS, self.matched, self.possible, strict=True):
            product *= (matched + TINY) / (possible + SMALL)
            scores.append(product ** (1 / n))
        ratio = (self.length + TINY) / (self.reference + SMALL)
        return [score * math.exp(1 - 1 / ratio) for score in scores] if ratio < 1 else scores


def counts(prediction: str, references: Sequence[str]) -> Counts:
    """Of a tokenised prediction. A match counts as often as in the reference that has it most often."""
    own, length = ngrams(prediction), len(prediction.split())
    most: Ngrams = Counter()
    for reference in references:
        most |= ngrams(reference)
    matched: Counter[int] = Counter()
    for gram, count in (own & most).items():
        matched[len(gram)] += count
    lengths = [len(reference.split()) for reference in references]
    return Counts(
        tuple(matched[n] for n in ORDERS),
        tuple(max(0, length - n + 1) for n in ORDERS),
        length,
        min(lengths, key=lambda other: (abs(other - length), other)),
    )


class BLEU(CaptionMetric):
    """BLEU-4 of a whole set, which is not the mean over its items; also BLEU-1 to BLEU-3."""

    name = "bleu"
    corpus = ("BLEU-4", "BLEU-1", "BLEU-2", "BLEU-3")

    def __call__(self, predictions: dict[str, str], examples: Sequence[Scorable]) -> Scores:
        counted = {key: counts(text, captions) for key, text, captions in self.tokenised(predictions, examples)}
        total = sum(list(counted.values())[1:], start=next(iter(counted.values()))).bleu()
        values = {f"BLEU-{n}": 100.0 * total[n - 1] for n in (4, 1, 2, 3)}
        return Scores(values, {key: 100.0 * item.bleu()[3] for key, item in counted.items()})
