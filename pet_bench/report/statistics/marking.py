"""Which scores of a table are bold: those that are not significantly worse than the best of their column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pet_bench.errors import UserError
from pet_bench.report.statistics.columns import Column, Method, columns
from pet_bench.report.statistics.examples import Folders, check_comparable
from pet_bench.report.statistics.notes import marking_notes, power_notes
from pet_bench.report.statistics.spread import Seen, seen
from pet_bench.report.statistics.tests import DRAWS, LEVEL, Test, holm, of_draws, resampled_means, seed_test, together
from pet_bench.report.summary import primary_scores

Mark = tuple[str, ...]  # suite, backbone, method, setup, score


@dataclass(frozen=True)
class Marks:
    """best: (suite, backbone, method, setup, score) of what is bold. caption: how that was decided, lines. power: which
    differences the tables could not have shown, lines."""

    best: set[Mark] = field(default_factory=set)
    caption: list[str] = field(default_factory=list)
    power: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Marked:
    """One table: what is bold in it, by which kinds of tests, over how many comparisons.

    one_seed: whether in some of them only the examples could speak. seen: the least difference of the last column, the
    average, that it could show; None where that is not known.
    """

    place: tuple[str, ...]
    best: set[Mark]
    kinds: set[str]
    comparisons: int
    one_seed: bool
    seen: Seen | None


def significantly_best(frame: pd.DataFrame, folders: Folders, seed: int = 0) -> Marks:
    """What is bold in the tables of `frame`: in each column the methods not significantly worse than its best one,
    where half of its methods (rounded down) or more are worse. Where few seeds tell hardly any apart, bold would say
    nothing.

    A table is a suite on a backbone. In each of its columns, the average among them, every method is compared with
    the one of the highest mean by all tests `together` at 5 %, corrected by Holm over all of these comparisons. So a
    method that is truly best is bold with a probability of 95 % (subset selection: Hsu 1984); of methods that are truly
    alike the luckiest is picked before it is compared, so that one of them is left out rather more often than in 5 %.
    Where predictions are missing, or there is one seed, only the other test speaks, and the caption says so.
    """
    rows = primary_scores(frame)
    rows = rows[rows.control == "none"]
    sections = [(tuple(map(str, place)), section) for place, section in rows.groupby(["suite", "backbone"], sort=False)]
    tables, faults = [], []
    for place, section in sections:
        where = f"{' on '.join(place)}: " if len(sections) > 1 else ""
        if section.groupby(["method", "setup"]).ngroups < 2:
            continue
        try:
            check_comparable(section)
        except UserError as error:
            faults += [f"nothing is marked: {where}{fault}" for fault in error.faults]
            continue
        found, lacking = columns(section, folders)
        faults += [f"only seeds are tested where examples cannot be: {where}{fault}" for fault in lacking]
        tables.append(_marked(place, found, seed))
    best = {mark for table in tables for mark in table.best}
    several = len(sections) > 1
    return Marks(best, [*marking_notes(tables, several), *faults], power_notes(tables, several))


def _marked(place: tuple[str, ...], found: list[Column], seed: int) -> Marked:
    draws = _draws(found, seed)
    tests = [(column.name, *test) for column in found for test in _tests(column, draws)]
    p_values = holm(together(seeds, examples) for *_, seeds, examples in tests)
    worse = {(name, method) for (name, method, *_), p in zip(tests, p_values, strict=True) if p <= LEVEL}
    best: set[Mark] = set()
    for column in found:
        left = [method for method in column.seeds if (column.name, method) not in worse]
        if len(column.seeds) - len(left) >= len(column.seeds) // 2:
            best |= {(*place, *method, column.name) for method in left}
    kinds = {test.kind for *_, seeds, examples in tests for test in (seeds, examples) if test}
    one_seed = any(seeds.kind == "n = 1" and examples is not None for *_, seeds, examples in tests)
    return Marked(place, best, kinds, len(tests), one_seed, seen(found[-1], len(tests)) if tests else None)


def _draws(found: list[Column], seed: int) -> dict[str, dict[Method, np.ndarray]]:
    """By task each method's means over resampled examples, the same for all methods."""
    draws = max(DRAWS, 100 * sum(len(column.seeds) for column in found))  # the least possible p-value must survive Holm
    parts = {task: of for column in found for task, of in column.examples.items()}
    return {
        task: dict(zip(of, resampled_means(_means(of), draws, [seed, *task.encode()]).T, strict=True))
        for task, of in parts.items()
    }


def _means(of: dict[Method, np.ndarray]) -> np.ndarray:
    """Over seeds, which all answer the same examples: (methods, examples)."""
    return np.stack([scores.mean(axis=0) for scores in of.values()])


def _tests(column: Column, draws: dict[str, dict[Method, np.ndarray]]) -> Iterator[tuple[Method, Test, Test | None]]:
    """Every method but the one of the highest mean: its tests against that one, over seeds and over examples."""
    top = max(column.seeds, key=lambda method: column.seeds[method].mean())
    for method, scores in column.seeds.items():
        if method != top:
            difference = column.seeds[top].mean() - scores.mean()
            drawn = [draws[task][top] - draws[task][method] for task in column.examples]
            resampled = of_draws(difference, np.mean(drawn, axis=0)) if drawn else None
            yield method, seed_test(column.seeds[top], scores), resampled
