"""Which scores of a table are bold: those that are not significantly worse than the best of their column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pet_bench.errors import UserError
from pet_bench.report.statistics.examples import Folders, Untested, check_comparable, example_scores
from pet_bench.report.statistics.notes import marking_notes
from pet_bench.report.statistics.tests import DRAWS, LEVEL, Test, both, holm, of_draws, resampled_means, seed_test
from pet_bench.report.summary import primary_scores

Method = tuple[str, str]  # its name and its setup
Mark = tuple[str, ...]  # suite, backbone, method, setup, score


@dataclass(frozen=True)
class Marks:
    """best: (suite, backbone, method, setup, score) of what is bold. caption: how that was decided, lines."""

    best: set[Mark] = field(default_factory=set)
    caption: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Marked:
    """One table: what is bold in it, by which kinds of tests, over how many comparisons.

    one_seed: whether in some of them only the examples could speak.
    """

    place: tuple[str, ...]
    best: set[Mark]
    kinds: set[str]
    comparisons: int
    one_seed: bool


@dataclass(frozen=True)
class Column:
    """seeds: each method's scores by seed. drawn: means of resampled examples, where they are to be had."""

    name: str
    seeds: dict[Method, pd.Series]
    drawn: dict[Method, np.ndarray] | None

    def tests(self) -> Iterator[tuple[Method, Test, Test | None]]:
        """Every method but the one of the highest mean: its tests against that one, over seeds and over examples."""
        top = max(self.seeds, key=lambda method: self.seeds[method].mean())
        for method, scores in self.seeds.items():
            if method != top:
                difference = self.seeds[top].mean() - scores.mean()
                resampled = of_draws(difference, self.drawn[top] - self.drawn[method]) if self.drawn else None
                yield method, seed_test(self.seeds[top], scores), resampled


def significantly_best(frame: pd.DataFrame, folders: Folders, seed: int = 0) -> Marks:
    """What is bold in the tables of `frame`: in each column the methods not significantly worse than its best one,
    where half of its methods (rounded down) or more are worse. Where few seeds tell hardly any apart, bold would say
    nothing.

    A table is a suite on a backbone. In each of its columns, the average among them, every method is compared with
    the one of the highest mean by `both` tests at 5 %, corrected by Holm over all of these comparisons. So a method
    that is truly best is bold with a probability of 95 % (subset selection: Hsu 1984); of methods that are truly alike
    the luckiest is picked before it is compared, so that one of them is left out rather more often than in 5 %.
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
        columns, lacking = _columns(section, folders, seed)
        faults += [f"only seeds are tested where examples cannot be: {where}{fault}" for fault in lacking]
        tables.append(_marked(place, columns))
    best = {mark for table in tables for mark in table.best}
    return Marks(best, [*marking_notes(tables, len(sections) > 1), *faults])


def _marked(place: tuple[str, ...], columns: list[Column]) -> Marked:
    tests = [(column.name, *test) for column in columns for test in column.tests()]
    p_values = holm(both(examples.p if examples else np.nan, seeds.p) for *_, seeds, examples in tests)
    worse = {(name, method) for (name, method, *_), p in zip(tests, p_values, strict=True) if p <= LEVEL}
    best: set[Mark] = set()
    for column in columns:
        left = [method for method in column.seeds if (column.name, method) not in worse]
        if len(column.seeds) - len(left) >= len(column.seeds) // 2:
            best |= {(*place, *method, column.name) for method in left}
    kinds = {test.kind for *_, seeds, examples in tests for test in (seeds, examples) if test}
    one_seed = any(seeds.kind == "n = 1" and examples is not None for *_, seeds, examples in tests)
    return Marked(place, best, kinds, len(tests), one_seed)


def _columns(section: pd.DataFrame, folders: Folders, seed: int) -> tuple[list[Column], list[str]]:
    """A table's columns, the average last, and why of some of them examples cannot be tested."""
    methods = {
        (str(name), str(setup)): rows for (name, setup), rows in section.groupby(["method", "setup"], sort=False)
    }
    tasks = [str(task) for task in dict.fromkeys(section.task)]
    draws = max(DRAWS, 100 * len(methods) * (len(tasks) + 1))  # the least possible p-value must survive Holm
    columns: list[Column] = []
    faults: list[str] = []
    for task in tasks:
        of = {method: rows[rows.task == task] for method, rows in methods.items()}
        of = {method: rows for method, rows in of.items() if len(rows)}
        drawn = None
        try:
            scores = example_scores(section[section.task == task], folders)
            values = np.stack([scores[rows.id].mean(axis=1).to_numpy() for rows in of.values()])
            drawn = dict(zip(of, resampled_means(values, draws, [seed, *task.encode()]).T, strict=True))
        except Untested as error:
            faults += error.faults
        columns.append(Column(task, {method: rows.set_index("seed").value for method, rows in of.items()}, drawn))
    averages = {key: rows.drop_duplicates("id").set_index("seed").average.dropna() for key, rows in methods.items()}
    if averages := {key: values for key, values in averages.items() if len(values)}:
        columns.append(Column("average", averages, _mean_draws(columns, list(averages))))
    return columns, faults


def _mean_draws(columns: list[Column], methods: list[Method]) -> dict[Method, np.ndarray] | None:
    """The draws of the average, where those of all its tasks are to be had."""
    draws = [column.drawn or {} for column in columns]
    if any(method not in drawn for drawn in draws for method in methods):
        return None
    return {method: np.mean([drawn[method] for drawn in draws], axis=0) for method in methods}
