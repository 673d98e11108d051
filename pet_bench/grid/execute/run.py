"""Run the trials of a grid that have no finished result, on Ray Tune or in this process.

The result files alone say what is finished. What schedules keeps no state of its own: a grid that is killed at any
moment, or started twice at once, continues with what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from pet_bench.grid.execute.attempt import ENDED, attempt, check, refuse
from pet_bench.grid.execute.course import Course, Outcome, Screen, doubled, whole
from pet_bench.grid.execute.early import check_executor
from pet_bench.grid.execute.events import Job, Note, Started
from pet_bench.grid.execute.loggers import Followed, callbacks, check_trackers
from pet_bench.grid.execute.place import Executor, check_place
from pet_bench.grid.execute.progress import Display
from pet_bench.grid.execute.stop import StopFlag, stopping
from pet_bench.grid.execute.storage import unwritable
from pet_bench.grid.execute.supervise import Cluster, run_on_ray
from pet_bench.grid.plan.costs import costs
from pet_bench.grid.plan.spec import Grid, Resources
from pet_bench.registry import FILES
from pet_bench.results import store
from pet_bench.results.schema import Progress, TrialResult
from pet_bench.spec import Runtime, TrialSpec

if TYPE_CHECKING:
    from pet_bench.trial.shared import Shared


def run_grid(
    grid: Grid,
    runtime: Runtime,
    executor: Executor = "ray",
    *,
    trials: list[TrialSpec] | None = None,
    again: bool = False,
    cluster: Cluster | None = None,
    console: Console | None = None,
) -> Outcome:
    """Run what is missing and return what became of each trial.

    trials: those to consider (default: all of the grid). again: run them whether they have a result or not. Faults of
    the grid, the results folder, the designs and the data raise UserError before anything is trained, and so does
    storage that fails in the middle. A trial that raises leaves a `failed` (or `oom`) result and its traceback in
    `<out>/<id>/traceback.txt`, and the others go on. What ran out of memory is tried once more at the end, with its
    batches in twice as many parts. A first SIGINT, SIGTERM or SIGHUP lets running trials save a checkpoint, a second
    raises KeyboardInterrupt.
    """
    cluster, console = cluster or Cluster(), console or Console()
    if not again:
        check_executor(grid, executor)
    check_trackers(cluster.log, executor)
    resources = check_place(grid.resources, runtime, executor, cluster)
    trials = grid.trials() if trials is None else trials
    runtime = _absolute(runtime, grid.resources)
    store.check_writable(runtime.out)
    results = store.load_all(runtime.out)
    whole(grid, runtime.out)
    finished = set() if again else _finished(grid, runtime, results)
    skipped = tuple(trial.id for trial in trials if trial.id in finished)
    missing = [trial for trial in trials if trial.id not in finished]
    weights = costs(missing, results.values())
    display = Display(console, runtime.out, total=len(trials), finished=len(skipped), weights=weights)
    if not missing:
        display.close()
        return Outcome(skipped=skipped)

    jobs = [_job(spec, results.get(spec.id), runtime) for spec in _in_order(missing, grid.resources, weights)]
    course = Course(grid, runtime.out, jobs, screen := Screen(display, console))
    passes: _OnRay | _Inline = _Inline(runtime, course, grid.name, cluster.log)
    if executor == "ray":
        search = None if again else grid.search  # what is asked for again runs to its end
        passes = _OnRay(replace(grid, resources=resources, search=search), runtime, cluster, course)
    with screen:
        interrupted = _run(jobs, passes, course)
    if course.storage:
        raise unwritable(runtime.out, course.storage)
    return course.outcome(skipped, interrupted)


def _run(jobs: list[Job], passes: _OnRay | _Inline, course: Course) -> bool:
    """Pass after pass, until nothing is left to be tried; whether the run was asked to stop."""
    stop = StopFlag.of(course.out)
    try:
        jobs = passes.check(jobs, stop)
        with stopping(stop, lambda line: course(Note(line))):
            while jobs and not stop.is_up and not course.storage:
                passes(jobs, stop)
                jobs = course.next_jobs()
        return stop.is_up
    finally:
        stop.take_down()


@dataclass
class _OnRay:
    grid: Grid
    runtime: Runtime
    cluster: Cluster
    course: Course

    def check(self, jobs: list[Job], stop: StopFlag) -> list[Job]:
        """The process that schedules them looks at them itself."""
        return jobs

    def __call__(self, jobs: list[Job], stop: StopFlag) -> None:
        run_on_ray(self.grid, jobs, self.runtime, stop, self.cluster, self.course)


@dataclass
class _Inline:
    """One after the other, in this process. shared: what they share, once they are checked."""

    runtime: Runtime
    course: Course
    name: str
    log: tuple[str, ...] = ()
    shared: Shared | None = None

    def check(self, jobs: list[Job], stop: StopFlag) -> list[Job]:
        """Those that can run; raises UserError for all that is wrong with the others' grid."""
        from pet_bench.trial.shared import Shared

        self.shared = Shared()
        specs = [job.spec for job in jobs]
        spoilt = check(specs, self.runtime, self.shared, self._packing)
        return refuse(jobs, spoilt, self.runtime, stop, self.course)

    def _packing(self, done: int, total: int) -> None:
        self.course(Progress("", "prepare", done, total))

    def __call__(self, jobs: list[Job], stop: StopFlag) -> None:
        trackers = callbacks(self.log, self.runtime.out, self.name, lambda line: self.course(Note(line)))
        followed = Followed(self.course, trackers, [job.spec for job in jobs])
        for job in jobs:
            if not stop.is_up and not self.course.storage:
                followed(Started(job.id))
                followed(attempt(job, self.runtime, followed, stop, lambda: self.shared))
        followed.over()


def _finished(grid: Grid, runtime: Runtime, results: Mapping[str, TrialResult]) -> set[str]:
    """Ids of the trials that need not run again: not those that lack examples which now are to be there."""
    finished = store.finished(runtime.out, also=grid.also_finished)
    if runtime.missing_features == "refuse":
        finished -= {id for id in finished if id in results and results[id].dropped}
    return finished


def _absolute(runtime: Runtime, resources: Resources) -> Runtime:
    """Paths and plug-ins as a worker in another folder finds them; torch threads of one trial's share."""
    return replace(
        runtime,
        out=runtime.out.absolute(),
        data=runtime.data and runtime.data.absolute(),
        threads=runtime.threads or max(1, int(resources.cpus)),
        ranks=max(runtime.ranks, int(resources.gpus or 1)),
        plugins=tuple(str(Path(p).absolute()) if p.endswith(FILES) else p for p in runtime.plugins),
    )


def _in_order(trials: list[TrialSpec], resources: Resources, weights: dict[str, float]) -> list[TrialSpec]:
    match resources.order:
        case "seed":
            return sorted(trials, key=lambda trial: trial.seed)
        case "cheapest":
            return sorted(trials, key=lambda trial: weights[trial.id])
    return trials


def _job(spec: TrialSpec, before: TrialResult | None, runtime: Runtime) -> Job:
    """Batches in as many parts as told, or in twice as many as those with which the trial ran out of memory."""
    parts = runtime.accumulation
    if before is not None and before.status == "oom":
        parts = max(parts, doubled(before.run.accumulation, spec))
    ended = before is not None and before.status in ENDED
    return Job(spec, parts, before.provenance.finished if before is not None and ended else None)
