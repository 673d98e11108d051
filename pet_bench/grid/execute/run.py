"""Run the trials of a grid that have no finished result, on Ray Tune or in this process.

The result files alone say what is finished. What schedules keeps no state of its own: a grid that is killed at any
moment, or started twice at once, continues with what is missing.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console

from pet_bench.errors import Faults, UserError
from pet_bench.files import write_text
from pet_bench.grid.claim import StopFlag, Taken, claim, taken
from pet_bench.grid.execute.attempt import (
    ENDED,
    Ended,
    Event,
    Job,
    Note,
    Retried,
    Started,
    attempt,
    check,
    is_finished,
    refuse,
)
from pet_bench.grid.execute.loggers import check_trackers
from pet_bench.grid.execute.process import cores, start_seconds
from pet_bench.grid.execute.progress import Display
from pet_bench.grid.execute.supervise import Cluster, run_on_ray
from pet_bench.grid.plan.estimate import costs
from pet_bench.grid.plan.search import check_executor, stopped
from pet_bench.grid.plan.spec import Grid, Resources, load
from pet_bench.results import store
from pet_bench.results.provenance import now
from pet_bench.results.schema import Point, Progress, Run, TrialResult
from pet_bench.spec import Runtime, TrialSpec

if TYPE_CHECKING:
    from pet_bench.trial.shared import Shared

Executor = Literal["ray", "inline"]


@dataclass(frozen=True)
class Outcome:
    """Trial ids by what became of them.

    skipped: had finished results before. elsewhere: another process runs them. stopped: left when the run was asked to
    stop, begun ones with a checkpoint.
    """

    done: tuple[str, ...] = ()
    suspect: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    early: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    stopped: tuple[str, ...] = ()
    interrupted: bool = False


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
    cluster = cluster or Cluster()
    if not again:
        check_executor(grid, executor)
    check_trackers(cluster.log)
    resources = check_place(grid.resources, runtime, executor, cluster)
    trials = grid.trials() if trials is None else trials
    runtime = _absolute(runtime, grid.resources)
    store.check_writable(runtime.out)
    results = store.load_all(runtime.out)
    whole(grid, runtime.out)
    finished = set() if again else store.finished(runtime.out, also=grid.also_finished)
    if runtime.missing_features == "refuse":  # what lacks examples is made again, with all of them
        finished -= {id for id, result in results.items() if result.dropped}
    skipped = tuple(trial.id for trial in trials if trial.id in finished)
    console = console or Console()
    missing = [trial for trial in trials if trial.id not in finished]
    weights = costs(missing, results.values())
    display = Display(console, runtime.out, total=len(trials), finished=len(skipped), weights=weights)
    if len(skipped) == len(trials):
        display.close()
        return Outcome(skipped=skipped)

    ordered = _in_order(missing, grid.resources, weights)
    earlier = {id: result.provenance.finished for id, result in results.items() if result.status in ENDED}
    jobs = [Job(spec, _parts(spec, results.get(spec.id), runtime), earlier.get(spec.id)) for spec in ordered]
    stop = StopFlag.of(runtime.out)
    course = _Course(grid, runtime, jobs, display, console)
    if executor == "ray":
        search = None if again else grid.search  # what is asked for again runs to its end
        on_ray = replace(grid, resources=resources, search=search)

    try:
        with course:
            if executor == "inline":
                shared, jobs = _check(jobs, runtime, stop, course)
            with _stopping(stop, course):
                while jobs and not stop.is_up and not course.storage:
                    if executor == "ray":
                        run_on_ray(on_ray, jobs, runtime, stop, cluster, course)
                    else:
                        _run_inline(jobs, runtime, stop, shared, course)
                    jobs = course.next_jobs()
        interrupted = stop.is_up
    finally:
        stop.take_down()
    if course.storage:
        raise _unwritable(runtime.out, course.storage)
    return course.outcome(skipped, interrupted)


def whole(grid: Grid, out: Path) -> Grid:
    """The grid of all that was ever run into the folder; raises UserError where it cannot take this one too."""
    return load(out).joined(grid) if (out / "grid.yaml").is_file() else grid


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unwritable(out, error.strerror or str(error)) from error


def _unwritable(out: Path, reason: str) -> UserError:
    kept = len(store.scan(out)[0])
    whole = f"the {kept} results in it are whole"
    return UserError(f'results folder "{out}": {reason}; {whole}; mend that and run the same command again')


def _absolute(runtime: Runtime, resources: Resources) -> Runtime:
    """Paths and plug-ins as a worker in another folder finds them; torch threads of one trial's share."""
    return replace(
        runtime,
        out=runtime.out.absolute(),
        data=runtime.data and runtime.data.absolute(),
        threads=runtime.threads or max(1, int(resources.cpus)),
        plugins=tuple(str(Path(p).absolute()) if p.endswith(".py") else p for p in runtime.plugins),
    )


