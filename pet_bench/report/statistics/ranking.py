"""Ranks over tasks: Friedman's test that all methods are alike, and Nemenyi's which of them differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pet_bench.report.statistics.tests import LEVEL


@dataclass(frozen=True)
class Ranks:
    """mean: mean rank over tasks of each method, 1 the best, ties averaged, best first. p: of Friedman's test that all
    are alike. critical: Nemenyi's critical difference of mean ranks at 5 %; both nan below 3 methods or 3 tasks."""

    mean: pd.Series
    tasks: int
    statistic: float = np.nan
    p: float = np.nan
    critical: float = np.nan


def ranks(scores: pd.DataFrame) -> Ranks:
    """scores: a row per method, a column per task; methods that lack one are left out (Demšar 2006, section 3.2).

    With k methods on N tasks the critical difference is q √(k (k + 1) / 6N), q the studentised range at infinite
    degrees of freedom over √2.
    """
    from scipy.stats import friedmanchisquare, studentized_range

    scores = scores.dropna()
    k, n = scores.shape
    mean = scores.rank(ascending=False).mean(axis=1).sort_values(kind="stable")
    if k < 3 or n < 3:
        return Ranks(mean, n)
    q = studentized_range.ppf(1 - LEVEL, k, np.inf) / np.sqrt(2)
    with np.errstate(invalid="ignore"):
        statistic, p = friedmanchisquare(*scores.to_numpy())
    return Ranks(mean, n, float(statistic), float(p), float(q * np.sqrt(k * (k + 1) / (6 * n))))
