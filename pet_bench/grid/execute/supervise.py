"""The scheduling process (`pet_bench.grid.execute.driver`), watched: Ray may die, the grid goes on."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from pet_bench.errors import UserError
from pet_bench.grid.execute.events import Ended, Event, Job, Note, Retried, Started
from pet_bench.grid.execute.process import (
    HEAD_GONE,
    INSTEAD,
    environment,
    interpreter,
    kill_session,
    last_words,
    lodging,
)
from pet_bench.grid.execute.stop import StopFlag
from pet_bench.grid.plan.spec import Grid
from pet_bench.results.schema import Progress
from pet_bench.spec import Runtime, plain_runtime

# starts in a row, each of which Ray did not survive, without the end of a trial: where trials trained, where none did
PATIENCE, IMPATIENCE = 12, 3
EVENTS = {"Started": Started, "Progress": Progress, "Retried": Retried, "Note": Note, "Ended": Ended}


@dataclass(frozen=True)
class Cluster:
    """How Ray is used. address: of a running cluster (None: a local one of this run). log: trackers that follow."""

    address: str | None = None
    dashboard: bool = False
    log: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises UserError where the address is none, or nothing answers there: Ray would try for minutes."""
        if self.address in (None, "auto"):
            return
        host, _, port = self.address.rpartition(":")
        if not host or "://" in host or not port.isdecimal():
            raise UserError(
                "--ray-address takes HOST:PORT of a cluster's head, or auto on one of its nodes, "
                f'found "{self.address}"'
            )
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except (OSError, OverflowError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"no Ray cluster answers at {self.address}: {reason}") from None


def run_on_ray(
    grid: Grid,
    jobs: Iterable[Job],
    runtime: Runtime,
    stop: StopFlag,
    cluster: Cluster,
    emit: Callable[[Event], None],
) -> None:
    """Run the jobs to their ends, each of which is emitted once.

    Where Ray dies, it is started anew for what is left. Raises UserError for faults that are found before training,
    where Ray dies again of the same or again and again, and where a cluster that was joined is gone.
    """
    left, patience = {job.id: job for job in jobs}, _Patience()
    while left and not stop.is_up:
        start = _Start(left)
        with _scheduler(grid, left.values(), runtime, stop, cluster) as scheduler:
            for event in scheduler.events():
                start.hear(event)
                emit(event)
            if scheduler.over and (not left or stop.is_up or start.storage):
                return
            reason, failed = scheduler.end()
            if failed and not scheduler.ready:  # Ray had no part in it
                raise UserError(f"what runs the trials cannot be started: {reason}")
        _check_joined(cluster, reason)
        for id in start.running:
            emit(Retried(id, "Ray died"))
        patience.lose(reason, failed, start)
        again = "joined" if cluster.address else "started"
        emit(Note(f"Ray died ({reason}): it is {again} again, trials left: {len(left)}"))


class _Start:
    """What becomes of the jobs that are `left` while one Ray lives; those that end are taken out."""

    def __init__(self, left: dict[str, Job]):
        self.left, self.running = left, set[str]()
        self.ended = self.trained = self.storage = False

    def hear(self, event: Event) -> None:
        match event:
            case Started():
                self.running.add(event.id)
            case Progress(phase="train"):
                self.trained = True
            case Ended():
                self.ended |= self.left.pop(event.id, None) is not None
                self.storage |= event.how == "storage"
                self.running.discard(event.id)


class _Patience:
    """With a Ray that dies: starts in a row in which no trial ended (barren), and in which none trained (idle)."""

    def __init__(self) -> None:
        self.barren = self.idle = 0
        self.last = ""

    def lose(self, reason: str, failed: bool, start: _Start) -> None:
        """One more is over; raises UserError where the next would be no better. failed: of an error of its own."""
        self.barren = 0 if start.ended else self.barren + 1
        self.idle = 0 if start.trained else self.idle + 1
        same = failed and self.idle > 1 and _without_numbers(reason) == _without_numbers(self.last)
        if same or self.barren == PATIENCE or self.idle == IMPATIENCE:
            times = max(self.barren, self.idle)
            raise UserError(f"Ray cannot be used (tried {times} times), {INSTEAD}: {reason}")
        self.last = reason


