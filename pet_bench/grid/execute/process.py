"""Processes of a grid run: where they live, what they are told, and the cores there are for them."""

from __future__ import annotations

import os
import re
import secrets
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

from pet_bench.errors import UserError

HEAD_GONE = 75  # exit status of the scheduling process where a process of Ray's own head died
PLAIN = re.compile(r"[\w@%+=:,./-]*", re.ASCII)  # what a shell takes for one word, whoever forgets to quote it
INSTEAD = "--executor inline needs none"
SOCKET = 103  # bytes of a socket's path; Linux has four more
SHORT = "/tmp", "/var/tmp"
LONGEST = "/pet-bench-12345678/ray/session_2000-01-01_00-00-00_000000_1234567/sockets/plasma_store"


def lodging() -> tempfile.TemporaryDirectory:
    """A private folder for one start of Ray, to be gone with it: its path is short enough for sockets, and plain.

    Raises UserError where no folder for temporary files is both and can be written to.
    """
    with suppress(OSError):
        tempfile.gettempdir()  # asks the variables, and whether the folder can be written to
    named = os.environ.get("RAY_TMPDIR"), tempfile.tempdir, *SHORT, os.environ.get("XDG_RUNTIME_DIR")
    places, most = list(dict.fromkeys(filter(None, named))), SOCKET - len(LONGEST)
    for place in places:
        if PLAIN.fullmatch(place) and len(place) <= most:
            with suppress(OSError):
                return tempfile.TemporaryDirectory(prefix="pet-bench-", dir=place, ignore_cleanup_errors=True)
    raise UserError(
        f"Ray needs a folder for temporary files that it can write to, by a path of at most {most} plain characters "
        f"(tried: {', '.join(places)}): set TMPDIR to one; {INSTEAD}"
    )


def start_seconds() -> float:
    """In which a worker must start: a slow file system may need minutes for what it imports. Raises UserError."""
    text = os.environ.get("PET_BENCH_START_SECONDS") or "120"
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise UserError(f'PET_BENCH_START_SECONDS is a whole number of seconds, found "{text}"')
    return float(text)


def interpreter(folder: Path) -> str:
    """This Python, under a path that needs no quotes: Ray hands it to a shell as it is. `folder` gets a link to it."""
    if PLAIN.fullmatch(sys.executable):
        return sys.executable
    python = Path(sys.executable)
    environment = folder / "env"  # as a whole: what lies beside the program says that it is one
    environment.symlink_to(python.parents[1], target_is_directory=True)
    return str(environment / python.parent.name / python.name)


def environment(folder: Path | None, *, dashboard: bool = False) -> dict[str, str]:
    """The variables of a helper process: no module comes from the working folder, and any text can be written.

    folder: where a Ray of its own lives, with a token that it would else keep in the user's home, where that can be
    written to, for whoever opens its dashboard.
    """
    variables = os.environ | {"PYTHONSAFEPATH": "1", "PYTHONIOENCODING": "utf-8:replace"}
    if folder:
        variables["RAY_TMPDIR"] = str(folder)
    if folder and not dashboard:
        variables["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    return variables


def last_words(folder: Path) -> str:
    """The last line that a process of the Ray in this folder wrote before it failed, or nothing.

    Workers first: they say why they did not start, the others that none did.
    """
    logs = folder / "ray" / "session_latest" / "logs"
    for pattern in ("worker-*.err", "raylet.err", "*agent.err", "gcs_server.err"):
        said = [line for log in sorted(logs.glob(pattern), key=_age) for line in _lines(log)]
        if said:
            return said[-1][:300]
    return ""


def _age(log: Path) -> float:
    try:
        return log.stat().st_mtime
    except OSError:
        return 0.0


def _lines(log: Path) -> list[str]:
    """What it says, without Ray's marks, as `:job_id:01000000`."""
    with suppress(OSError):
        text = log.read_bytes().decode(errors="replace")
        return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(":")]
    return []


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def kill_session(leader: int) -> None:
    """Kill every process of a session, its leader last: also those whose parents are gone."""
    while members := _of_session(leader):  # again: one may have started another meanwhile
        for process in members:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(members, timeout=1.0)
    with suppress(OSError):
        if os.getsid(leader) == leader:
            os.kill(leader, signal.SIGKILL)


def _of_session(leader: int) -> list[psutil.Process]:
    """Its processes that live, without the leader."""
    members = []
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            of_it = process.pid != leader and os.getsid(process.pid) == leader
            if of_it and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
    return members
