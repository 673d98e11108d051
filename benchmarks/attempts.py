"""A loose plug-in that writes down each attempt at a trial, for `benchmarks/faults.py`.

Lines of `<out>/attempts.txt`: `start`, `end` (or `again`, for a trial that has its result already, and `twice`, while
another process is at it), the trial's id, the process's and how it ended.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import psutil

from pet_bench.results import store
from pet_bench.trial import run


class Attempts:
    plugin_kind = "metric"
    name = "attempts"


def logged(spec, runtime, *more):
    log = runtime.out / "attempts.txt"
    before = unended(log).get(spec.id)
    if before not in (None, os.getpid()) and lives(before):
        append(log, "twice", spec.id)
    if spec.id in store.finished(runtime.out):
        append(log, "again", spec.id)
    append(log, "start", spec.id)
    how = "result"
    try:
        return run_trial(spec, runtime, *more)
    except BaseException as error:
        how = type(error).__name__
        raise
    finally:
        append(log, "end", spec.id, how)


def append(log: Path, *words: str) -> None:
    line = " ".join([*words[:2], str(os.getpid()), *words[2:]]) + "\n"
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, line.encode())  # one write: lines of two processes do not mix
    os.close(handle)


def unended(log: Path) -> dict[str, int]:
    """Process by trial of those attempts that have not ended, as far as the log tells."""
    found = {}
    for line in log.read_text().splitlines() if log.exists() else ():
        what, id, pid, *_ = line.split()
        if what == "start":
            found[id] = int(pid)
        elif what == "end":
            found.pop(id, None)
    return found


def lives(pid: int, seconds: float = 5.0) -> bool:
    """Whether a process is there to stay: one that was killed may take a moment to be gone."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(psutil.Error):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.05)
                continue
        return False
    return True


run_trial, run.run_trial = run.run_trial, logged
