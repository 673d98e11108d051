"""Run the trials of a grid that have no finished result, on Ray Tune or in this process.

The result files alone say what is finished. Ray Tune only schedules; its own state lives in a temporary
folder and is thrown away, so that a grid killed at any moment continues with what is missing.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from pet_bench.errors import UserError
from pet_bench.grid.progress import Display
from pet_bench.grid.spec import Grid, Resources
from pet_bench.registry import load_plugin
from pet_bench.results import store
from pet_bench.results.provenance import now
from pet_bench.results.schema import Progress, TrialResult
from pet_bench.spec import Runtime, TrialSpec, validate

Executor = Literal["ray", "inline"]
REPORT_SECONDS = 1.0  # between two progress reports of a worker: each wakes the scheduler


@dataclass(frozen=True)
class Outcome:
    """Trial ids by what became of them; `skipped` had finished results before."""

    done: tuple[str, ...]
    failed: tuple[str, ...]
    skipped: tuple[str, ...]


def run_grid(
    grid: Grid,
    runtime: Runtime,
    executor: Executor = "ray",
    *,
    trials: list[TrialSpec] | None = None,
    console: Console | None = None,
) -> Outcome:
    """Run what is missing and return what became of each trial.

    trials: those to consider (default: all of the grid). Faults of the grid, the results folder, the designs and the
    data raise UserError before anything is trained. A trial that raises leaves a `failed` (or `oom`) result
    and its traceback in `<out>/<id>/traceback.txt`, and the others go on. KeyboardInterrupt passes through.
    """
    trials = grid.trials() if trials is None else trials
    runtime = _absolute(runtime, grid.resources)
    store.check_writable(runtime.out)
    finished = store.finished(runtime.out)
    missing = [trial for trial in trials if trial.id not in finished]
    skipped = tuple(trial.id for trial in trials if trial.id in finished)
    console = console or Console()
    display = Display(console, runtime.out, total=len(trials), finished=len(skipped))
    if not missing:
        display.close()
        return Outcome((), (), skipped)

    resources = _fit(grid.resources, runtime) if executor == "ray" else grid.resources
    from pet_bench.trial.check import check_data, check_designs  # torch comes with them: not before the checks above

    check_designs(missing)
    with console.status("reading the data") as reading:
        check_data(missing, runtime, lambda done, total: reading.update(f"packing features {done}/{total}"))
    store.write_text(runtime.out / "grid.yaml", grid.dump())
    run = _run_ray if executor == "ray" else _run_inline
    with display:
        results = run(missing, runtime, resources, display)
    done = tuple(id for id, result in results.items() if result.status == "done")
    return Outcome(done, tuple(id for id in results if id not in done), skipped)


def attempt(spec: TrialSpec, runtime: Runtime, on_progress: Callable[[Progress], None]) -> TrialResult:
    """Run one trial; what it raises becomes a result, except an interrupt."""
    started = now()
    try:
        from pet_bench.trial.run import run_trial

        return run_trial(spec, runtime, on_progress)
    except Exception as error:
        store.write_text(runtime.out / spec.id / "traceback.txt", traceback.format_exc())
        status = "oom" if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ else "failed"
        message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        return store.save_failure(spec, runtime.out, message, status=status, started=started)


def _absolute(runtime: Runtime, resources: Resources) -> Runtime:
    """Paths and plug-ins as a worker in another folder finds them; torch threads of one trial's share."""
    return replace(
        runtime,
        out=runtime.out.absolute(),
        data=runtime.data and runtime.data.absolute(),
        threads=runtime.threads or max(1, int(resources.cpus)),
        plugins=tuple(str(Path(p).absolute()) if p.endswith(".py") else p for p in runtime.plugins),
    )


def _run_inline(missing, runtime: Runtime, resources: Resources, display: Display) -> dict[str, TrialResult]:
    results = {}
    for spec in missing:
        display.start(spec)
        results[spec.id] = attempt(spec, runtime, display.update)
        display.finish(spec, results[spec.id])
    return results


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _fit(resources: Resources, runtime: Runtime) -> Resources:
    """The resources with defaults filled in; raises UserError where one trial would not fit this machine."""
    gpus = resources.gpus
    if gpus is None:
        import torch

        gpus = float(runtime.device != "cpu" and torch.cuda.is_available())
    if resources.cpus > _cores():
        raise UserError(f"resources: a trial asks for {resources.cpus:g} cpus, this machine has {_cores()}")
    return replace(resources, gpus=gpus)


