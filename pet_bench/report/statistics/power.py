"""How large a difference k seeds and n examples can show: the power of the table's tests, before they are run.

A score is drawn twice (`tests`). Of two methods' scores y (seed s, example e) the difference over k seeds and the n
examples of a test is D = δ + A + B + C with the variances σ² / k of seeds, τ² / n of examples and ρ² / (k n) of what is
neither's own. The tests of a table reject where |D| is above all of their thresholds:

    over examples   z · √(τ² + ρ² / k) / √n            nothing in it is a seed's: D is known for these alone
    over seeds      t(f) · s                           s² estimates (σ² + ρ² / n) / k
    both at once    t(f′) · √(s² + (τ² + ρ² / k) / n)

s² is drawn anew with every set of seeds, is χ² of its f degrees of freedom, and is independent of D; so that power is
the mean, over a grid of quantiles of s, of the chance that D, which is normal, is above the largest of the three. That
is exact up to the grid for normal scores, and needs no simulation; `tests/report/test_power.py` simulates to check it.

In a table of m comparisons Holm's first step asks for p ≤ 5 % / m. A difference that is seen at that level is seen
whatever the other methods do; the more of them are clearly worse, the nearer its level comes to 5 %, where a single
comparison is.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from pet_bench.report.statistics.tests import LEVEL, PAIRED, ZERO, added

POWER, LIMIT = 0.8, 1000  # seeds that are counted to
GRID = 512, 48  # quantiles of a paired test's variance, and of either one of Welch's


@dataclass(frozen=True)
class Part:
    """A task of a column: its n examples, and the variances of a difference over them, τ² and ρ²."""

    n: int
    examples: float
    residual: float


@dataclass(frozen=True)
class Spread:
    """The variances of a difference of two methods in one column of a table, the mean of its parts, in points².

    paired: σ² between the differences of trials of one seed; apart: between those of trials of any seeds, σ² of both
    methods together. Neither has ρ². Without parts only seeds are tested.
    """

    paired: float
    apart: float
    parts: tuple[Part, ...] = ()

    @property
    def examples(self) -> float:
        """τ² / n of the column."""
        return sum(part.examples / part.n for part in self.parts) / max(1, len(self.parts)) ** 2

    @property
    def residual(self) -> float:
        """ρ² / n of the column."""
        return sum(part.residual / part.n for part in self.parts) / max(1, len(self.parts)) ** 2

    def enlarged(self, n: Mapping[int, int]) -> Spread:
        """With other numbers of examples, by the place of the part."""
        parts = (replace(part, n=n.get(place, part.n)) for place, part in enumerate(self.parts))
        return replace(self, parts=tuple(parts))


@dataclass(frozen=True)
class Design:
    """A comparison of two methods with the same k seeds, at a level (5 % over the number of comparisons, say)."""

    spread: Spread
    seeds: int
    level: float = LEVEL

    @cached_property
    def thresholds(self) -> np.ndarray:
        """Those that |D| has to pass, equally likely."""
        from scipy.special import ndtri, stdtrit

        over_seeds, freedom = self._over_seeds()
        over_examples = np.full_like(over_seeds, self.spread.examples + self.spread.residual / self.seeds)
        of_both, freedom_of_both = added([over_seeds, over_examples], [freedom, np.full_like(freedom, np.inf)])
        tail = 1 - self.level / 2
        found = np.maximum(stdtrit(freedom, tail) * np.sqrt(over_seeds), ndtri(tail) * np.sqrt(over_examples))
        return np.maximum(found, stdtrit(freedom_of_both, tail) * np.sqrt(of_both)) if self.spread.parts else found

    def _over_seeds(self) -> tuple[np.ndarray, np.ndarray]:
        """Estimates of the variance of D over seeds, equally likely, and their degrees of freedom."""
        from scipy.stats import chi2

        k, f, pairs = self.seeds, self.seeds - 1, self.seeds >= PAIRED
        size = GRID[0 if pairs else 1]
        drawn = chi2.ppf((np.arange(size) + 0.5) / size, f) / f / k
        if pairs:
            return (self.spread.paired + self.spread.residual) * drawn, np.full(size, float(f))
        one, other = np.meshgrid(*2 * [(self.spread.apart + self.spread.residual) / 2 * drawn])
        variance, freedom = added([one, other], [f, f])
        return variance.ravel(), freedom.ravel()

    @property
    def error(self) -> float:
        """The standard deviation of D: both methods have the same seeds, whether their test makes use of it or not."""
        return float(np.sqrt((self.spread.paired + self.spread.residual) / self.seeds + self.spread.examples))

    def power(self, difference: float) -> float:
        """The probability that a true difference is found, on either side."""
        from scipy.special import ndtr

        error = max(self.error, ZERO)
        above, below = (ndtr((side * difference - self.thresholds) / error) for side in (1, -1))
        return float(np.mean(above + below))

    def detectable(self, power: float = POWER) -> float:
        """The least difference that is found with this power; infinite where no seed is any different, of which the
        test over seeds concludes nothing."""
        from scipy.optimize import brentq

        if max(self.error, self.thresholds.max()) <= ZERO:
            return np.inf
        most = float(self.thresholds.max() + 5 * self.error)
        root: Any = brentq(lambda difference: self.power(difference) - power, 0, most)
        return float(root)


def seeds_needed(spread: Spread, difference: float, level: float = LEVEL, power: float = POWER) -> int | None:
    """The least number of seeds, of `LIMIT` at most, with which a difference is found; None where none is enough."""

    def enough(seeds: int) -> bool:
        return Design(spread, seeds, level).power(difference) >= power

    for few in range(2, PAIRED):  # the change of test makes a step
        if enough(few):
            return few
    more = range(PAIRED, LIMIT + 1)
    place = bisect_left(more, True, key=enough)
    return more[place] if place < len(more) else None


def examples_needed(spread: Spread, difference: float, level: float = LEVEL, power: float = POWER) -> float:
    """How many times as many examples a difference needs were there endless seeds: below that no seeds help."""
    from scipy.special import ndtri

    return float(spread.examples * ((ndtri(1 - level / 2) + ndtri(power)) / difference) ** 2)
