"""Trials on Ray Tune, in a process of its own: this one, started and watched by `pet_bench.grid.execute.supervise`.

Ray ends the process that uses it when its head dies. That must not be the process the user talks to. Jobs come in as
JSON on standard input, events go out as lines of JSON; standard input stays open as long as the parent lives.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import psutil

from pet_bench.errors import UserError
from pet_bench.grid.execute.attempt import check, refuse
from pet_bench.grid.execute.events import Event, Job, Note
from pet_bench.grid.execute.process import HEAD_GONE, INSTEAD, cores, kill_session
from pet_bench.grid.execute.stop import StopFlag
from pet_bench.grid.plan.spec import Grid, Resources, parse
from pet_bench.registry import load_plugin
from pet_bench.results import store
from pet_bench.results.schema import Progress
from pet_bench.spec import Runtime, plain_runtime, validate

if TYPE_CHECKING:
    from pet_bench.trial.shared import Shared

ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_RESULT_BUFFER_LENGTH": "0",  # each report is seen at once
    "RAY_timeout_ms_task_wait_for_death_info": "30000",  # long enough to tell a node that died from a worker that did
}
CARRIED = ("PET_BENCH_CACHE",)  # to workers on other nodes, which have the environment of their node


def main() -> None:
    order = json.loads(sys.stdin.readline())
    events = os.fdopen(order["events"], "w", encoding="utf-8")
    threading.Thread(target=_die_with_parent, args=(order["folder"],), daemon=True).start()
    try:
        schedule(order, lambda event: _send(events, event), lambda: _write(events, {"event": "Ready"}))
    except UserError as error:
        _write(events, {"event": "Faults", "faults": error.faults})
    _write(events, {"event": "Over"})
    events.close()


def _send(events: TextIO, event: Event) -> None:
    _write(events, {"event": type(event).__name__} | asdict(event))


def _write(events: TextIO, message: dict[str, Any]) -> None:
    events.write(json.dumps(message) + "\n")
    events.flush()


def _die_with_parent(folder: str) -> None:
    while sys.stdin.read(1):
        pass
    shutil.rmtree(folder, ignore_errors=True)  # the parent's, which was killed
    kill_session(os.getpid())


def schedule(order: dict[str, Any], emit: Callable[[Event], None], ready: Callable[[], None]) -> None:
    """Check designs and data, start or join Ray and run the jobs; raises UserError before anything is trained.

    What else it raises before `ready` is called is no fault of Ray's.
    """
    runtime = validate(Runtime, order["runtime"], "runtime")
    for plugin in runtime.plugins:
        load_plugin(plugin)
    grid = parse(order["grid"])
    jobs, shared = _checked([Job.from_dict(job) for job in order["jobs"]], runtime, StopFlag(Path(order["stop"])), emit)
    os.environ.update(ENVIRONMENT | {"OMP_NUM_THREADS": str(runtime.threads)})
    import ray

    address = order["address"]
    ready()
    try:
        with _away(Path(order["folder"])):
            _join(address, dashboard=order["dashboard"], threads=runtime.threads)
        grid = replace(grid, resources=_placed(grid.resources, runtime, own=address is None))
        _tune(grid, jobs, runtime, shared, order, emit)
    finally:
        ending.set()
        ray.shutdown()


def _checked(
    jobs: list[Job], runtime: Runtime, stop: StopFlag, emit: Callable[[Event], None]
) -> tuple[list[Job], Shared]:
    """The jobs that can run, and what they share; raises UserError for all that is wrong with the others."""
    from pet_bench.trial.shared import Shared

    shared = Shared(most=len(jobs))
    specs = [job.spec for job in jobs]
    spoilt = check(specs, runtime, shared, lambda done, total: emit(Progress("", "prepare", done, total)))
    return refuse(jobs, spoilt, runtime, stop, emit), shared


def _placed(resources: Resources, runtime: Runtime, *, own: bool) -> Resources:
    """A trial's resources on the nodes that there are; raises UserError where none has them or can run trials.

    own: whether Ray is this run's alone, and goes with its head.
    """
    from pet_bench.grid.execute import nodes

    resources = nodes.with_gpus(resources, runtime)
    places = nodes.fitting(resources)
    if own:
        threading.Thread(target=_die_with_head, daemon=True).start()
    else:
        nodes.check_nodes(places, runtime)
    # few at a time wait for a place, so that trials start in the order given; enough to fill a large cluster
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(max(2, sum(places.values()) // 4))
    return resources


@contextmanager
def _away(folder: Path) -> Iterator[None]:
    """Ray lets its workers import from the working folder of whoever starts it: an empty one."""
    before, empty = Path.cwd(), folder / "empty"
    empty.mkdir()
    os.chdir(empty)
    try:
        yield
    finally:
        os.chdir(before)


def _join(address: str | None, *, dashboard: bool, threads: int | None) -> None:
    """Start Ray on this machine, where the parent tries again what fails, or join a cluster; raises UserError."""
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address is None:
            ray.init(address="local", num_cpus=cores(), include_dashboard=dashboard, **quiet)
        else:
            variables = ENVIRONMENT | {"OMP_NUM_THREADS": str(threads)}
            variables |= {name: os.environ[name] for name in CARRIED if name in os.environ}
            ray.init(address=address, runtime_env={"env_vars": variables}, **quiet)
    except Exception as error:
        said = next(iter(str(error).strip().splitlines()), repr(error))
        if address is None and isinstance(error, ConnectionError | TimeoutError | RuntimeError):
            sys.exit(f"it cannot be started: {said}")
        if address is None:  # of its folder, or of what it was told
            raise UserError(f"Ray cannot be started, {INSTEAD}: {said}") from error
        raise UserError(f"the Ray cluster at {address} cannot be joined: {said}") from error
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the parent decides; Ray has just set its own


def _die_with_head() -> None:
    """Ray needs a minute to notice, or never does, that a process of its head was killed."""
    head = [p for p in psutil.Process().children(recursive=True) if p.name() in ("gcs_server", "raylet")]
    names = {process.pid: process.name() for process in head}

    def gone(process: psutil.Process) -> None:
        if ending.is_set():
            return
        code = getattr(process, "returncode", None)  # which psutil sets
        if code in (None, -signal.SIGKILL, -signal.SIGTERM):
            os._exit(HEAD_GONE)
        print(f"its {names[process.pid]} failed ({code})", file=sys.stderr, flush=True)
        os._exit(1)

    psutil.wait_procs(head, callback=gone)


ending = threading.Event()  # Ray is being shut down, its processes may go


def _tune(
    grid: Grid,
    jobs: list[Job],
    runtime: Runtime,
    shared: Shared,
    order: dict[str, Any],
    emit: Callable[[Event], None],
) -> None:
    """Run the jobs to their ends; raises UserError where no worker starts."""
    import ray
    from ray import tune

    from pet_bench.grid.execute.asha import asha
    from pet_bench.grid.execute.loggers import callbacks
    from pet_bench.grid.execute.watch import Halt, Watch
    from pet_bench.grid.execute.worker import trainable

    resources, folder, own = grid.resources, Path(order["folder"]), order["address"] is None
    scheduler = asha(grid, store.scan(runtime.out)[0].values())
    watch = Watch(scheduler, emit)
    halt = Halt(watch, StopFlag(Path(order["stop"])), folder if own else None)
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # failures are shown by the display
    refs = {key: ray.put(value) for key, value in shared.kept.items()}
    shared.kept.clear()
    space = {
        "runtime": plain_runtime(runtime), "stop": order["stop"], "folder": str(Path.cwd()) if own else None,
        "job": tune.grid_search([job.to_dict() for job in jobs]),
    }  # fmt: skip
    tune.Tuner(
        tune.with_resources(trainable(refs), {"cpu": resources.cpus, "gpu": resources.gpus or 0}),
        param_space=space,
        tune_config=tune.TuneConfig(
            max_concurrent_trials=resources.max_concurrent, reuse_actors=resources.reuse_workers,
            trial_dirname_creator=lambda trial: trial.trial_id, scheduler=scheduler, metric=None,
        ),
        run_config=tune.RunConfig(
            storage_path=str(folder / "trials"), name="grid", verbose=0, stop=halt,
            failure_config=tune.FailureConfig(max_failures=resources.retries),
            callbacks=[watch, *callbacks(order["log"], runtime.out, grid.name, lambda line: emit(Note(line)))],
        ),
    ).fit()  # fmt: skip
    watch.close()
    if halt.fault:
        raise UserError(halt.fault)


if __name__ == "__main__":
    main()
