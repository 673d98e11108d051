"""One attempt at a trial in this process, and what became of it."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pet_bench.errors import PluginError, Stop, UserError
from pet_bench.files import write_text
from pet_bench.grid.claim import Taken, claim
from pet_bench.grid.execute.events import Ended, Event, Job, Started
from pet_bench.grid.execute.stop import StopFlag
from pet_bench.grid.execute.storage import storage_fault
from pet_bench.results import store
from pet_bench.results.provenance import now
from pet_bench.results.schema import Progress, Run, Status
from pet_bench.spec import Runtime, TrialSpec

if TYPE_CHECKING:
    from pet_bench.trial.check import Spoilt
    from pet_bench.trial.shared import Shared

ENDED: tuple[Status, ...] = ("done", "suspect", "stopped_early")
POLL_SECONDS = 0.5  # between two looks at the stop flag


def attempt(
    job: Job,
    runtime: Runtime,
    on_progress: Callable[[Progress], None],
    stop: StopFlag,
    shared: Callable[[], Shared | None] = lambda: None,
) -> Ended:
    """Run one trial; what it raises becomes a result, except an interrupt.

    Nothing runs where another process holds the trial or has finished it meanwhile; `shared` is called only where the
    trial is to run. An error of the trial's leaves a `failed` or `oom` result and `<out>/<id>/traceback.txt`.
    """
    try:
        if stop.is_up:
            return Ended(job.id, "stopped")
        with claim(runtime.out, job.id):
            if is_finished(job, runtime.out):
                return Ended(job.id, "result")
            return _run(job, runtime, _Watch(on_progress, stop), shared)
    except Taken:
        return Ended(job.id, "elsewhere")
    except Exception as error:
        if reason := storage_fault(error, runtime.out) or (
            isinstance(error, OSError) and (error.strerror or str(error))
        ):
            return Ended(job.id, "storage", reason)  # an OSError here is of our own locks and records
        raise


class _Watch:
    """A trial's progress, passed on while nobody asks it to stop. told: how Ray ends a trial, if it did."""

    def __init__(self, on_progress: Callable[[Progress], None], stop: StopFlag):
        self.on_progress, self.stop, self.looked = on_progress, stop, 0.0
        self.told: SystemExit | None = None

    def __call__(self, progress: Progress) -> None:
        if time.monotonic() - self.looked >= POLL_SECONDS:
            self.looked = time.monotonic()
            if self.stop.is_up:
                raise Stop
        try:
            self.on_progress(progress)
        except SystemExit as error:
            self.told = error
            raise


def _run(job: Job, runtime: Runtime, watch: _Watch, shared: Callable[[], Shared | None]) -> Ended:
    """As `attempt`, of a trial that this process holds; lets what is the storage's fault and not the trial's pass."""
    note = _set_aside(runtime.out, job.id)
    store.sweep(runtime.out, job.id)
    started = now()
    try:
        from pet_bench.trial.run import run_trial

        run_trial(job.spec, replace(runtime, accumulation=job.accumulation), watch, shared())
    except Stop:
        return Ended(job.id, "stopped")
    except (Exception, SystemExit) as error:  # a plug-in's sys.exit, else
        if error is watch.told or storage_fault(error, runtime.out):
            raise
        return Ended(job.id, "failed", _record(job, runtime, error, started))
    return Ended(job.id, "result", note)


def is_finished(job: Job, out: Path) -> bool:
    """Whether the trial has a whole result that is not to be made again."""
    path = out / f"{job.id}.json"
    try:
        result = store.load(path) if path.exists() else None
    except UserError:
        return False
    return result is not None and result.status in ENDED and result.provenance.finished != job.replaces


def _set_aside(out: Path, id: str) -> str:
    """Move a result that came to be unreadable since the grid was started out of the way; what is to be said of it."""
    path = out / f"{id}.json"
    try:
        if path.exists():
            store.load(path)
    except UserError:
        path.replace(path.with_suffix(".json.unreadable"))
        return f'its result was unreadable and is now "{id}.json.unreadable": the trial ran again'
    return ""


def check(
    specs: list[TrialSpec], runtime: Runtime, shared: Shared, progress: Callable[[int, int], None]
) -> dict[str, PluginError]:
    """By id, the trials that cannot run because a plug-in's own code fails, and why; the others can.

    Raises UserError for all that is wrong with designs, data and backbones, and where no trial is left.
    """
    from pet_bench.trial.check import check_backbones, check_data, check_designs

    def check_methods(specs: list[TrialSpec]) -> None:
        if runtime.ranks > 1:
            from pet_bench.trial.divided import check_divided

            check_divided(specs, runtime)

    spoilt: dict[str, PluginError] = {}
    for look in (
        check_designs,
        check_methods,
        lambda specs: check_backbones(specs, shared, "pixels"),  # before their pictures are packed, which takes longer
        lambda specs: check_data(specs, runtime, progress, shared),
        lambda specs: check_backbones(specs, shared, "features"),
    ):
        try:
            look([spec for spec in specs if spec.id not in spoilt])
        except PluginError as error:
            spoilt |= cast("Spoilt", error).trials
    if len(spoilt) == len(specs):
        raise UserError.many(spoilt.values())
    return spoilt


def refuse(
    jobs: list[Job],
    spoilt: dict[str, PluginError],
    runtime: Runtime,
    stop: StopFlag,
    emit: Callable[[Event], None],
) -> list[Job]:
    """Let the trials that cannot run fail, each an attempt that ends before it begins; gives the others."""

    def fail(error: PluginError) -> None:
        raise error

    for job in jobs:
        if job.id in spoilt:
            emit(Started(job.id))
            emit(attempt(job, runtime, emit, stop, partial(fail, spoilt[job.id])))
    return [job for job in jobs if job.id not in spoilt]


def _record(job: Job, runtime: Runtime, error: BaseException, started: str) -> str:
    """Write the failure down; returns the reason."""
    import torch

    from pet_bench.trial.memory import is_out_of_memory, peak_memory

    write_text(runtime.out / job.id / "traceback.txt", traceback.format_exc())
    status: Status = "oom" if is_out_of_memory(error) else "failed"
    message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    name = ("cuda" if torch.cuda.is_available() else "cpu") if runtime.device == "auto" else runtime.device
    peak = peak_memory(torch.device(name))
    if status == "oom":
        message = f"out of memory at a peak of {peak / 2**30:.1f} GiB: {message}"
    run = Run(accumulation=job.accumulation, peak_memory_bytes=peak)
    result = store.save_failure(job.spec, runtime.out, message, status=status, started=started, run=run)
    return result.error or message
