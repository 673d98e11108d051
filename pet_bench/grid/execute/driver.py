"""Trials on Ray Tune, in a process of its own: this one, started and watched by `pet_bench.grid.execute.supervise`.

Ray ends the process that uses it when its head dies. That must not be the process the user talks to. Jobs come in as
JSON on standard input, events go out as lines of JSON; standard input stays open as long as the parent lives.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TextIO

import psutil

from pet_bench.errors import UserError
from pet_bench.grid.claim import StopFlag
from pet_bench.grid.execute.attempt import Ended, Event, Job, Note, Retried, Started, attempt, check, refuse
from pet_bench.grid.execute.process import HEAD_GONE, INSTEAD, cores, kill_session, last_words, start_seconds
from pet_bench.grid.plan.spec import Grid, Resources, parse
from pet_bench.registry import load_plugin
from pet_bench.results import store
from pet_bench.results.schema import Progress
from pet_bench.spec import Runtime, TrialSpec, plain_runtime, validate

REPORT_SECONDS = 1.0  # between two progress reports of a worker: each wakes the scheduler

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
    jobs = [Job.from_dict(job) for job in order["jobs"]]
    specs = [job.spec for job in jobs]

    from pet_bench.trial.shared import Shared

    shared = Shared(most=len(specs))
    spoilt = check(specs, runtime, shared, lambda done, total: emit(Progress("", "prepare", done, total)))
    jobs = refuse(jobs, spoilt, runtime, StopFlag(Path(order["stop"])), emit)
    os.environ.update(ENVIRONMENT | {"OMP_NUM_THREADS": str(runtime.threads)})
    import ray

    address = order["address"]
    ready()
    try:
        with _away(Path(order["folder"])):
            _join(address, dashboard=order["dashboard"], threads=runtime.threads)
        resources = _with_gpus(grid.resources, runtime)
        nodes = _fitting(resources)
        if address is None:
            threading.Thread(target=_die_with_head, daemon=True).start()
        else:
            _check_nodes(nodes, runtime)
        # few at a time wait for a place, so that trials start in the order given; enough to fill a large cluster
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(max(2, sum(nodes.values()) // 4))
        _tune(replace(grid, resources=resources), jobs, runtime, shared, order, emit)
    finally:
        ray.shutdown()


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

    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
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


def _with_gpus(resources: Resources, runtime: Runtime) -> Resources:
    """By default a trial gets a GPU where there are any, on whichever node."""
    import ray

    if resources.gpus is not None:
        return resources
    return replace(resources, gpus=float(runtime.device != "cpu" and ray.cluster_resources().get("GPU", 0) > 0))


def _fitting(resources: Resources) -> dict[str, int]:
    """How many trials fit each node, by its id, where one does; raises UserError where it fits none."""
    import ray

    need = {"CPU": resources.cpus, "GPU": resources.gpus or 0}
    there = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    fit = {
        id: min(int(has.get(kind, 0) / amount) for kind, amount in need.items() if amount) for id, has in there.items()
    }
    if not any(fit.values()):
        most = ", ".join(f"{max(has.get(kind, 0) for has in there.values()):g} {kind.lower()}s" for kind in need)
        asked = f"{need['CPU']:g} cpus and {need['GPU']:g} gpus"
        raise UserError(f"resources: a trial asks for {asked}, no node has that (most: {most})")
    return {id: count for id, count in fit.items() if count}


def _die_with_head() -> None:
    """Ray needs a minute to notice, or never does, that a process of its head was killed."""
    head = [p for p in psutil.Process().children(recursive=True) if p.name() in ("gcs_server", "raylet")]
    names = {process.pid: process.name() for process in head}

    def gone(process: psutil.Process) -> None:
        if ending.is_set():
            return
        if process.returncode in (None, -signal.SIGKILL, -signal.SIGTERM):
            os._exit(HEAD_GONE)
        print(f"its {names[process.pid]} failed ({process.returncode})", file=sys.stderr, flush=True)
        os._exit(1)

    psutil.wait_procs(head, callback=gone)


ending = threading.Event()  # Ray is being shut down, its processes may go


def _check_nodes(nodes: Iterable[str], runtime: Runtime) -> None:
    """Raises UserError for nodes that do not see the results folder or run another pet-bench."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    import pet_bench

    @ray.remote(num_cpus=0, max_retries=0)
    def look(path: str) -> tuple[bool, str]:
        import pet_bench

        return Path(path).exists(), pet_bench.__version__

    faults, names = [], {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
    with tempfile.NamedTemporaryFile(dir=runtime.out, prefix=".shared-") as probe:
        there = {id: NodeAffinitySchedulingStrategy(id, soft=False) for id in nodes}
        answers = {id: look.options(scheduling_strategy=on).remote(probe.name) for id, on in there.items()}
        for id, answer in answers.items():
            name = names[id]
            try:
                sees, version = ray.get(answer, timeout=start_seconds())
            except Exception as error:
                faults.append(f"node {name} cannot run pet-bench: {str(error).strip().splitlines()[-1]}")
                continue
            if not sees:
                faults.append(f'node {name} does not see the results folder "{runtime.out}": it must be shared')
            if version != pet_bench.__version__:
                faults.append(f"node {name} has pet-bench {version}, this one is {pet_bench.__version__}")
    if faults:
        raise UserError.many(faults)


def _tune(grid: Grid, jobs, runtime: Runtime, shared, order: dict[str, Any], emit) -> None:
    import ray
    from ray import tune

    from pet_bench.grid.execute.loggers import callbacks
    from pet_bench.grid.plan.search import asha

    resources, stop = grid.resources, StopFlag(Path(order["stop"]))
    folder, own = Path(order["folder"]), order["address"] is None
    specs = {job.id: job.spec for job in jobs}
    scheduler = asha(grid, store.scan(runtime.out)[0].values())
    watch = _watch(specs, stop, scheduler, emit, folder if own else None)
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # failures are shown by the display
    refs = {key: ray.put(value) for key, value in shared.kept.items()}
    shared.kept.clear()
    space = {
        "runtime": plain_runtime(runtime),
        "stop": str(stop.path),
        "folder": str(Path.cwd()) if own else None,
        "job": tune.grid_search([job.to_dict() for job in jobs]),
    }
    tune.Tuner(
        tune.with_resources(_with(refs), {"cpu": resources.cpus, "gpu": resources.gpus or 0}),
        param_space=space,
        tune_config=tune.TuneConfig(
            max_concurrent_trials=resources.max_concurrent, reuse_actors=resources.reuse_workers,
            trial_dirname_creator=lambda trial: trial.trial_id, scheduler=scheduler, metric=None,
        ),
        run_config=tune.RunConfig(
            storage_path=str(folder / "trials"), name="grid", verbose=0, stop=watch.stopper,
            failure_config=tune.FailureConfig(max_failures=resources.retries),
            callbacks=[watch, *callbacks(order["log"], runtime.out, grid.name, lambda line: emit(Note(line)))],
        ),
    ).fit()  # fmt: skip
    ending.set()
    watch.close()
    if watch.stopper.fault:
        raise UserError(watch.stopper.fault)


def _with(refs: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """The trainable, with references to what is read once a node: a worker fetches what its trial needs."""

    def trial(config: dict[str, Any]) -> None:
        _worker(config, refs)

    return trial


def _worker(config: dict[str, Any], refs: dict[str, Any]) -> None:
    """One job in a Ray worker: everything arrives as names and plain data, plug-ins are loaded here."""
    from ray import tune

    if config["folder"]:  # relative paths, as of a backbone, mean what they mean in the command
        os.chdir(config["folder"])
    runtime = validate(Runtime, config["runtime"], "runtime")
    job = Job.from_dict(config["job"])
    try:
        for plugin in runtime.plugins:
            load_plugin(plugin)
    except UserError as error:  # again would be the same
        tune.report({"ended": asdict(Ended(job.id, "died", f"node {platform.node()}: {error}"))})
        return
    last = [0.0]
    if not runtime.out.is_dir():  # a node that came late
        reason = f"node {platform.node()} does not see it: it must be shared"
        tune.report({"ended": asdict(Ended(job.id, "storage", reason))})
        return

    def report(progress: Progress) -> None:
        if progress.score is not None:  # a search decides by it
            tune.report({"progress": asdict(progress), "epoch": progress.epoch, "score": progress.score})
        elif time.monotonic() - last[0] >= REPORT_SECONDS:
            last[0] = time.monotonic()
            tune.report({"progress": asdict(progress)})

    ended = attempt(job, runtime, report, StopFlag(Path(config["stop"])), lambda: _shared(refs))
    tune.report({"ended": asdict(ended)})


def _shared(refs: dict[str, Any]):
    """What this process keeps between trials, where it runs several."""
    import ray

    from pet_bench.trial.shared import Shared

    if not kept:
        kept.append(Shared())
    kept[0].get = lambda key: ray.get(refs[key])
    return kept[0]


kept: list[Any] = []


def _watch(
    specs: dict[str, TrialSpec], stop: StopFlag, scheduler, emit: Callable[[Event], None], own: Path | None = None
):
    """Tune's events as ours. own: the folder of a Ray whose workers have no others to wait for."""
    from ray import tune

    class Halt(tune.Stopper):
        """Ends the run: at once where results cannot be written or no worker starts, or when those running at the stop
        flag are done."""

        at_once = False
        fault = ""

        def __call__(self, trial_id, result):
            return False

        def stop_all(self):
            if own and not watch.running and time.monotonic() - watch.idle_since > start_seconds():
                self.fault = none_started(own)
            if self.at_once or self.fault:
                return True
            if watch.leaving is None and stop.is_up:
                watch.leaving = set(watch.running)
            return watch.leaving is not None and not watch.leaving & watch.running

    class Watch(tune.Callback):
        def __init__(self):
            self.stopper = Halt()
            self.running: set[str] = set()
            self.leaving: set[str] | None = None
            self.said: dict[str, Ended] = {}
            self.idle_since = time.monotonic()

        def __reduce__(self):  # Tune saves its callbacks; nobody reads that
            return tune.Callback, ()

        def on_trial_start(self, iteration, trials, trial, **info):
            self.running.add(_id(trial))
            emit(Started(_id(trial)))

        def on_trial_result(self, iteration, trials, trial, result, **info):
            if "ended" in result:
                ended = self.said[_id(trial)] = Ended(**result["ended"])
                self.stopper.at_once |= ended.how == "storage"
            elif "progress" in result:
                emit(Progress(**result["progress"]))

        def on_trial_recover(self, iteration, trials, trial, **info):
            self._over(_id(trial))
            emit(Retried(_id(trial), _reason(trial)))

        def on_trial_complete(self, iteration, trials, trial, **info):
            id = _id(trial)
            early = scheduler is not None and scheduler.stopped(id)
            unsaid = Ended(id, "early") if early else Ended(id, "died", "the worker left no result")
            if id in self.running:  # others never began
                self._end(self.said.get(id, Ended(id, "stopped") if self.leaving is not None else unsaid))

        def on_trial_error(self, iteration, trials, trial, **info):
            self._end(self.said.get(_id(trial)) or Ended(_id(trial), "died", _reason(trial)))

        def _end(self, ended: Ended) -> None:
            self._over(ended.id)
            emit(ended)

        def _over(self, id: str) -> None:
            self.running.discard(id)
            self.idle_since = time.monotonic()

        def close(self) -> None:
            """Tune says nothing of the trials that it ends with the run."""
            for id in [*self.running]:
                self._end(self.said.get(id, Ended(id, "stopped")))

    watch = Watch()
    return watch


def none_started(folder: Path) -> str:
    """What is said of the Ray in this folder, whose workers do not start."""
    words = last_words(folder)
    within = f"no worker has started within {start_seconds():g} s (PET_BENCH_START_SECONDS), {INSTEAD}"
    return f"{within}: {words}" if words else within


def _id(trial) -> str:
    return Job.from_dict(trial.config["job"]).id


def _reason(trial) -> str:
    """Why a worker is gone, in one line: Tune notes each failure at the end of a file of the trial's."""
    path = Path(trial.error_file or "")
    text = path.read_text().rpartition("Failure # ")[2].partition("\n")[2].strip() if path.is_file() else ""
    if "running low on memory" in text or "OutOfMemoryError" in text:
        return "out of memory: the node ran low and Ray ended the worker"
    if "node has died" in text or "node was terminated" in text:
        return "its node is gone"
    if not text or text.startswith(("The actor", "The worker")):
        return "the worker process died: killed, perhaps for want of memory"
    return text.splitlines()[-1]


if __name__ == "__main__":
    main()