def _run_ray(missing, runtime: Runtime, resources: Resources, display: Display) -> dict[str, TrialResult]:
    environment = {
        "OMP_NUM_THREADS": str(runtime.threads),  # more threads than cores slow every trial by an order of magnitude
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # an interrupt reaches us as KeyboardInterrupt
        "TUNE_MAX_PENDING_TRIALS_PG": str(2 * _cores()),
    }
    with _environ(environment), tempfile.TemporaryDirectory(prefix="pet-bench-") as scratch:
        import ray
        from ray import tune

        callback = _callback({spec.id: spec for spec in missing}, runtime, display)
        own = not ray.is_initialized()
        try:
            if own:
                ray.init(
                    address=os.environ.get("RAY_ADDRESS", "local"),
                    **({} if "RAY_ADDRESS" in os.environ else {"num_cpus": _cores()}),
                    include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR,
                )  # fmt: skip
            plain = {
                "runtime": _plain(runtime),
                "spec": tune.grid_search([spec.to_dict() for spec in missing]),
            }
            for name in ("ray.tune", "ray.train"):
                logging.getLogger(name).setLevel(logging.CRITICAL)  # failures are shown by the display
            tune.Tuner(
                tune.with_resources(_worker, {"cpu": resources.cpus, "gpu": resources.gpus}),
                param_space=plain,
                tune_config=tune.TuneConfig(
                    max_concurrent_trials=resources.max_concurrent, reuse_actors=True,
                    trial_dirname_creator=lambda trial: trial.trial_id,
                ),
                run_config=tune.RunConfig(storage_path=scratch, name="grid", verbose=0, callbacks=[callback]),
            ).fit()  # fmt: skip
        finally:
            if own:
                ray.shutdown()
    return callback.results


def _worker(config: dict[str, Any]) -> None:
    """One trial in a Ray worker: everything arrives as names and plain data, plug-ins are loaded here."""
    from ray import tune

    runtime = validate(Runtime, config["runtime"], "runtime")
    for plugin in runtime.plugins:
        load_plugin(plugin)
    spec = TrialSpec.from_dict(config["spec"])
    last = [0.0]

    def report(progress: Progress) -> None:
        if time.monotonic() - last[0] >= REPORT_SECONDS:
            last[0] = time.monotonic()
            tune.report({"progress": asdict(progress)})

    attempt(spec, runtime, report)


def _plain(runtime: Runtime) -> dict[str, Any]:
    return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(runtime).items()}


def _callback(specs: dict[str, TrialSpec], runtime: Runtime, display: Display):
    """Tune's events to our display. The result is what the worker wrote; a worker that died wrote none."""
    from ray.tune import Callback

    class Watch(Callback):
        def __init__(self):
            self.results: dict[str, TrialResult] = {}
            self.begun = now()

        def __reduce__(self):  # Tune saves its callbacks; nobody reads that, and a terminal cannot be saved
            return Callback, ()

        def on_trial_start(self, iteration, trials, trial, **info):
            display.start(self._spec(trial))

        def on_trial_result(self, iteration, trials, trial, result, **info):
            if "progress" in result:
                display.update(Progress(**result["progress"]))

        def on_trial_complete(self, iteration, trials, trial, **info):
            self._end(self._spec(trial), "the worker left no result")

        def on_trial_error(self, iteration, trials, trial, **info):
            self._end(self._spec(trial), "the worker process died: killed, perhaps for want of memory")

        def _spec(self, trial) -> TrialSpec:
            return specs[TrialSpec.from_dict(trial.config["spec"]).id]

        def _end(self, spec: TrialSpec, reason: str) -> None:
            try:
                result = store.load(runtime.out / f"{spec.id}.json")
                fresh = result.status == "done" or result.provenance.started >= self.begun
            except UserError:
                fresh = False
            if not fresh:
                result = store.save_failure(spec, runtime.out, reason, started=self.begun)
            self.results[spec.id] = result
            display.finish(spec, result)

    return Watch()


@contextmanager
def _environ(values: dict[str, str]) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})
