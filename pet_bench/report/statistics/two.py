"""Two methods, or two trials: their differences, answers and largest disagreements."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from pet_bench.errors import UserError, unknown
from pet_bench.report.statistics.effects import effect, mcnemar
from pet_bench.report.statistics.examples import Folders, Untested, check_comparable, example_scores, predictions
from pet_bench.report.statistics.tests import ZERO, holm, joint_test, of_draws, resampled_means, seed_test, together
from pet_bench.report.summary import primary_scores, scored

COMPARED = [
    "task", "metric", "a", "a std", "a n", "b", "b std", "b n", "difference", "low", "high", "seeds low", "seeds high",
    "p examples", "p seeds", "p joint", "seeds", "p", "p holm", "d", "d low", "d high", "better", "equal", "worse",
]  # fmt: skip
Row = dict[str, Any]


def compare(a: pd.DataFrame, b: pd.DataFrame, folders: Folders, seed: int = 0) -> tuple[pd.DataFrame, list[str]]:
    """Two methods (rows of `results.store.to_frame`: one method's or trial's each) on the tasks both have.

    Gives a row per task and for the average, and lines on what could not be tested. Columns: task, metric, a, `a std`,
    `a n` and so for b, difference (a − b), low, high (95 % over examples), `seeds low`, `seeds high` (95 % over seeds),
    `p examples`, `p seeds`, `p joint` (over both at once), seeds (kind of test), p (`together`), `p holm` (over the
    rows), d, `d low`, `d high`, better, equal, worse (`Effect`). Raises UserError where the two are not comparable or
    have no task in common.
    """
    a, b = primary_scores(a), primary_scores(b)
    tasks = [task for task in dict.fromkeys(a.task) if task in set(b.task)]
    if not tasks:
        raise UserError(
            f"no task in common: A has {', '.join(dict.fromkeys(a.task)) or 'no scores'}, "
            f"B has {', '.join(dict.fromkeys(b.task)) or 'no scores'}"
        )
    sides = pd.concat([a, b])
    check_comparable(sides[sides.task.isin(tasks)])
    rows, lines = [], []
    drawn: list[np.ndarray] = []
    for task in tasks:
        one, other = (side[side.task == task] for side in (a, b))
        row: Row = {"task": task, "metric": one.metric.iloc[0]}
        scores, others = (side.set_index("seed").value for side in (one, other))
        try:
            size, means = _over_examples(one, other, folders, [seed, *task.encode()])
            rows.append(row | _tested(scores, others, means) | size)
            drawn.append(means)
        except Untested as error:
            lines += [f"examples cannot be tested: {fault}" for fault in error.faults]
            rows.append(row | _tested(scores, others, None))
    if len(tasks) > 1:
        scores, others = (side[side.task.isin(tasks)].groupby("seed").value.mean() for side in (a, b))
        draws = np.mean(drawn, axis=0) if len(drawn) == len(tasks) else None
        rows.append({"task": "average", "metric": ""} | _tested(scores, others, draws))
    table = pd.DataFrame(rows, columns=COMPARED)
    table["p holm"] = holm(table.p)
    return table, lines


def _tested(a: pd.Series, b: pd.Series, drawn: np.ndarray | None) -> Row:
    """Both sides over seeds, and what the tests say. drawn: the difference over resampled examples."""
    seeds = seed_test(a, b)
    row: Row = {
        "a": a.mean(),
        "a std": a.std(ddof=1),
        "a n": len(a),
        "b": b.mean(),
        "b std": b.std(ddof=1),
        "b n": len(b),
    }
    row |= {"difference": seeds.difference, "seeds low": seeds.low, "seeds high": seeds.high, "seeds": seeds.kind}
    row |= {"p seeds": seeds.p, "p": together(seeds, None)}
    if drawn is None:
        return row
    examples = of_draws(seeds.difference, drawn)
    row |= {"low": examples.low, "high": examples.high, "p examples": examples.p}
    return row | {"p joint": joint_test(seeds, examples).p, "p": together(seeds, examples)}


def _over_examples(a: pd.DataFrame, b: pd.DataFrame, folders: Folders, seed: list[int]) -> tuple[Row, np.ndarray]:
    """The effect's size over the examples of one task, and draws of the difference; raises as `example_scores`."""
    scores = example_scores(pd.concat([a, b]).drop_duplicates("id"), folders)
    one, other = (scores[side.id].to_numpy().T for side in (a, b))
    size = effect(one, other, seed=seed)
    row = {"d": size.d, "d low": size.low, "d high": size.high}
    row |= {"better": size.better, "equal": size.equal, "worse": size.worse}
    return row, resampled_means(one.mean(axis=0) - other.mean(axis=0), seed=seed)[:, 0]


def pairs(a: pd.DataFrame, b: pd.DataFrame) -> list[tuple[str, str, str]]:
    """(seed, id of a, id of b) of the trials that can be set side by side: those of a seed, or the only two."""
    one, other = (
        {str(row["seed"]): str(row["id"]) for row in scored(rows).drop_duplicates("id").to_dict("records")}
        for rows in (a, b)
    )
    common = sorted((seed for seed in one if seed in other), key=int)
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
