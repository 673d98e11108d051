"""A search under way and afterwards: which trials are stopped early, and what is best by validation.

Nothing here reads a test score.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pet_bench.errors import UserError
from pet_bench.grid.plan.planned import Group
from pet_bench.grid.plan.space import Values, options_of, recipe_of
from pet_bench.grid.plan.spec import Grid, parse
from pet_bench.registry import TASKS
from pet_bench.results.schema import Point, TrialResult
from pet_bench.spec import TrialSpec


@dataclass(frozen=True)
class Validation:
    """score: mean over tasks of the primary metric on their validation splits, negated where less is better."""

    epoch: float
    score: float


def validations(points: Iterable[Point]) -> list[Validation]:
    """The validations of a learning curve, in its order."""
    scores = defaultdict(list)
    for point in points:
        if point.split == "valid" and point.task and point.metrics:
            primary = next(iter(point.metrics.values()))
            scores[point.epoch].append(primary if TASKS.get(point.task).higher_is_better else -primary)
    return [Validation(epoch, sum(values) / len(values)) for epoch, values in scores.items()]


def validation(result: TrialResult) -> Validation | None:
    """That of the model which was tested; of a trial that did not get so far, its last."""
    if result.selected:
        return Validation(result.selected.epoch, result.selected.score)
    if tested_on_validation(result):
        primary = {task: next(iter(scores.values())).value for task, scores in result.metrics.items()}
        signed = [value if TASKS.get(task).higher_is_better else -value for task, value in primary.items()]
        return Validation(result.spec["recipe"]["epochs"], sum(signed) / len(signed))
    return next(reversed(validations(result.curve)), None)


def tested_on_validation(result: TrialResult) -> bool:
    """Whether it is of a search without tests (`space.Search.test`)."""
    from pet_bench.data.reading import build_tasks  # which imports torch

    spec = TrialSpec.from_dict(result.spec)
    return bool(result.metrics) and all(task.test == task.valid for task in build_tasks(spec.tasks, spec.protocol))


# choosing -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Candidate:
    """What a search tried in a group: its values, a trial per seed of the search, and what has become of those."""

    group: Group
    values: Values
    trials: tuple[TrialSpec, ...]
    results: tuple[TrialResult | None, ...]

    @property
    def label(self) -> str:
        return self.trials[0].label

    @property
    def finished(self) -> bool:
        """Whether every trial trained to its end and has scores: only then can it be the best."""
        scored = (result and result.status in ("done", "suspect") and result.metrics for result in self.results)
        return all(scored) and self.validation is not None

    @property
    def validation(self) -> Validation | None:
        """Means over the seeds that have one."""
        known = [one for result in self.results if result and (one := validation(result))]
        if not known or not all(math.isfinite(one.score) for one in known):
            return None
        n = len(known)
        return Validation(sum(one.epoch for one in known) / n, sum(one.score for one in known) / n)

    @property
    def status(self) -> str:
        """`done`, or `2 done, 1 missing` of several seeds."""
        counts = Counter(result.status if result else "missing" for result in self.results)
        return ", ".join(name if len(self.trials) == 1 else f"{count} {name}" for name, count in counts.items())

    @property
    def n(self) -> int:
        """Trials that the mean is over."""
        return sum(bool(result and validation(result)) for result in self.results)

    @property
    def errors(self) -> list[str]:
        return [result.error for result in self.results if result and result.error]

    def rank(self) -> tuple[float, ...]:
        """Sorts the best first; then those that did not finish, the longest trained first."""
        last = self.validation or Validation(-math.inf, -math.inf)
        return (0, -last.score) if self.finished else (1, -last.epoch, -last.score)


def ranking(grid: Grid, results: Mapping[str, TrialResult]) -> dict[Group, list[Candidate]]:
    """By group, all that the search tries, the best by validation first; the first in the space's order wins a tie.

    results: by trial id. Raises UserError for a grid that searches nothing.
    """
    if grid.search is None:
        raise UserError(f'grid "{grid.name}" has no search: there is nothing to choose from')
    trials: dict[Group, dict[str, tuple[Values, list[TrialSpec]]]] = defaultdict(dict)
    for planned in grid.plan().planned:
        trials[planned.group].setdefault(repr(planned.values), (planned.values, []))[1].append(planned.trial)
    return {
        group: sorted(
            (
                Candidate(group, values, tuple(specs), tuple(results.get(spec.id) for spec in specs))
                for values, specs in tried.values()
            ),
            key=Candidate.rank,
        )
        for group, tried in trials.items()
    }


def best_grid(grid: Grid, folder: Path, ranked: Mapping[Group, list[Candidate]]) -> Grid:
    """The grid of the final runs: the search's winners, with the grid's own seeds, in a folder beside `folder`.

    Raises UserError where a group has no winner yet.
    """
    without = [group for group, candidates in ranked.items() if not candidates[0].finished]
    if without:
        raise UserError.many(f'no trial of {group} is finished in "{folder}"' for group in without)
    data = {key: value for key, value in grid.to_dict().items() if key != "search"}
    data["name"], data["out"] = f"{grid.name}-best", f"{folder}-best"
    for group, (winner, *_) in ranked.items():
        changes = {"recipe": recipe_of(winner.values), "options": options_of(winner.values)}
        if winner.values:
            data["overrides"].append({"when": vars(group), **{key: part for key, part in changes.items() if part}})
    return parse(data, data["name"])
