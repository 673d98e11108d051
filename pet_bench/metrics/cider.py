"""CIDEr-D, the consensus score of image captions (Vedantam et al. 2015, arXiv:1411.5726)."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import ClassVar

from pet_bench.errors import UserError
from pet_bench.metrics.captions import CaptionMetric
from pet_bench.metrics.ptb import tokenize
from pet_bench.metrics.scores import BOUNDS, Bounds, Scorable, Scores, mean

ORDERS = range(1, 5)
SIGMA = 6.0

Ngrams = Counter[tuple[str, ...]]


def ngrams(tokens: str) -> Ngrams:
    """Counts of all n-grams, n = 1..4, of a tokenised caption."""
    words = tokens.split()
    return Counter(tuple(words[i : i + n]) for n in ORDERS for i in range(len(words) - n + 1))


class _Weighted:
    """A caption as tf-idf weights, one dictionary and one norm per n."""

    def __init__(self, counts: Ngrams, frequency: Ngrams, items: int):
        self.weights: dict[int, dict[tuple[str, ...], float]] = {n: {} for n in ORDERS}
        for gram, count in counts.items():
            self.weights[len(gram)][gram] = count * (math.log(items) - math.log(max(1, frequency[gram])))
        self.norm = {n: math.sqrt(sum(w * w for w in self.weights[n].values())) for n in ORDERS}
        self.bigrams = sum(count for gram, count in counts.items() if len(gram) == 2)

    def similarity(self, reference: _Weighted) -> float:
        """Mean over n of the clipped cosine, times the penalty for a difference in length."""
        total = 0.0
        for n in ORDERS:
            other, norms = reference.weights[n], self.norm[n] * reference.norm[n]
            dot = sum(min(w, other[gram]) * other[gram] for gram, w in self.weights[n].items() if gram in other)
            total += dot / norms if norms else dot
        difference = self.bigrams - reference.bigrams
        return total / len(ORDERS) * math.exp(-difference * difference / (2 * SIGMA * SIGMA))


def cider_d(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Score per item, 0 to 10, of tokenised text: 10 · mean over references of the similarity.

    idf = ln N − ln max(1, items in whose references the n-gram occurs), N the number of items: scores of a subset
    do not compare with those of the full split, and a single item scores 0 (`CIDEr` refuses it).
    """
    counted = [[ngrams(text) for text in texts] for texts in references]
    frequency = Counter(gram for texts in counted for gram in set().union(*texts))
    scores = []
    for prediction, texts in zip(predictions, counted, strict=True):
        weighted = _Weighted(ngrams(prediction), frequency, len(counted))
        scores.append(10 * mean([weighted.similarity(_Weighted(t, frequency, len(counted))) for t in texts]))
    return scores


def medoid(captions: Sequence[str], sample: int = 20_000) -> str:
    """The caption nearest to all others: highest cosine to the mean of the normalised tf-idf vectors.

    Of more than `sample` captions, that many are looked at, evenly spaced. The first one wins a tie.
    """
    captions = captions[:: max(1, len(captions) // sample)]
    counted = [ngrams(tokenize(caption)) for caption in captions]
    frequency = Counter(gram for counts in counted for gram in counts)
    vectors = []
    for counts in counted:
        vector = {gram: count * math.log((1 + len(counted)) / frequency[gram]) for gram, count in counts.items()}
        norm = math.sqrt(sum(w * w for w in vector.values())) or 1.0
        vectors.append({gram: weight / norm for gram, weight in vector.items()})
    centre: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for vector in vectors:
        for gram, weight in vector.items():
            centre[gram] += weight
    closeness = [sum(weight * centre[gram] for gram, weight in vector.items()) for vector in vectors]
    return captions[closeness.index(max(closeness))]


def _refuse_degenerate(metric: str, references: Iterable[Sequence[str]], items: int) -> None:
    """Raises UserError where all items have the same n-grams in their tokenised references."""
    if items == 1:
        raise UserError(f"{metric}: one item has no CIDEr: by its definition (ln 1) it is 0 whatever is predicted")
    grams = ({gram for text in texts for gram in ngrams(text)} for texts in references)
    first = next(grams, None)
    if first is not None and all(other == first for other in grams):
        raise UserError(
            f"{metric}: the references of all {items} items have the same words, so that there is no CIDEr: by its "
            "definition it is 0 whatever is predicted"
        )


class CIDEr(CaptionMetric):
    """CIDEr-D with σ = 6 over n = 1..4: the mean over the items.

    Where every item has the same n-grams in its references, as a single item has, every weight is ln 1 = 0, and so is
    the score of any caption. The official code prints that 0; here it is a UserError, since it measures nothing.
    """

    name = "cider"
    bounds: ClassVar[Bounds] = BOUNDS["CIDEr"]

    def check_examples(self, examples: Sequence[Scorable]) -> None:
        """Raises UserError where no caption whatever could score."""
        references = ([tokenize(caption) for caption in example.references["captions"]] for example in examples)
        _refuse_degenerate(self.name, references, len(examples))

    def __call__(self, predictions: dict[str, str], examples: Sequence[Scorable]) -> Scores:
        keys, texts, references = zip(*self.tokenised(predictions, examples), strict=True)
        _refuse_degenerate(self.name, references, len(keys))
        per_example = {key: 100.0 * s for key, s in zip(keys, cider_d(texts, references), strict=True)}
        return Scores({"CIDEr": mean(list(per_example.values()))}, per_example)
