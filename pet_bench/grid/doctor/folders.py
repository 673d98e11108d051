"""Shared storage, as a machine sees and uses it. As `machine`, it goes as code to nodes.

What is asked of storage is what a grid asks: files that are written beside their place and renamed to it, seen by the
others at once; `flock` by filelock. Every file is in a folder that is gone afterwards.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

ENTRIES = 20_000  # of a data folder that are looked at
LINES = 512  # of a file that is replaced
CHANGES = 50  # of such a file that are to be seen before the last one
REPLACING = 10.0  # seconds for them, where names are cached and few are seen
LAST = "last"


def see(out: str, probe: str, name: str) -> dict[str, Any]:
    """The fields of `facts.Seen`. probe: the folder in `out` with a file `token`. Writes a file of that name beside."""
    seen: dict[str, Any] = {"there": Path(out).is_dir(), "token": "", "fault": ""}
    try:
        seen["token"] = (Path(probe) / "token").read_text()
        put(Path(probe) / name, name)
    except FileNotFoundError:
        pass  # told by the token
    except OSError as error:
        seen["fault"] = error.strerror or str(error)
    return seen


def read(probe: str) -> dict[str, str]:
    """What files the probe's folder has."""
    found = {}
    for path in Path(probe).iterdir():
        with suppress(OSError):
            found[path.name] = path.read_text()
    return found


def put(path: Path, text: str) -> None:
    """As `pet_bench.files.replacing` does it."""
    beside = path.with_name(f".{path.name}.new")
    with beside.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def replace_often(probe: str, name: str, seconds: float) -> str:
    """Put a file over itself until whoever `watch`es it has seen enough, or so long; why that cannot be, or nothing."""
    path, enough, turn = Path(probe) / f"{name}.much", Path(probe) / f"{name}.enough", 0
    end = time.monotonic() + min(seconds, REPLACING)
    try:
        while not enough.exists() and time.monotonic() < end:
            put(path, f"{turn:08d}\n" * LINES)
            turn += 1
        put(path, f"{LAST}\n" * LINES)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def watch(probe: str, name: str, seconds: float) -> dict[str, Any]:
    """The fields of `facts.Watched`: what one sees of a file that is replaced all the while."""
    path, end = Path(probe) / f"{name}.much", time.monotonic() + seconds
    watched: dict[str, Any] = {"missing": 0, "torn": 0, "fault": "", "last": False}
    changes: set[str] = set()
    while time.monotonic() < end and not watched["last"]:
        try:
            lines = path.read_text().splitlines()
        except FileNotFoundError:
            watched["missing"] += bool(changes)
            continue
        except OSError as error:
            watched["fault"] = error.strerror or str(error)
            continue
        changes.update(lines[:1])
        watched["torn"] += len(lines) != LINES or len(set(lines)) != 1
        watched["last"] = lines == [LAST] * LINES
        if len(changes) >= CHANGES and not watched["last"]:
            (path.parent / f"{name}.enough").touch()
    return watched


class Lock:
    """The lock of a probe, as `pet_bench.grid.claim` has one for each trial."""

    def __init__(self, probe: str):
        from filelock import FileLock

        self.lock = FileLock(Path(probe) / "lock", timeout=0, thread_local=False)

    def take(self) -> str:
        """`held`, `taken` by another, or why there is none."""
        from filelock import Timeout

        try:
            self.lock.acquire()
        except Timeout:
            return "taken"
        except (OSError, NotImplementedError) as error:
            return getattr(error, "strerror", None) or str(error)
        return "held"

    def give_back(self) -> None:
        self.lock.release()


def content(root: str) -> dict[str, Any] | None:
    """The fields of `facts.Content`: names and sizes of the first files of a data folder, by what is at its top; None
    where it is not there or cannot be read."""
    count, top = 0, {}
    try:
        for first in sorted(os.scandir(root), key=lambda entry: entry.name):
            digest = sha256()
            for path, size in walk(first):
                if count == ENTRIES:
                    break
                count += 1
                digest.update(f"{path}\0{size}\n".encode(errors="surrogateescape"))
            top[first.name] = digest.hexdigest()
    except OSError:
        return None
    return {"files": count, "whole": count < ENTRIES, "top": top}


def walk(entry: os.DirEntry) -> Iterator[tuple[str, int]]:
    """(path, bytes) of every file below, in order; links are followed."""
    if entry.is_dir():
        for below in sorted(os.scandir(entry.path), key=lambda one: one.name):
            yield from walk(below)
    else:
        yield entry.path, entry.stat().st_size if entry.is_file() else -1
