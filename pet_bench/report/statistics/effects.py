"""How large a difference is, and on which examples: effect sizes, right and wrong answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pet_bench.report.statistics.tests import DRAWS, ZERO, interval, resampled_means


@dataclass(frozen=True)
class Effect:
    """Over examples, each the mean over seeds: Cohen's d of the paired differences (mean / standard deviation) with its
    bootstrapped 95 % confidence interval, and the shares on which a is better, equal and worse."""

    d: float
    low: float
    high: float
    better: float
    equal: float
    worse: float


def effect(a: np.ndarray, b: np.ndarray, draws: int = DRAWS, seed: int | Sequence[int] = 0) -> Effect:
    """a, b: (seeds, examples)."""
    x = np.mean(np.atleast_2d(a), axis=0) - np.mean(np.atleast_2d(b), axis=0)
    better, worse = (x > ZERO).mean(), (x < -ZERO).mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, square = resampled_means(np.stack([x, x**2]), draws, seed).T
        drawn = mean / np.sqrt(np.maximum(square - mean**2, 0) * len(x) / (len(x) - 1))
        d = x.mean() / x.std(ddof=1)
    low, high = interval(drawn) if np.isfinite(drawn).all() else (np.nan, np.nan)
    return Effect(float(d), low, high, float(better), float(1 - better - worse), float(worse))


def mcnemar(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """How often each is right, of two arrays of scores that are 0 or 100, and the exact p-value of McNemar's test: of
    as uneven a split of the examples on which only one is right, were both as likely."""
    from scipy.stats import binomtest

    a, b = np.asarray(a) > 50, np.asarray(b) > 50
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return {"both": int((a & b).sum()), "only a": only_a, "only b": only_b, "neither": int((~a & ~b).sum()), "p": p}
