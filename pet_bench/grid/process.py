"""Processes of a grid run, and the cores there are for them."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import psutil

HEAD_GONE = 75  # exit status of the scheduling process where a process of Ray's own head died


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def kill_session(leader: int) -> None:
    """Kill every process of a session, its leader last: also those whose parents are gone."""
    while found := _of_session(leader):  # again: one may have started another meanwhile
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=1.0)
    with suppress(OSError):
        if os.getsid(leader) == leader:
            os.kill(leader, signal.SIGKILL)


def _of_session(leader: int) -> list[psutil.Process]:
    """Its processes that live, without the leader."""
    found = []
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            of_it = process.pid != leader and os.getsid(process.pid) == leader
            if of_it and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
