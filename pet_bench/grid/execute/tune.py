"""The tries of a tuned grid (`plan.tuning`), before its own trials."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pet_bench.grid.execute.course import Outcome
from pet_bench.grid.plan.search import ranking
from pet_bench.grid.plan.spec import Grid
from pet_bench.grid.plan.tuning import FOLDER, choose, searching, stages
from pet_bench.results import store
from pet_bench.spec import Runtime, TrialSpec

Run = Callable[[Grid, Runtime, list[TrialSpec]], Outcome]


def tune(grid: Grid, runtime: Runtime, run: Run, trials: Sequence[TrialSpec]) -> tuple[Grid, Outcome | None]:
    """The grid with what was chosen for the methods of `trials`, once their tries have run; or how those stopped.

    runtime: of the grid's own trials; the tries are in a folder in theirs. run: as `run_grid`, whose results are kept,
    so that the same call goes on where it was interrupted. What was chosen before, in the grid, is not tried again.
    Raises UserError as `searching` and `choose` do.
    """
    assert grid.tuning is not None
    here = replace(runtime, out=runtime.out / FOLDER)
    wanted = {(trial.backbone, trial.suite, trial.method.name) for trial in trials}
    groups = {one.group.uncontrolled for one in grid.plan().planned if _place(one.trial) in wanted}
    groups = {group for group in groups if not grid.tuning.values(group)}
    for search in stages(grid) if groups else ():
        tries = searching(grid, search)
        planned = [one for one in tries.plan().planned if one.group in groups]
        outcome = run(tries, here, [one.trial for one in planned])
        if outcome.interrupted or outcome.elsewhere:
            return grid, outcome
        tried = {one.group for one in planned}
        ranked = ranking(tries, store.load_all(here.out))
        grid = choose(grid, {group: candidates for group, candidates in ranked.items() if group in tried})
    return grid, None


def _place(trial: TrialSpec) -> tuple[str, str, str]:
    return trial.backbone, trial.suite, trial.method.name