def _check_joined(cluster: Cluster, reason: str) -> None:
    """Raises UserError where a cluster that was joined no longer answers."""
    try:
        cluster.check()
    except UserError:
        gone = f"the Ray cluster at {cluster.address} is gone: {reason}"
        raise UserError(f"{gone}; start it and run the same command again") from None


def _without_numbers(reason: str) -> str:
    """What stays the same of it from one process to the next."""
    return re.sub(r"[0-9a-f]*\d[0-9a-f]*", "#", reason)


class _Scheduler:
    """The process and what it says. ready: it is about to use Ray. over: all is done."""

    def __init__(self, process: subprocess.Popen[bytes], events: TextIO, errors: BinaryIO, folder: Path):
        self.process, self.pipe, self.errors, self.folder = process, events, errors, folder
        self.ready = self.over = False

    def events(self) -> Iterator[Event]:
        """Until the process is done or dead; raises UserError for faults that it found."""
        for line in self.pipe:
            message: dict[str, Any] = json.loads(line)
            match kind := message.pop("event"):
                case "Faults":
                    raise UserError(*message["faults"])
                case "Ready":
                    self.ready = True
                case "Over":
                    self.over = True
                case _:
                    yield EVENTS[kind](**message)

    def end(self) -> tuple[str, bool]:
        """How it ended, in words, and whether of an error of its own, which the next start may meet as well."""
        code = self.process.wait()
        self.errors.seek(0)
        lines = [line.strip() for line in self.errors.read().decode(errors="replace").splitlines() if line.strip()]
        if code < 0:
            return f"killed by signal {-code}", False
        if code == HEAD_GONE:
            return "a process of its head was killed", False
        if any("Failed to connect to GCS" in line for line in lines[-3:]):
            return "its head does not answer", False
        said, words = lines[-1][:300] if lines else f"exit status {code}", last_words(self.folder)
        return f"{said}; the last words of its processes: {words}" if words else said, True


@contextmanager
def _scheduler(
    grid: Grid, jobs: Iterable[Job], runtime: Runtime, stop: StopFlag, cluster: Cluster
) -> Iterator[_Scheduler]:
    runtime, variables = _on_one_gpu(runtime)
    with lodging() as name:
        folder = Path(name)
        own = folder if cluster.address is None else None
        variables = environment(own, dashboard=cluster.dashboard) | variables
        read, write = os.pipe()
        order = {
            "events": write, "grid": grid.to_dict(), "runtime": plain_runtime(runtime), "stop": str(stop.path),
            "jobs": [job.to_dict() for job in jobs], "folder": name, **asdict(cluster),
        }  # fmt: skip
        with (folder / "said").open("w+b") as errors, os.fdopen(read, encoding="utf-8") as events:
            process = subprocess.Popen(
                [interpreter(folder), "-m", "pet_bench.grid.execute.driver"], env=variables,
                stdin=subprocess.PIPE, stdout=errors, stderr=errors, pass_fds=[write], start_new_session=True,
            )  # fmt: skip
            os.close(write)
            stdin = process.stdin
            assert stdin is not None  # a pipe, as asked for
            try:
                with suppress(BrokenPipeError):  # it is dead already: its events end
                    stdin.write(json.dumps(order).encode() + b"\n")
                    stdin.flush()
                yield _Scheduler(process, events, errors, folder)
            finally:
                kill_session(process.pid)
                process.wait()
                with suppress(BrokenPipeError):
                    stdin.close()


def _on_one_gpu(runtime: Runtime) -> tuple[Runtime, dict[str, str]]:
    """`cuda:1` for Ray, which hands out the GPUs that it sees: the runtime and the variable that shows it only that."""
    kind, colon, index = runtime.device.partition(":")
    if not colon:
        return runtime, {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return replace(runtime, device=kind), {
        "CUDA_VISIBLE_DEVICES": visible.split(",")[int(index)].strip() if visible else index
    }
