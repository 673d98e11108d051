"""Who runs which trial: a lock per trial, so that no two processes run the same one, whichever grid runs started them.

A lock belongs to a process and goes with it, however that ends; on shared storage it holds across machines.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from pet_bench.errors import UserError

LOCKS = ".locks"
# full disk, quota used up, read-only file system, file that may not grow, a disk or a server that is gone: the next
# trial would fail of it as well
STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.ESTALE}


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


class StopFlag:
    """A file whose presence tells all workers of one grid run, on every node, to save a checkpoint and leave."""

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def of(cls, out: Path) -> StopFlag:
        return cls(out / LOCKS / f"stop-{os.getpid()}-{secrets.token_hex(4)}")

    @property
    def is_up(self) -> bool:
        return self.path.exists()

    def put_up(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()

    def take_down(self) -> None:
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


def storage_fault(error: BaseException, out: Path | None = None) -> str | None:
    """What is wrong with the storage, where that is what raised the error: writing libraries wrap the system's own.

    In the results folder `out` that includes a lack of permission.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in STORAGE:
            return os.strerror(seen.errno)
        if isinstance(seen, PermissionError) and out and Path(str(seen.filename)).is_relative_to(out):
            return os.strerror(seen.errno)
        for number in STORAGE:  # safetensors and h5py say it in words
            if not isinstance(seen, OSError) and os.strerror(number).lower() in str(seen).lower():
                return os.strerror(number)
        seen = seen.__cause__ or seen.__context__
    return None