def _in_order(trials: list[TrialSpec], resources: Resources, weights: dict[str, float]) -> list[TrialSpec]:
    match resources.order:
        case "seed":
            return sorted(trials, key=lambda trial: trial.seed)
        case "cheapest":
            return sorted(trials, key=lambda trial: weights[trial.id])
    return trials


def _parts(spec: TrialSpec, before: TrialResult | None, runtime: Runtime) -> int:
    """Parts of a batch: as told, or twice as many as those with which the trial ran out of memory."""
    if before is not None and before.status == "oom":
        return max(runtime.accumulation, _doubled(before.run.accumulation, spec))
    return runtime.accumulation


def _doubled(parts: int, spec: TrialSpec) -> int:
    return min(2 * parts, spec.recipe.batch_size)


def check_place(
    resources: Resources, runtime: Runtime, executor: Executor = "ray", cluster: Cluster | None = None
) -> Resources:
    """The resources with defaults filled in.

    Raises UserError where this machine, or the cluster named, has no such device, no room for one trial or no Ray.
    """
    cluster, faults = cluster or Cluster(), Faults()
    if executor == "ray":
        with faults:
            start_seconds()
    if executor == "ray" and cluster.address is not None:  # its nodes' devices are known when it is joined
        with faults:
            cluster.check()
        if runtime.device not in ("auto", "cpu", "cuda"):
            faults.add(f'device "{runtime.device}" cannot be used on a Ray cluster (possible: auto, cpu, cuda)')
    else:
        with faults:
            resources = _here(resources, runtime, executor)
    faults.check()
    return resources


def _here(resources: Resources, runtime: Runtime, executor: Executor) -> Resources:
    """The resources of a trial on this machine; raises UserError where they are not there."""
    import torch

    from pet_bench.trial.device import find_device

    device = find_device(runtime.device)
    if executor == "inline":  # no more than one at a time, on the device
        return resources
    there = {"cpus": cores(), "gpus": torch.cuda.device_count() if device.index is None else 1}
    if resources.gpus is None:
        resources = replace(resources, gpus=float(device.type == "cuda"))
    faults = [
        f"resources: a trial asks for {asked:g} {kind}, this machine has {number}"
        for kind, number in there.items()
        if (asked := getattr(resources, kind)) > number
    ]
    if runtime.device.startswith("cuda") and not resources.gpus:
        faults.append(f'resources: device "{runtime.device}" needs a GPU, a trial asks for 0 gpus')
    if faults:
        raise UserError.many(faults)
    return resources


def at_a_time(resources: Resources) -> int:
    """How many trials with these resources run side by side on this machine."""
    import torch

    fitting = int(cores() / resources.cpus)
    if resources.gpus:
        fitting = min(fitting, int(torch.cuda.device_count() / resources.gpus))
    return max(1, min(fitting, resources.max_concurrent or fitting))


def _run_inline(jobs: list[Job], runtime: Runtime, stop: StopFlag, shared: Shared, course: _Course) -> None:
    for job in jobs:
        if not stop.is_up and not course.storage:
            course(Started(job.id))
            course(attempt(job, runtime, course, stop, lambda: shared))


def _check(jobs: list[Job], runtime: Runtime, stop: StopFlag, course: _Course) -> tuple[Shared, list[Job]]:
    """What the trials share, and those that can run; raises UserError for all that is wrong with the others' grid."""
    from pet_bench.trial.shared import Shared

    shared = Shared()
    specs = [job.spec for job in jobs]
    spoilt = check(specs, runtime, shared, lambda done, total: course(Progress("", "prepare", done, total)))
    return shared, refuse(jobs, spoilt, runtime, stop, course)


