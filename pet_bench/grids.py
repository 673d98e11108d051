"""Grids from Python, as the command line has them:

grid = pet_bench.Grid.from_yaml("demo")
grid.run(executor="inline")       # what has no finished result yet
grid.status()                     # a row per trial: done, failed, running, missing, …
grid.table()                      # a row per method: means over seeds, and what it costs
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pet_bench.errors import UserError
from pet_bench.grid.plan import spec
from pet_bench.grid.plan.planned import Skipped
from pet_bench.registry import load_plugin
from pet_bench.spec import Runtime, TrialSpec, validate

if TYPE_CHECKING:
    import pandas as pd

    from pet_bench.grid.execute.course import Outcome
    from pet_bench.grid.execute.place import Executor


@dataclass(frozen=True)
class Grid:
    """A grid and where its results are. plan: what its file says. plugins: loose ones, which its workers load too.

    Every `out` is a results folder instead of `folder`. Whatever is wrong raises UserError, before anything expensive.
    """

    plan: spec.Grid
    folder: Path
    plugins: tuple[str, ...] = ()

    @classmethod
    def from_yaml(cls, source: str | Path, plugins: Iterable[str | Path] = ()) -> Grid:
        """The grid of a YAML file, of a shipped grid's name or of a results folder. plugins: files or modules."""
        names = tuple(map(str, plugins))
        for name in names:
            load_plugin(name)
        plan = spec.load(source)
        return cls(plan, spec.folder_of(plan, source), names)

    @property
    def trials(self) -> list[TrialSpec]:
        """Every trial, resolved."""
        return self.plan.trials()

    @property
    def skipped(self) -> list[Skipped]:
        """The pairs of method and backbone that the grid lists and cannot have, with the reasons."""
        return self.plan.skipped()

    def run(
        self, out: str | Path | None = None, *, executor: Executor = "ray", again: bool = False, **runtime: Any
    ) -> Outcome:
        """Run the trials that have no finished result, or with `again` all; trial ids by what became of them.

        Of a tuned grid the tries come first; interrupted there, what became of those.

        runtime: as `pet_bench.spec.Runtime` has them, data, device or accumulation say.
        """
        from pet_bench.grid.execute.run import run_grid
        from pet_bench.grid.execute.tune import tune

        own: dict[str, Any] = {"out": str(out or self.folder), "plugins": list(self.plugins)}
        given = {key: str(value) if isinstance(value, Path) else value for key, value in runtime.items()}
        where = validate(Runtime, own | given, "run")
        plan = spec.with_kept(self.plan, where.out) if self.plan.tuning else self.plan
        expanded = plan.plan(anew=True)
        for one in expanded.skipped:
            print(one)
        if plan.tuning:

            def run_tries(tries: spec.Grid, runtime: Runtime, trials: list[TrialSpec]) -> Outcome:
                return run_grid(tries, runtime, executor, trials=trials)

            plan, stopped = tune(plan, where, run_tries, expanded.trials)
            if stopped:
                return stopped
        return run_grid(plan, where, executor, trials=plan.trials(), again=again)

    def status(self, out: str | Path | None = None) -> pd.DataFrame:
        """A row per trial: id, status, suite, backbone, method, control, seed and a note."""
        import pandas as pd

        from pet_bench.grid.plan.status import status
        from pet_bench.results.store import base

        rows = [
            {"id": one.trial.id, "status": one.status, **base(one.trial.to_dict()), "note": one.note}
            for one in status(self.trials, Path(out or self.folder))
        ]
        return pd.DataFrame(rows).drop(columns="setup")

    def results(self, out: str | Path | None = None) -> pd.DataFrame:
        """A row per trial × task × metric of this grid, one for a trial without scores (`pet_bench.load_results`)."""
        from pet_bench.results import store

        folder, trials = Path(out or self.folder), self.trials
        there = store.load_all(folder)
        return store.to_frame(
            [there[one.id] for one in trials if one.id in there], [one for one in trials if one.id not in there]
        ).assign(folder=str(folder))

    def table(self, out: str | Path | None = None) -> pd.DataFrame:
        """A row per suite, backbone, method and control: each task's mean over seeds and its deviation, average, rank,
        parameters and numbers of trials (`pet_bench.report.summary.comparison`)."""
        from pet_bench.report.summary import comparison, scored

        frame = self.results(out)
        if scored(frame).empty:
            raise UserError(f'no trial of grid "{self.plan.name}" is finished in "{out or self.folder}": run it')
        return comparison(frame)
