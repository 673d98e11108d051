"""Two methods, or two trials: their differences, answers and largest disagreements."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from pet_bench.errors import UserError, unknown
from pet_bench.report.statistics.effects import effect, mcnemar
from pet_bench.report.statistics.examples import Folders, Untested, check_comparable, example_scores, predictions
from pet_bench.report.statistics.tests import ZERO, both, holm, of_draws, resampled_means, seed_test
from pet_bench.report.summary import primary_scores, scored

COMPARED = [
    "task", "metric", "a", "a std", "a n", "b", "b std", "b n", "difference", "low", "high", "seeds low", "seeds high",
    "p examples", "p seeds", "seeds", "p", "p holm", "d", "d low", "d high", "better", "equal", "worse",
]  # fmt: skip
Row = dict[str, Any]


def compare(a: pd.DataFrame, b: pd.DataFrame, folders: Folders, seed: int = 0) -> tuple[pd.DataFrame, list[str]]:
    """Two methods (rows of `results.store.to_frame`: one method's or trial's each) on the tasks both have.

    Gives a row per task and for the average, and lines on what could not be tested. Columns: task, metric, a, `a std`,
    `a n` and so for b, difference (a − b), low, high (95 % over examples), `seeds low`, `seeds high` (95 % over seeds),
    `p examples`, `p seeds`, seeds (kind of test), p (`both`), `p holm` (over the rows), d, `d low`, `d high`, better,
    equal, worse (`Effect`). Raises UserError where the two are not comparable or have no task in common.
    """
    a, b = primary_scores(a), primary_scores(b)
    tasks = [task for task in dict.fromkeys(a.task) if task in set(b.task)]
    if not tasks:
        raise UserError(
            f"no task in common: A has {', '.join(dict.fromkeys(a.task)) or 'no scores'}, "
            f"B has {', '.join(dict.fromkeys(b.task)) or 'no scores'}"
        )
    together = pd.concat([a, b])
    check_comparable(together[together.task.isin(tasks)])
    rows, lines, drawn = [], [], []
    for task in tasks:
        one, other = (side[side.task == task] for side in (a, b))
        row: Row = {"task": task, "metric": one.metric.iloc[0]}
        row |= _over_seeds(one.set_index("seed").value, other.set_index("seed").value)
        try:
            tested, draws = _over_examples(row["difference"], one, other, folders, [seed, *task.encode()])
            row |= tested
            drawn.append(draws)
        except Untested as error:
            lines += [f"examples cannot be tested: {fault}" for fault in error.faults]
        rows.append(row)
    if len(tasks) > 1:
        means = [side[side.task.isin(tasks)].groupby("seed").value.mean() for side in (a, b)]
        row = _over_seeds(*means) | {"task": "average", "metric": ""}
        rows.append(row | (_of_draws(row["difference"], np.mean(drawn, axis=0)) if len(drawn) == len(tasks) else {}))
    table = pd.DataFrame(rows, columns=COMPARED)
    table["p"] = [both(*ps) for ps in zip(table["p examples"], table["p seeds"], strict=True)]
    table["p holm"] = holm(table.p)
    return table, lines


def _over_seeds(a: pd.Series, b: pd.Series) -> Row:
    test = seed_test(a, b)
    sides = {"a": a.mean(), "a std": a.std(ddof=1), "a n": len(a), "b": b.mean(), "b std": b.std(ddof=1), "b n": len(b)}
    tested = {"seeds low": test.low, "seeds high": test.high, "p seeds": test.p, "seeds": test.kind}
    return sides | {"difference": test.difference} | tested


def _over_examples(
    difference: float, a: pd.DataFrame, b: pd.DataFrame, folders: Folders, seed: list[int]
) -> tuple[Row, np.ndarray]:
    """What examples say of one task, and the draws of the difference; raises as `example_scores`."""
    scores = example_scores(pd.concat([a, b]).drop_duplicates("id"), folders)
    one, other = (scores[side.id].to_numpy().T for side in (a, b))
    drawn = resampled_means(one.mean(axis=0) - other.mean(axis=0), seed=seed)[:, 0]
    size = effect(one, other, seed=seed)
    row = _of_draws(difference, drawn) | {"d": size.d, "d low": size.low, "d high": size.high}
    return row | {"better": size.better, "equal": size.equal, "worse": size.worse}, drawn


def _of_draws(difference: float, drawn: np.ndarray) -> Row:
    test = of_draws(difference, drawn)
    return {"low": test.low, "high": test.high, "p examples": test.p}


def pairs(a: pd.DataFrame, b: pd.DataFrame) -> list[tuple[str, str, str]]:
    """(seed, id of a, id of b) of the trials that can be set side by side: those of a seed, or the only two."""
    one, other = (
        {str(row["seed"]): str(row["id"]) for row in scored(rows).drop_duplicates("id").to_dict("records")}
        for rows in (a, b)
    )
    common = [seed for seed in one if seed in other]
    if not common and len(one) == len(other) == 1:
        (first, id), (second, other_id) = *one.items(), *other.items()
        return [(f"{first} and {second}", id, other_id)]
    return [(seed, one[seed], other[seed]) for seed in common]


def right_and_wrong(a: pd.DataFrame, b: pd.DataFrame, folders: Folders) -> pd.DataFrame:
    """`mcnemar` of each task whose scores are all 0 or 100, by seed: seeds answer the same examples, so that their
    counts must not be added up. Columns: task, seed, both, `only a`, `only b`, neither, p."""
    rows = []
    known = primary_scores(pd.concat([a, b]))
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
                counts = mcnemar(one.to_numpy(), other[one.index].to_numpy())
                rows.append({"task": task, "seed": seed} | counts)
    return pd.DataFrame(rows, columns=["task", "seed", "both", "only a", "only b", "neither", "p"])


def disagreements(a: pd.DataFrame, b: pd.DataFrame, folders: Folders, task: str, count: int = 5) -> pd.DataFrame:
    """The `count` examples of a task on which a is better by most, and those on which b is: means over seeds.

    Columns: id, a and b (what they answered, the commonest first, `red ×2, blue`), `a score`, `b score`.
    """
    (one, answers), (other, others) = (_answered(primary_scores(rows), folders, task) for rows in (a, b))
    if set(one.index) != set(other.index):
        raise UserError(f"{task}: the trials' predictions are not for the same examples")
    difference = (one - other[one.index]).sort_values(kind="stable")
    ids = [*difference[difference > ZERO].index[::-1][:count], *difference[difference < -ZERO].index[:count]]
    sides = {"a": answers[ids].array, "a score": one[ids].array, "b": others[ids].array, "b score": other[ids].array}
    return pd.DataFrame({"id": ids, **sides})


def _answered(rows: pd.DataFrame, folders: Folders, task: str) -> tuple[pd.Series, pd.Series]:
    """By example the mean score of some trials, and what they answered."""
    if task not in set(rows.task):
        raise unknown("task", task, set(rows.task))
    trials = rows[rows.task == task].to_dict("records")
    answered = [predictions(row["id"], task, row["metric"], folders) for row in trials]
    if any(set(one.index) != set(answered[0].index) for one in answered):
        raise UserError(f"{task}: the trials' predictions are not for the same examples")
    scores = pd.concat([one.score for one in answered], axis=1).mean(axis=1)
    texts = pd.concat([one.prediction for one in answered], axis=1).loc[scores.index]
    return scores, texts.apply(_commonest, axis=1)


def _commonest(texts: pd.Series) -> str:
    return ", ".join(f"{text} ×{n}" if n > 1 else text for text, n in Counter(texts).most_common())
