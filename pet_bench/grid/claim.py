"""Who runs which trial: a lock per trial, so that no two processes run the same one, whichever grid runs started them.

A lock belongs to a process and goes with it, however that ends; on shared storage it holds across machines.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pet_bench.errors import UserError

LOCKS = ".locks"


class Taken(Exception):
    """Another process runs this trial."""


@contextmanager
def claim(out: Path, id: str) -> Iterator[None]:
    """Be the only process that runs this trial; raises Taken where there is one already."""
    folder = out / LOCKS
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / id, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise Taken(id) from None
    except NotImplementedError as error:
        raise UserError(f'results folder "{out}": its file system has no locks: {error}') from None
    try:
        yield
    finally:
        lock.release()


def taken(out: Path, id: str) -> bool:
    """Whether a process runs this trial at this moment; in a folder that may only be read that is not known."""
    if not (out / LOCKS / id).exists():
        return False
    try:
        with claim(out, id):
            return False
    except Taken:
        return True
    except OSError:
        return False