@contextmanager
def _stopping(stop: StopFlag, emit: Callable[[Event], None]) -> Iterator[None]:
    """Signals put the flag up; where it is up, or cannot be, they raise KeyboardInterrupt."""

    def handle(number, frame):
        if stop.is_up:
            raise KeyboardInterrupt
        try:
            stop.put_up()
        except OSError:
            raise KeyboardInterrupt from None
        emit(Note("stopping: running trials save a checkpoint (once more: stop at once)"))

    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # the terminal is gone
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class _Course:
    """What happens, as it happens: to the display, and onto disk what no worker could write."""

    grid: Grid
    runtime: Runtime
    jobs: list[Job]
    display: Display
    console: Console
    ends: dict[str, Ended] = field(default_factory=dict)
    results: dict[str, TrialResult] = field(default_factory=dict)
    curves: dict[str, list[Point]] = field(default_factory=dict)
    retried: set[str] = field(default_factory=set)
    storage: str = ""

    def __post_init__(self):
        self.begun, self.specs = now(), {job.id: job.spec for job in self.jobs}
        self.live, self.showing = ExitStack(), False

    def __enter__(self) -> _Course:
        self.reading = self.live.enter_context(self.console.status("checking designs and data, then starting"))
        return self

    def __exit__(self, *error) -> None:
        if not self.showing and error[0] is None:
            self._show()
        self.live.__exit__(*error)

    def _show(self) -> None:
        self.live.close()
        self.live.enter_context(self.display)
        self.showing = True

    def __call__(self, event: Event) -> None:
        if not self.showing and not (isinstance(event, Progress) and not event.id):
            self._show()
        match event:
            case Note(text):
                self.display.note(text)
            case Started(id):
                if not self.curves:  # everything was checked
                    self._keep_grid()
                self.curves[id] = []
                self.display.start(self.specs[id])
            case Progress(id=""):
                if not self.showing:
                    self.reading.update(f"packing features {event.step}/{event.total_steps}")
            case Progress():
                self.curves[event.id] += [Point(**point) for point in event.points]
                self.display.update(event)
            case Retried(id, reason):
                self.display.retry(self.specs[id], reason)
            case Ended():
                self._end(event)

    def _keep_grid(self) -> None:
        """Put a copy of the grid beside its results, unless another process is just about to."""
        out, name = self.runtime.out, "grid.yaml"
        with _writing(out), suppress(Taken), claim(out, name):
            for torn in out.glob(f".{name}.*"):  # of a process that was killed while it wrote
                torn.unlink()
            write_text(out / name, whole(self.grid, out).dump())

    def _end(self, ended: Ended) -> None:
        spec, out, run = self.specs[ended.id], self.runtime.out, Run(accumulation=self._job(ended.id).accumulation)
        if ended.how in ("result", "failed"):
            try:
                result = store.load(out / f"{ended.id}.json")
                if ended.how == "result" and ended.reason:
                    self.display.note(f"{spec}: {ended.reason}")
                if ended.how == "failed" and result.status not in ("failed", "oom"):
                    self.display.note(f"{spec}: its earlier result ({result.status}) is kept")
                    result = result.model_copy(update={"status": "failed", "error": ended.reason})
                self.results[ended.id] = result
            except UserError as error:  # its file is gone or was damaged
                ended = replace(ended, how="died", reason=f"the trial left no result: {error}")
        if ended.how == "died":
            status = "oom" if ended.reason.startswith("out of memory") else "failed"
            try:
                with _writing(out), claim(out, ended.id):
                    if is_finished(self._job(ended.id), out):  # it died with all work done
                        self.results[ended.id] = store.load(out / f"{ended.id}.json")
                    else:
                        self.results[ended.id] = store.save_failure(
                            spec, out, ended.reason, status=status, started=self.begun, run=run
                        )
            except Taken:  # by another grid run, which tries its own luck
                ended = replace(ended, how="elsewhere")
        if ended.how == "early":
            result = self.results[ended.id] = stopped(spec, self.curves[ended.id], self.begun, run)
            with _writing(out):
                store.save(result, out)
                (out / ended.id / store.CHECKPOINT).unlink(missing_ok=True)
        if ended.how == "storage":
            self.storage = ended.reason
        self.ends[ended.id] = ended
        if ended.id in self.results:
            self.display.finish(spec, self.results[ended.id])
        else:
            self.display.leave(spec, ended.how)

    def _job(self, id: str) -> Job:
        return next(job for job in reversed(self.jobs) if job.id == id)

    def next_jobs(self) -> list[Job]:
        """What is worth another pass: once, what ran out of memory, in twice as many parts; what others let go."""
        jobs, reasons = [], {}
        for id, ended in self.ends.items():
            job, result = self._job(id), self.results.get(id)
            if ended.how == "elsewhere" and not taken(self.runtime.out, id):
                if is_finished(job, self.runtime.out):
                    self._end(Ended(id, "result"))
                else:
                    jobs.append(job)
                    reasons[id] = "another process let it go"
            elif result is not None and result.status == "oom" and id not in self.retried:
                parts = _doubled(job.accumulation, job.spec)
                if parts > job.accumulation:
                    self.retried.add(id)
                    jobs.append(replace(job, accumulation=parts))
                    reasons[id] = f"out of memory: batches in {parts} parts"
        for job in jobs:
            del self.ends[job.id]
            self.results.pop(job.id, None)
            self.display.retry(job.spec, reasons[job.id])
        self.jobs += jobs
        return jobs

    def outcome(self, skipped: tuple[str, ...], interrupted: bool) -> Outcome:
        def those(*statuses: str) -> tuple[str, ...]:
            return tuple(id for id in self.specs if id in self.results and self.results[id].status in statuses)

        elsewhere = tuple(id for id, ended in self.ends.items() if ended.how == "elsewhere")
        left = tuple(id for id in self.specs if id not in self.results and id not in elsewhere)
        return Outcome(
            those("done"), those("suspect"), those("failed", "oom"), those("stopped_early"), skipped, elsewhere, left,
            interrupted,
        )  # fmt: skip
