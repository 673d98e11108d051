"""How far differences of methods scatter in a column of a table: `power.Spread`, estimated from finished trials."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pet_bench.report.statistics.columns import Column
from pet_bench.report.statistics.power import Design, Part, Spread
from pet_bench.report.statistics.tests import LEVEL


@dataclass(frozen=True)
class Seen:
    """What a column can show with the seeds (of most of its methods) and examples it has: the least difference that is
    seen in a table of so many comparisons, and alone, in a single one. examples: 0 where only seeds are tested."""

    column: str
    seeds: int
    examples: int
    comparisons: int
    in_table: float
    alone: float


def seen(column: Column, comparisons: int) -> Seen | None:
    """None as `spread`, and where nothing could be seen."""
    of, seeds = spread(column), usual_seeds(column)
    if of is None or seeds < 2:
        return None
    in_table, alone = (Design(of, seeds, level).detectable() for level in (LEVEL / comparisons, LEVEL))
    if not np.isfinite(in_table):
        return None
    return Seen(column.name, seeds, sum(part.n for part in of.parts), comparisons, in_table, alone)


def usual_seeds(column: Column) -> int:
    """How many seeds most of a column's methods have."""
    return Counter(map(len, column.seeds.values())).most_common(1)[0][0]


def spread(column: Column) -> Spread | None:
    """Of a typical pair of its methods: each variance is the mean over all pairs, so that figures are RMS.

    What is estimated from the trials' own number of seeds and examples is freed of the ρ² that is in it. None where no
    method has two seeds, there are no two methods, or no seed is any different. Methods that are the same under two
    names count once.
    """
    same = {tuple(scores.sort_index().items()): method for method, scores in reversed(column.seeds.items())}
    seeds = {method: column.seeds[method] for method in same.values() if len(column.seeds[method]) > 1}
    if len(column.seeds) < 2 or not seeds:
        return None
    parts = tuple(_part([of[method] for method in seeds]) for of in column.examples.values())
    residual = Spread(0, 0, parts).residual
    apart = 2 * float(np.mean([scores.var() for scores in seeds.values()]))
    if not apart:
        return None
    return Spread(max(0.0, _paired(list(seeds.values()), apart) - residual), max(0.0, apart - residual), parts)


def _paired(seeds: list[pd.Series], apart: float) -> float:
    """Between the differences of trials of one seed, of the methods that have the commonest set of seeds.

    Where no two have the same, nothing is known of what seeds share, and they are taken to share nothing.
    """
    sets = [tuple(sorted(scores.index)) for scores in seeds]
    ((common, count),) = Counter(sets).most_common(1)
    chosen = [scores.loc[list(common)] for scores, own in zip(seeds, sets, strict=True) if own == common]
    return between_pairs(np.array(chosen, float)) if count > 1 else apart


def _part(of: list[np.ndarray]) -> Part:
    """of: each method's scores (seeds, examples), of one seed where the others lack the task."""
    whole = [scores for scores in of if min(scores.shape) > 1]
    if not whole:
        return Part(of[0].shape[1], 0.0, 0.0)
    of = whole
    residuals = [_residual(scores) for scores in of]
    over_seeds = 2 * float(np.mean([own / len(scores) for own, scores in zip(residuals, of, strict=True)]))
    examples = between_pairs(np.stack([scores.mean(axis=0) for scores in of])) if len(of) > 1 else 0.0
    return Part(of[0].shape[1], max(0.0, examples - over_seeds), 2 * float(np.mean(residuals)))


def _residual(scores: np.ndarray) -> float:
    """The variance of one method's scores (seeds, examples) that is neither the seeds' nor the examples'."""
    rest = scores - scores.mean(axis=0) - scores.mean(axis=1, keepdims=True) + scores.mean()
    return float((rest**2).sum() / (scores.shape[0] - 1) / (scores.shape[1] - 1))


def between_pairs(values: np.ndarray) -> float:
    """The variance over columns of a difference of two rows, its mean over all pairs of rows: 2 Σ var(row − mean row) /
    (rows − 1)."""
    rest = values - values.mean(axis=0)
    return 2 * float(rest.var(axis=1, ddof=1).sum()) / (len(values) - 1)
