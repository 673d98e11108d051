"""Storage that fails in the middle: what says so, and what is said."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pet_bench.errors import UserError
from pet_bench.results import store

# full disk, quota used up, read-only file system, file that may not grow, a disk or a server that is gone: the next
# trial would fail of it as well
NAMES = ("ENOSPC", "EDQUOT", "EROFS", "EFBIG", "EIO", "ESTALE")
STORAGE = {number for name in NAMES if (number := getattr(errno, name, None))}


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """What the grid's own process writes for its trials; raises UserError where that cannot be."""
    try:
        yield
    except OSError as error:
        raise unwritable(out, error.strerror or str(error)) from error


def unwritable(out: Path, reason: str) -> UserError:
    kept = len(store.scan(out)[0])
    whole = f"the {kept} results in it are whole"
    return UserError(f'results folder "{out}": {reason}; {whole}; mend that and run the same command again')


def storage_fault(error: BaseException, out: Path | None = None) -> str | None:
    """What is wrong with the storage, where that is what raised the error: writing libraries wrap the system's own.

    In the results folder `out` that includes a lack of permission.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno is not None and seen.errno in STORAGE:
            return os.strerror(seen.errno)
        if isinstance(seen, PermissionError) and out and Path(str(seen.filename)).is_relative_to(out):
            return seen.strerror or str(seen)
        for number in STORAGE:  # safetensors and h5py say it in words
            if not isinstance(seen, OSError) and os.strerror(number).lower() in str(seen).lower():
                return os.strerror(number)
        seen = seen.__cause__ or seen.__context__
    return None
