"""What stops a search's trials early, for Ray Tune: ASHA, in each group and seed by itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, cast

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from pet_bench.grid.plan.planned import Group, Planned
from pet_bench.grid.plan.search import Validation, validations
from pet_bench.grid.plan.space import EarlyStopping
from pet_bench.grid.plan.spec import Grid
from pet_bench.results.schema import TrialResult
from pet_bench.spec import TrialSpec

Rivals = tuple[Group, int]  # trials that are compared: those of a group and a seed


def asha(grid: Grid, results: Iterable[TrialResult] = ()) -> Asha | None:
    """The scheduler, or None where the grid stops nothing early.

    results: of earlier runs of this search, which count as if they had run beside the others.
    """
    early = grid.search and grid.search.early_stopping
    if not early:
        return None
    scheduler = Asha(early, {one.trial.id: one for one in grid.plan().planned})
    for result in results:
        if result.id in scheduler.planned:
            for validation in validations(result.curve):
                scheduler.decide(result.id, validation)
    return scheduler


class Asha(FIFOScheduler):
    """It reads the reports that have "score" (larger is better) and "epoch"; a trial's config has its spec in "job".

    `stopped(id)` tells what it stopped. A trial at its last validation is never stopped.
    """

    def __init__(self, early: EarlyStopping, planned: dict[str, Planned]):
        super().__init__()
        self.planned = planned
        self.ended: set[str] = set()
        epochs: dict[Rivals, int] = defaultdict(int)
        for one in planned.values():
            rivals = one.group, one.trial.seed
            epochs[rivals] = max(epochs[rivals], one.trial.recipe.epochs)
        self.by_rivals = {
            rivals: ASHAScheduler(
                "epoch", "score", "max", max_t=last, grace_period=early.grace_epochs,
                reduction_factor=early.reduction, stop_last_trials=False,
            )
            for rivals, last in epochs.items()
        }  # fmt: skip

    def stopped(self, id: str) -> bool:
        return id in self.ended

    def on_trial_result(self, tune_controller, trial, result):
        if result.get("score") is None:
            return self.CONTINUE
        id = TrialSpec.from_dict(trial.config["job"]["spec"]).id
        if not self.decide(id, Validation(result["epoch"], result["score"])):
            return self.CONTINUE
        self.ended.add(id)
        return self.STOP

    def decide(self, id: str, validation: Validation) -> bool:
        """Whether the trial is to stop; what it has come to is taken down for its rivals."""
        one = self.planned[id]
        inner = self.by_rivals[one.group, one.trial.seed]
        trial = cast(Any, SimpleNamespace(trial_id=id))  # our id: the same in a second attempt and in a second run
        controller = cast(Any, None)  # which it does not look at
        inner.on_trial_add(controller, trial)
        decision = inner.on_trial_result(controller, trial, vars(validation))
        return decision == self.STOP and validation.epoch < one.trial.recipe.epochs
