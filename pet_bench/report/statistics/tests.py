"""Tests of a difference: over examples, over seeds, both together, and their correction.

**Over examples** (`paired_bootstrap`): the test's examples are drawn anew with replacement, the same for both methods
(Koehn 2004; Dror et al. 2018, "The Hitchhiker's Guide to Testing Statistical Significance in NLP", section 3.2), the
trained models stay. All seeds of a method answer the same examples, so that one draw serves all of them: drawing per
seed would treat S answers to a question as S questions and make intervals up to √S too narrow. Examples are drawn one
by one although some share an image or a sentence, which predictions do not say: intervals are a little too narrow.

**Over seeds** (`seed_test`): a t-test on the scores of trials. Trials of one seed share the order of the data, the new
words and the first visual embedding, and what they share does not tell methods apart: a paired t-test takes it out, at
the price of half the degrees of freedom. So the rule, which looks at no score: paired where both sides have the same
seeds and at least `PAIRED` of them, else Welch's. In a single comparison of five seeds pairing pays where 28 % of the
variance are shared or more; at the level of a table of a hundred comparisons (5 % / 100) that takes 64 % with five
seeds, 44 % with eight, 36 % with ten. Eight are the fewest with which it loses nothing there on average over shares of
0 to 80 % (`power.Design` has the figures). In the committed grids of three seeds 0 to 34 % of an average's variance are
shared.

**Over both at once** (`joint_test`): each of these tests takes the other's draw for given. Where both scatter alike, a
difference of nought passes the two of them together not in 5 % but in up to 17 % of cases: it scatters by √2 times what
either test knows of (Clark 1973, "The language-as-fixed-effect fallacy"; Forster and Dickinson 1976). So the two
variances are added up; the square of this t is Clark's min F′.

**Together** (`together`): a method is better only if all of these say so, that is by the largest of their p-values. A
difference that another test set, another seed, or both could turn is none to report; with one seed only the examples
can speak.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

DRAWS, LEVEL = 10_000, 0.05
PAIRED = 8  # seeds
CELLS = 4_000_000  # examples drawn at a time
ZERO = 1e-9  # of scores in points
Array = Any  # float, or an array of them


@dataclass(frozen=True)
class Test:
    """A difference of means with its 95 % confidence interval and two-sided p-value; nan: not to be had.

    kind: "bootstrap", "Welch", "paired t", "joint" or "n = 1". error: its standard error; freedom: the degrees of
    freedom of that, infinite for a bootstrap.
    """

    __test__ = False  # not pytest's

    difference: float
    low: float
    high: float
    p: float
    kind: str
    error: float = np.nan
    freedom: float = np.nan


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
    p = min(1.0, float(2 * (tail + 1) / (len(drawn) + 1)))
    return Test(float(difference), *interval(drawn), p, "bootstrap", float(drawn.std()), np.inf)


def interval(drawn: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of what was drawn."""
    low, high = np.quantile(drawn, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def seed_test(
    a: Mapping[int, float] | pd.Series, b: Mapping[int, float] | pd.Series, paired: bool | None = None
) -> Test:
    """t-test on scores by seed; none where one has n = 1. paired: or Welch's; by default as `PAIRED` says.

    Seeds without any spread do not tell how much others would have: no interval, and p = 1.
    """
    of_a, of_b = ({seed: float(score) for seed, score in side.items()} for side in (a, b))
    one, other = np.array([*of_a.values()]), np.array([*of_b.values()])
    difference = float(one.mean() - other.mean())
    if min(len(one), len(other)) < 2:
        return Test(difference, np.nan, np.nan, np.nan, "n = 1")
    same = of_a.keys() == of_b.keys()
    if paired and not same:
        raise ValueError("a paired test needs the same seeds")
    if paired is None:
        paired = same and len(one) >= PAIRED
    sides = [one - np.array([of_b[seed] for seed in of_a])] if paired else [one, other]
    variance, freedom = added([side.var(ddof=1) / len(side) for side in sides], [len(side) - 1 for side in sides])
    return _t_test(difference, float(np.sqrt(variance)), float(freedom), "paired t" if paired else "Welch")


def joint_test(seeds: Test, examples: Test) -> Test:
    """Of the same difference over other seeds and other examples at once: a t-test with the sum of both variances.

    It counts twice what is neither a seed's nor an example's own, and errs on the safe side by that.
    """
    variance, freedom = added([seeds.error**2, examples.error**2], [seeds.freedom, examples.freedom])
    return _t_test(seeds.difference, float(np.sqrt(variance)), float(freedom), "joint")


def added(variances: Sequence[Array], freedoms: Sequence[Array]) -> tuple[Array, Array]:
    """The sum of estimated variances and its degrees of freedom, by Satterthwaite: (Σv)² / Σ(v² / f)."""
    total = sum(variances)
    with np.errstate(invalid="ignore", divide="ignore"):
        return total, np.divide(total**2, sum(v**2 / f for v, f in zip(variances, freedoms, strict=True)))


def _t_test(difference: float, error: float, freedom: float, kind: str) -> Test:
    from scipy.special import stdtr, stdtrit

    if not error > ZERO:  # none, or nan
        return Test(difference, np.nan, np.nan, 1.0 if error <= ZERO else np.nan, kind)
    half = float(stdtrit(freedom, 1 - LEVEL / 2)) * error
    p = 2 * float(stdtr(freedom, -abs(difference) / error))
    return Test(difference, difference - half, difference + half, p, kind, error, freedom)


def together(seeds: Test, examples: Test | None) -> float:
    """The p-value of "neither other examples nor other seeds, nor both, would undo it"."""
    return both(examples.p, seeds.p, joint_test(seeds, examples).p) if examples else both(np.nan, seeds.p)


def both(*p_values: float) -> float:
    """The largest; without those that are not to be had (nan), 1 where none is."""
    known = [p for p in p_values if not np.isnan(p)]
    return float(max(known, default=1.0))


def holm(p_values: Iterable[float]) -> np.ndarray:
    """Holm's (1979) adjusted p-values: the i-th smallest of m times m − i + 1, never below a smaller one's, at most 1.

    Rejecting those up to 5 % errs anywhere in the family with a probability of 5 % at most.
    """
    if not len(p := np.asarray(list(p_values), float)):
        return p
    from statsmodels.stats.multitest import multipletests

    return np.asarray(multipletests(p, method="holm")[1])
