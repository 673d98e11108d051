"""Tests of a difference: over examples, over seeds, both together, and their correction.

**Over examples** (`paired_bootstrap`): the test's examples are drawn anew with replacement, the same for both methods
(Koehn 2004; Dror et al. 2018, "The Hitchhiker's Guide to Testing Statistical Significance in NLP", section 3.2), the
trained models stay. All seeds of a method answer the same examples, so that one draw serves all of them: drawing per
seed would treat S answers to a question as S questions and make intervals up to √S too narrow. Examples are drawn one
by one although some share an image or a sentence, which predictions do not say: intervals are a little too narrow.

**Over seeds** (`seed_test`): Welch's t-test on the scores of trials. Trials of one seed share the order of the data,
so they could be paired; but pairs halve the degrees of freedom, which of three seeds costs more than they give back
unless what a seed shares outweighs what it does not, and there Welch's test errs on the safe side.

**Together** (`both`): a method is better only if both tests say so, that is by the larger of the two p-values (an
intersection-union test: Berger 1982, so that the pair needs no correction of its own). A difference that another test
set or another seed could turn is none to report; with one seed only the examples can speak.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

DRAWS, LEVEL = 10_000, 0.05
CELLS = 4_000_000  # examples drawn at a time
ZERO = 1e-9  # of scores in points


@dataclass(frozen=True)
class Test:
    """A difference of means with its 95 % confidence interval and two-sided p-value; nan: not to be had.

    kind: "bootstrap", "Welch", "paired t" or "n = 1".
    """

    __test__ = False  # not pytest's

    difference: float
    low: float
    high: float
    p: float
    kind: str


def resampled_means(values: np.ndarray, draws: int = DRAWS, seed: int | Sequence[int] = 0) -> np.ndarray:
    """Means over examples drawn with replacement: values (k, examples) → (draws, k), the same examples for all k."""
    values = np.atleast_2d(np.asarray(values, float))
    n, generator = values.shape[1], np.random.default_rng(seed)
    means = np.empty((draws, len(values)))
    for start in range(0, draws, step := max(1, CELLS // n)):
        rows = min(step, draws - start)
        drawn = generator.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        means[start : start + rows] = counts @ values.T / n
    return means


def paired_bootstrap(a: np.ndarray, b: np.ndarray, draws: int = DRAWS, seed: int | Sequence[int] = 0) -> Test:
    """Mean of a − mean of b over examples, both (seeds, examples); the numbers of seeds may differ.

    The interval is the percentile one (Efron and Tibshirani 1993, chapter 13): means over hundreds of examples are all
    but symmetric, where BCa corrects nothing, and it excludes 0 exactly where its p-value is below 5 %. That is twice
    the smaller share of draws on either side of 0, counting the observed one: at least 2 / (draws + 1).
    """
    difference = np.mean(np.atleast_2d(a), axis=0) - np.mean(np.atleast_2d(b), axis=0)
    return of_draws(float(difference.mean()), resampled_means(difference, draws, seed)[:, 0])


def of_draws(difference: float, drawn: np.ndarray) -> Test:
    """The bootstrap test of a difference, whose resampled values are `drawn`."""
    tail = min((drawn <= ZERO).sum(), (drawn >= -ZERO).sum())
    return Test(float(difference), *interval(drawn), min(1.0, float(2 * (tail + 1) / (len(drawn) + 1))), "bootstrap")


def interval(drawn: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of what was drawn."""
    low, high = np.quantile(drawn, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def seed_test(a: Mapping[int, float] | pd.Series, b: Mapping[int, float] | pd.Series, paired: bool = False) -> Test:
    """t-test on scores by seed, Welch's or the paired one (of the same seeds); none where one has n = 1.

    Seeds without any spread do not tell how much others would have: no interval, and p = 1.
    """
    from scipy.stats import ttest_ind, ttest_rel

    one, other = pd.Series(a, dtype=float), pd.Series(b, dtype=float)
    difference = float(one.mean() - other.mean())
    if min(len(one), len(other)) < 2:
        return Test(difference, np.nan, np.nan, np.nan, "n = 1")
    if paired and set(one.index) != set(other.index):
        raise ValueError("a paired test needs the same seeds")
    spread = (one - other).var() if paired else one.var() / len(one) + other.var() / len(other)
    kind = "paired t" if paired else "Welch"
    if np.sqrt(spread) <= ZERO:
        return Test(difference, np.nan, np.nan, 1.0, kind)
    with warnings.catch_warnings():  # the seeds of one side may be equal
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        result = ttest_rel(one, other[one.index]) if paired else ttest_ind(one, other, equal_var=False)
        low, high = result.confidence_interval(1 - LEVEL)
    return Test(difference, float(low), float(high), float(result.pvalue), kind)  # pyright: ignore[reportAttributeAccessIssue]  # scipy's named tuple


def both(examples: float, seeds: float) -> float:
    """The p-value of "neither other examples nor other seeds would undo it": the larger; one alone where the other is
    not to be had (nan), 1 where none is."""
    p = np.fmax(examples, seeds)
    return 1.0 if np.isnan(p) else float(p)


def holm(p_values: Iterable[float]) -> np.ndarray:
    """Holm's (1979) adjusted p-values: the i-th smallest of m times m − i + 1, never below a smaller one's, at most 1.

    Rejecting those up to 5 % errs anywhere in the family with a probability of 5 % at most.
    """
    if not len(p := np.asarray(list(p_values), float)):
        return p
    from statsmodels.stats.multitest import multipletests

    return np.asarray(multipletests(p, method="holm")[1])
