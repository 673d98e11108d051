"""Do two tables order the same methods alike? Rank correlations of our scores with published ones, with intervals.

Kendall's τ-b and Spearman's ρ, with an interval from a bootstrap that draws the methods anew (other methods might agree
less) and, within them, the seeds (other seeds might have ordered ours otherwise). Trials of one seed share its luck, so
that one draw of seeds serves all methods. A method that is drawn twice is tied with itself on both sides, which τ-b
leaves out and ρ counts; a draw of fewer than three different methods says nothing and is left out.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pet_bench.report.statistics.tests import interval

DRAWS = 2000
LEAST = 3  # methods


@dataclass(frozen=True)
class Correlation:
    """A rank correlation with the middle 95 % of its bootstrap; nan where it is not to be had."""

    value: float
    low: float = np.nan
    high: float = np.nan


@dataclass(frozen=True)
class Agreement:
    """Over n methods; kendall is τ-b, spearman ρ. without: the methods left out."""

    n: int
    kendall: Correlation
    spearman: Correlation
    without: tuple[str, ...] = ()


def agreement(
    ours: pd.DataFrame, published: pd.Series, without: Collection[str] = (), draws: int = DRAWS, seed: int = 0
) -> Agreement:
    """ours: scores, a row per method, a column per seed, nan where a method lacks one. published: a score per method.

    Methods that either side lacks are left out.
    """
    left_out = tuple(method for method in published.index if method in set(without) and method in ours.index)
    published = published.drop(list(left_out)).dropna().astype(float)
    ours = ours.astype(float).dropna(how="all")
    methods = [method for method in published.index if method in ours.index]
    if len(methods) < LEAST:
        nothing = Correlation(np.nan)
        return Agreement(len(methods), nothing, nothing, left_out)
    scores, theirs = ours.loc[methods].to_numpy(), published[methods].to_numpy()
    means = np.nanmean(scores, axis=1)
    values = kendall_spearman(means[None], theirs[None])
    drawn = _drawn(scores, theirs, draws, seed)
    kendall, spearman = (
        Correlation(float(value[0]), *_middle(of)) for value, of in zip(values, kendall_spearman(*drawn), strict=True)
    )
    return Agreement(len(methods), kendall, spearman, left_out)


def extremes(published: pd.Series) -> tuple[str, ...]:
    """The methods with the best and the worst published score."""
    known = published.dropna()
    return tuple(dict.fromkeys([str(known.idxmax()), str(known.idxmin())])) if len(known) else ()


def kendall_spearman(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """τ-b and ρ of each row of a with that of b: (draws, n) twice → (draws,) twice; nan where a row is all alike.

    Of the signs s of all differences within a row τ-b is the correlation, and ρ that of their sums over either element:
    half of such a sum is the rank, ties averaged, less its mean.
    """
    signs = [np.sign(x[:, :, None] - x[:, None, :]) for x in (a, b)]
    return _correlation(*(sign.reshape(len(sign), -1) for sign in signs)), _correlation(*(s.sum(axis=2) for s in signs))


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of rows whose means are 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))


def _drawn(scores: np.ndarray, theirs: np.ndarray, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Both sides over methods and seeds drawn with replacement: (draws, methods) twice."""
    generator, (methods, seeds) = np.random.default_rng(seed), scores.shape
    counts = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws).astype(float)
    there = counts @ np.isfinite(scores).T.astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):  # a method none of whose seeds is drawn
        means = (counts @ np.nan_to_num(scores).T) / there
    means = np.where(there > 0, means, np.nanmean(scores, axis=1))
    chosen = generator.integers(methods, size=(draws, methods))
    several = (np.diff(np.sort(chosen, axis=1), axis=1) > 0).sum(axis=1) + 1 >= LEAST
    chosen, means = chosen[several], means[several]
    return np.take_along_axis(means, chosen, axis=1), theirs[chosen]


def _middle(drawn: np.ndarray) -> tuple[float, float]:
    known = drawn[np.isfinite(drawn)]
    return interval(known) if len(known) > 1 else (np.nan, np.nan)
