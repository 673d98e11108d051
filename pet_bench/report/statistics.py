"""Is a difference real? Tests over examples and over seeds, their correction, effect sizes, ranks over tasks.

A benchmark's score is drawn twice: another test set of the same kind and another seed would each have given another.

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

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from pet_bench.errors import Faults, UserError, unknown
from pet_bench.metrics.scores import averages
from pet_bench.report.table import scored, tasks_of
from pet_bench.results import predictions as saved

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


# over examples --------------------------------------------------------------------------------------------------------


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
    return _bootstrap(difference.mean(), resampled_means(difference, draws, seed)[:, 0])


def _bootstrap(difference: float, drawn: np.ndarray) -> Test:
    tail = min((drawn <= ZERO).sum(), (drawn >= -ZERO).sum())
    return Test(float(difference), *_interval(drawn), min(1.0, 2 * (tail + 1) / (len(drawn) + 1)), "bootstrap")


def _interval(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(drawn, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


# over seeds -----------------------------------------------------------------------------------------------------------


def seed_test(a: Mapping[int, float], b: Mapping[int, float], paired: bool = False) -> Test:
    """t-test on scores by seed, Welch's or the paired one (of the same seeds); none where one has n = 1.

    Seeds without any spread do not tell how much others would have: no interval, and p = 1.
    """
    from scipy.stats import t

    a, b = pd.Series(a, dtype=float), pd.Series(b, dtype=float)
    difference = a.mean() - b.mean()
    if min(len(a), len(b)) < 2:
        return Test(difference, np.nan, np.nan, np.nan, "n = 1")
    if paired:
        if set(a.index) != set(b.index):
            raise ValueError("a paired test needs the same seeds")
        kind, freedom = "paired t", len(a) - 1
        error = (a - b).std(ddof=1) / np.sqrt(len(a))
    else:
        parts = np.array([a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)])
        kind, error = "Welch", np.sqrt(parts.sum())
        freedom = parts.sum() ** 2 / (parts**2 / [len(a) - 1, len(b) - 1]).sum() if error > ZERO else 1
    if error <= ZERO:
        return Test(difference, np.nan, np.nan, 1.0, kind)
    margin = t.ppf(1 - LEVEL / 2, freedom) * error
    p = 2 * t.sf(abs(difference) / error, freedom)
    return Test(difference, difference - margin, difference + margin, float(p), kind)


def both(examples: float, seeds: float) -> float:
    """The p-value of "neither other examples nor other seeds would undo it": the larger; one alone where the other is
    not to be had (nan), 1 where none is."""
    p = np.fmax(examples, seeds)
    return 1.0 if np.isnan(p) else float(p)


def holm(p_values: Iterable[float]) -> np.ndarray:
    """Holm's (1979) adjusted p-values: the i-th smallest of m times m − i + 1, never below a smaller one's, at most 1.

    Rejecting those up to 5 % errs anywhere in the family with a probability of 5 % at most.
    """
    p = np.asarray(list(p_values), float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


# effect sizes ---------------------------------------------------------------------------------------------------------


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
    low, high = _interval(drawn) if np.isfinite(drawn).all() else (np.nan, np.nan)
    return Effect(float(d), low, high, float(better), float(1 - better - worse), float(worse))


def mcnemar(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """How often each is right, of two arrays of scores that are 0 or 100, and the exact p-value of McNemar's test: of
    as uneven a split of the examples on which only one is right, were both as likely."""
    from scipy.stats import binomtest

    a, b = np.asarray(a) > 50, np.asarray(b) > 50
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return {"both": int((a & b).sum()), "only a": only_a, "only b": only_b, "neither": int((~a & ~b).sum()), "p": p}


# ranks over tasks -----------------------------------------------------------------------------------------------------


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


def rank_notes(table: pd.DataFrame) -> list[str]:
    """What the column `rank` of a comparison (`report.table.comparison`) is, and which of its differences count."""
    lines = []
    sections = list(table[table["rank"].notna()].groupby(["suite", "backbone"], sort=False))
    for place, group in sections:
        found = ranks(group[tasks_of(table)].astype(float).dropna(axis=1, how="all"))
        line = f"rank: mean over {found.tasks} tasks among {len(found.mean)} methods, 1 the best"
        if np.isfinite(found.p):
            line += f" (Friedman's test: {_p(found.p)}"
            line += f"; apart by {found.critical:.2f} or more they differ, by Nemenyi at 5 %)"
        lines.append(f"{' on '.join(place)}: {line}" if len(sections) > 1 else line)
    return lines


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


# results --------------------------------------------------------------------------------------------------------------

Folders = Path | str | Sequence[Path | str]


class Untested(UserError):
    """Examples cannot be compared, though nothing is wrong: what is known of seeds still holds."""


def predictions(id: str, task: str, metric: str, folders: Folders) -> pd.DataFrame:
    """A trial's predictions for a task, from the first folder that has them: index id, columns prediction and score.

    Raises Untested where there are none, UserError where they are not whole or not scored by the metric.
    """
    folders = [folders] if isinstance(folders, str | Path) else folders
    if not (file := saved.find(id, task, map(Path, folders))):
        raise Untested(f"{task}: predictions of trial {id} are missing")
    found = pd.DataFrame.from_dict(saved.read(file, metric), orient="index", columns=["prediction", "score"])
    return found.rename_axis("id").astype({"score": float})


def example_scores(rows: pd.DataFrame, folders: Folders) -> pd.DataFrame:
    """Per-example scores of the trials in `rows` (one task's primary scores): a row per example, a column per trial.

    Raises Untested where predictions are missing, are not of the same examples, or do not have the score as their
    mean: BLEU is the score of a corpus, which those of its sentences do not give. Raises UserError where they are not
    whole.
    """
    columns = {}
    for row in rows.itertuples():
        scores = predictions(row.id, row.task, row.metric, folders).score
        if not averages(row.metric) or not np.isclose(scores.mean(), row.value, rtol=1e-6, atol=1e-6):
            raise Untested(f"{row.task}: {row.metric} is not the mean of its examples' scores")
        columns[row.id] = scores
    found = pd.DataFrame(columns)
    if found.isna().any(axis=None):
        raise Untested(f"{rows.task.iloc[0]}: the trials' predictions are not for the same examples")
    return found


def check_comparable(rows: pd.DataFrame) -> None:
    """Raises UserError where some trials' primary scores are of different data, splits or scorers."""
    faults = Faults()
    if rows.data.nunique(dropna=False) > 1:
        versions = ", ".join(sorted(rows.data.fillna("unknown").unique()))
        faults.add(f"not comparable: made with different versions of the data ({versions})")
    for task, group in rows.groupby("task", sort=False):
        kinds = {
            f"{row.metric}{f' ({row.options})' if row.options else ''} on {row.split}" for row in group.itertuples()
        }
        if len(kinds) > 1:
            faults.add(f"not comparable: {task} is {' in some, '.join(sorted(kinds))} in others")
    faults.check()


@dataclass(frozen=True)
class Marks:
    """best: (suite, backbone, method, setup, score) of what is bold. caption: how that was decided, lines."""

    best: set[tuple[str, ...]] = field(default_factory=set)
    caption: list[str] = field(default_factory=list)


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
    rows = scored(frame)[lambda rows: rows.primary.eq(True) & (rows.control == "none")]
    best, alike, faults, alone, kinds, family = set(), [], [], set(), set(), []
    several = len(rows[["suite", "backbone"]].drop_duplicates()) > 1
    for place, section in rows.groupby(["suite", "backbone"], sort=False):
        methods = dict(list(section.groupby(["method", "setup"], sort=False)))
        if len(methods) < 2:
            continue
        where = f"{' on '.join(place)}: " if several else ""
        try:
            check_comparable(section)
        except UserError as error:
            faults += [f"nothing is marked: {where}{fault}" for fault in error.faults]
            continue
        means, drawn, found = _columns(methods, section, folders, seed)
        faults += [f"only seeds are tested where examples cannot be: {where}{fault}" for fault in found]
        pairs, p_values = [], []
        for column, by_method in means.items():
            top = max(by_method, key=lambda key, of=by_method: of[key].mean())
            for other in (key for key in by_method if key != top):
                over_seeds = seed_test(by_method[top], by_method[other])
                over_examples = np.nan
                if column in drawn:
                    difference = by_method[top].mean() - by_method[other].mean()
                    over_examples = _bootstrap(difference, drawn[column][top] - drawn[column][other]).p
                kinds |= {over_seeds.kind} | ({"bootstrap"} if column in drawn else set())
                alone |= {"examples"} if over_seeds.kind == "n = 1" and column in drawn else set()
                pairs.append((column, other))
                p_values.append(both(over_examples, over_seeds.p))
        worse = {pair for pair, p in zip(pairs, holm(p_values), strict=True) if p <= LEVEL}
        family.append(len(pairs))
        for column, by_method in means.items():
            left = [key for key in by_method if (column, key) not in worse]
            if len(by_method) - len(left) >= len(by_method) // 2:
                best |= {(*place, *key, column) for key in left}
        if not any(mark[:2] == place for mark in best):
            alike.append(" on ".join(place))
    return Marks(best, _caption(bool(best), kinds, "examples" in alone, family, alike, several) + faults)


def _columns(
    methods: dict[Hashable, pd.DataFrame], section: pd.DataFrame, folders: Folders, seed: int
) -> tuple[dict[str, dict], dict[str, dict], list[str]]:
    """Column → method → scores by seed; column → method → means of resampled examples, where to be had; faults."""
    tasks = list(dict.fromkeys(section.task))
    draws = max(DRAWS, 100 * len(methods) * (len(tasks) + 1))  # the least possible p-value must survive Holm
    means, drawn, faults = {}, {}, []
    for task in tasks:
        of = {key: rows[rows.task == task] for key, rows in methods.items()}
        of = {key: rows for key, rows in of.items() if len(rows)}
        means[task] = {key: rows.set_index("seed").value for key, rows in of.items()}
        try:
            scores = example_scores(section[section.task == task], folders)
        except Untested as error:
            faults += error.faults
            continue
        values = np.stack([scores[rows.id].mean(axis=1).to_numpy() for rows in of.values()])
        drawn[task] = dict(zip(of, resampled_means(values, draws, [seed, *task.encode()]).T, strict=True))
    averages = {key: rows.drop_duplicates("id").set_index("seed").average.dropna() for key, rows in methods.items()}
    means["average"] = {key: values for key, values in averages.items() if len(values)}
    if all(key in drawn.get(task, ()) for task in tasks for key in means["average"]):
        drawn["average"] = {key: np.mean([drawn[task][key] for task in tasks], axis=0) for key in means["average"]}
    return means, drawn, faults


def _caption(
    any_bold: bool, kinds: set[str], one_seed: bool, family: list[int], alike: list[str], several: bool
) -> list[str]:
    if not family:
        return []
    names = {"bootstrap": "a paired bootstrap over examples", "Welch": "Welch's t-test over seeds"}
    tests = [name for kind, name in names.items() if kind in kinds]
    if not tests:
        return ["nothing is bold: n = 1 and no predictions, so nothing can be tested"]
    how = tests[0] if len(tests) == 1 else f"the larger p of {' and '.join(tests)}"
    counts = " or ".join(dict.fromkeys(map(str, family)))
    level = f"{how}, 5 % after Holm's correction over the {counts} comparisons of {'a' if several else 'the'} table"
    lines = []
    if any_bold:
        lines.append(
            f"bold: not significantly worse than the best of the column ({level}), where at least half of its methods, "
            "rounded down, are"
        )
    if alike and (several or not any_bold):
        where = f" in {', '.join(alike)}" if several else ""
        how = "" if any_bold else f" ({level})"
        lines.append(f"nothing is bold{where}: fewer than half of a column's methods are significantly worse{how}")
    if one_seed:
        lines.append("n = 1: only examples are tested; another seed may turn the order")
    return lines


# two methods ----------------------------------------------------------------------------------------------------------


def compare(a: pd.DataFrame, b: pd.DataFrame, folders: Folders, seed: int = 0) -> tuple[pd.DataFrame, list[str]]:
    """Two methods (rows of `results.store.to_frame`: one method's or trial's each) on the tasks both have.

    Gives a row per task and for the average, and lines on what could not be tested. Columns: task, metric, a, `a std`,
    `a n` and so for b, difference (a − b), low, high (95 % over examples), `seeds low`, `seeds high` (95 % over seeds),
    `p examples`, `p seeds`, seeds (kind of test), p (`both`), `p holm` (over the rows), d, `d low`, `d high`, better,
    equal, worse (`Effect`). Raises UserError where the two are not comparable or have no task in common.
    """
    a, b = (scored(rows)[lambda rows: rows.primary.eq(True)] for rows in (a, b))
    tasks = [task for task in dict.fromkeys(a.task) if task in set(b.task)]
    if not tasks:
        raise UserError(
            f"no task in common: A has {', '.join(dict.fromkeys(a.task)) or 'no scores'}, "
            f"B has {', '.join(dict.fromkeys(b.task)) or 'no scores'}"
        )
    check_comparable(pd.concat([a, b])[lambda rows: rows.task.isin(tasks)])
    rows, lines, drawn = [], [], []
    for task in tasks:
        of = [part[part.task == task] for part in (a, b)]
        row = {"task": task, "metric": of[0].metric.iloc[0]} | _sides(*(part.set_index("seed").value for part in of))
        try:
            scores = example_scores(pd.concat(of).drop_duplicates("id"), folders)
            one, other = (scores[part.id].to_numpy().T for part in of)
            key = [seed, *task.encode()]
            drawn.append(resampled_means(one.mean(axis=0) - other.mean(axis=0), seed=key)[:, 0])
            row |= _over_examples(row, drawn[-1])
            found = effect(one, other, seed=key)
            row |= {"d": found.d, "d low": found.low, "d high": found.high}
            row |= {"better": found.better, "equal": found.equal, "worse": found.worse}
        except Untested as error:
            lines += [f"examples cannot be tested: {fault}" for fault in error.faults]
        rows.append(row)
    if len(tasks) > 1:
        sides = [part[part.task.isin(tasks)].groupby("seed").value.mean() for part in (a, b)]
        row = {"task": "average", "metric": ""} | _sides(*sides)
        rows.append(row | (_over_examples(row, np.mean(drawn, axis=0)) if len(drawn) == len(tasks) else {}))
    table = pd.DataFrame(rows, columns=COMPARED)
    table["p"] = [both(*ps) for ps in zip(table["p examples"], table["p seeds"], strict=True)]
    table["p holm"] = holm(table.p)
    return table, lines


COMPARED = [
    "task", "metric", "a", "a std", "a n", "b", "b std", "b n", "difference", "low", "high", "seeds low", "seeds high",
    "p examples", "p seeds", "seeds", "p", "p holm", "d", "d low", "d high", "better", "equal", "worse",
]  # fmt: skip


def _sides(a: pd.Series, b: pd.Series) -> dict[str, float | str]:
    test = seed_test(a, b)
    sides = {"a": a.mean(), "a std": a.std(ddof=1), "a n": len(a), "b": b.mean(), "b std": b.std(ddof=1), "b n": len(b)}
    tested = {"seeds low": test.low, "seeds high": test.high, "p seeds": test.p, "seeds": test.kind}
    return sides | {"difference": test.difference} | tested


def _over_examples(row: dict, drawn: np.ndarray) -> dict[str, float]:
    test = _bootstrap(row["difference"], drawn)
    return {"low": test.low, "high": test.high, "p examples": test.p}


def pairs(a: pd.DataFrame, b: pd.DataFrame) -> list[tuple[str, str, str]]:
    """(seed, id of a, id of b) of the trials that can be set side by side: those of a seed, or the only two."""
    a, b = (rows.drop_duplicates("id").set_index("seed").id for rows in (scored(a), scored(b)))
    common = [seed for seed in a.index if seed in b.index]
    if not common and len(a) == len(b) == 1:
        return [(f"{a.index[0]} and {b.index[0]}", a.iloc[0], b.iloc[0])]
    return [(str(seed), a[seed], b[seed]) for seed in common]


def right_and_wrong(a: pd.DataFrame, b: pd.DataFrame, folders: Folders) -> pd.DataFrame:
    """`mcnemar` of each task whose scores are all 0 or 100, by seed: seeds answer the same examples, so that their
    counts must not be added up. Columns: task, seed, both, `only a`, `only b`, neither, p."""
    rows = []
    known = pd.concat([scored(a), scored(b)])[lambda rows: rows.primary.eq(True)]
    metrics = dict(zip(zip(known.id, known.task, strict=True), known.metric, strict=True))
    for task in dict.fromkeys(scored(a).task):
        for seed, *ids in pairs(a, b):
            if any((id, task) not in metrics for id in ids):
                continue
            try:
                one, other = (predictions(id, task, metrics[id, task], folders).score for id in ids)
            except Untested:
                continue
            if set(one.index) == set(other.index) and one.isin([0, 100]).all() and other.isin([0, 100]).all():
                rows.append({"task": task, "seed": seed} | mcnemar(one, other[one.index]))
    return pd.DataFrame(rows, columns=["task", "seed", "both", "only a", "only b", "neither", "p"])


def disagreements(a: pd.DataFrame, b: pd.DataFrame, folders: Folders, task: str, count: int = 5) -> pd.DataFrame:
    """The `count` examples of a task on which a is better by most, and those on which b is: means over seeds.

    Columns: id, a and b (what they answered, the commonest first, `red ×2, blue`), `a score`, `b score`.
    """
    sides = []
    for rows in (scored(a), scored(b)):
        rows = rows[rows.primary.eq(True)]
        if task not in set(rows.task):
            raise unknown("task", task, set(rows.task))
        found = [predictions(row.id, task, row.metric, folders) for row in rows[rows.task == task].itertuples()]
        if any(set(one.index) != set(found[0].index) for one in found):
            raise UserError(f"{task}: the trials' predictions are not for the same examples")
        scores = pd.concat([one.score for one in found], axis=1).mean(axis=1)
        texts = pd.concat([one.prediction for one in found], axis=1).loc[scores.index]
        sides.append((scores, texts.apply(_answers, axis=1)))
    (one, answers), (other, others) = sides
    if set(one.index) != set(other.index):
        raise UserError(f"{task}: the trials' predictions are not for the same examples")
    difference = (one - other[one.index]).sort_values(kind="stable")
    ids = [*difference[difference > ZERO].index[::-1][:count], *difference[difference < -ZERO].index[:count]]
    rows = {"id": ids, "a": answers[ids].values, "a score": one[ids].values}
    return pd.DataFrame(rows | {"b": others[ids].values, "b score": other[ids].values})


def _answers(texts: pd.Series) -> str:
    return ", ".join(f"{text} ×{n}" if n > 1 else text for text, n in Counter(texts).most_common())
