"""A folder in the cache that is packed once and read by all: a draft that goes on where it stopped, then one rename."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, ClassVar, Self

from filelock import FileLock, Timeout

from pet_bench.data.cache import cache_dir, unwritable
from pet_bench.errors import UserError
from pet_bench.files import read_json

Progress = Callable[[int, int], None]
LOCKS = ".locks"
BLOCK = 64  # rows between two moments at which everything packed is safely on disk
MANIFEST = "manifest.json"
UNREADABLE = (UserError, OSError, EOFError, ValueError, KeyError, TypeError, IndexError, AttributeError)


class PackedFolder(ABC):
    """What examples' images are, under one name each, in one folder of the cache.

    what: the word for it in messages, and the folder of all of its kind. checked: the files whose SHA-256 is in the
    manifest. index: the row of each key that is wanted; a folder may hold more. fingerprint: SHA-256 of the names and
    contents of those, the same from whichever folder they come.
    """

    what: ClassVar[str]
    checked: ClassVar[tuple[str, ...]]
    folder: Path
    index: dict[str, int]
    fingerprint: str

    @abstractmethod
    def __init__(self, folder: Path, keys: Iterable[str] | None = None):
        """keys: those that are wanted, by default all. Raises one of `UNREADABLE` where the folder is not whole."""

    @classmethod
    def open(cls, folder: Path, keys: Iterable[str] | None = None) -> Self | None:
        """None where there is nothing, or nothing whole."""
        try:
            return cls(folder, keys)
        except UNREADABLE:
            return None

    def __reduce__(self):
        """In another process the same folder is opened anew; None on a machine that does not have it."""
        return type(self).open, (self.folder, tuple(self.index))

    @classmethod
    def written(cls, folder: Path, fill: Callable[[Path], dict[str, Any]]) -> Self:
        """What `fill(draft)` packs into a folder, going on with what is there, as the folder of that name.

        `fill` gives what the manifest says. Raises UserError where the cache cannot be written.
        """
        try:
            with _draft(folder) as draft:
                manifest = fill(draft)
                manifest["sha256"] = {name: _file_digest(draft / name) for name in cls.checked}
                (draft / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
                if folder.exists() and not cls.open(folder):
                    shutil.rmtree(folder, ignore_errors=True)  # damaged
                try:
                    os.rename(draft, folder)  # noqa: PTH104  fails, as it should, where another process was first
                except OSError:
                    if not folder.is_dir():
                        raise
                    shutil.rmtree(draft, ignore_errors=True)
        except OSError as error:
            raise unwritable(f"{cls.what}:", folder.parent, error) from None
        store = cls.open(folder)
        if store is None:
            raise UserError(f"{cls.what}: the packed {cls.what} in {folder} cannot be read back; remove that folder")
        return store

    @classmethod
    def place(cls, listing: str, cache: Path | None, holds: Callable[[Path], bool]) -> Path:
        """The folder of what has this listing's digest, or one that `holds` it among others.

        The former where neither exists.
        """
        own = Path(cache or cache_dir()) / cls.what / listing[:24]
        if own.exists():
            return own
        for folder in sorted(own.parent.glob("[!.]*")):
            with suppress(*UNREADABLE):  # being written, of an older format or damaged: nothing to find there
                if holds(folder) and cls.open(folder):
                    return folder
        return own

    @classmethod
    def read(cls, path: Path) -> Any:
        return read_json(path, f"{cls.what}: packed {path}")

    @classmethod
    def verify(cls, folder: Path) -> Iterator[str]:
        """A line for everything in a packed folder that is not as it was packed; reads all of it."""
        remedy = f"remove {folder} and the {cls.what} are packed anew"
        try:
            expected = cls.read(folder / MANIFEST)["sha256"].items()
        except UNREADABLE:
            yield f"{cls.what}: {folder / MANIFEST} of the packed {cls.what} cannot be read; {remedy}"
            return
        intact = True
        for name, digest in expected:
            try:
                same = _file_digest(folder / name) == digest
            except OSError as error:
                intact = False
                yield f"{cls.what}: packed {folder / name} cannot be read: {error.strerror}; {remedy}"
                continue
            if not same:
                intact = False
                yield f"{cls.what}: packed {folder / name} has another SHA-256 than when it was packed; {remedy}"
        if intact and cls.open(folder) is None:
            yield f"{cls.what}: array, index and manifest in {folder} disagree; {remedy}"


def check_space(what: str, draft: Path, size: int) -> None:
    """Raises UserError where so many bytes do not fit."""
    free = shutil.disk_usage(draft).free
    if free < size:
        need = f"{size / 1e9:.1f} GB in {draft.parent}, {free / 1e9:.1f} GB are free"
        raise UserError(f"{what}: packing needs {need}")


@contextmanager
def _draft(folder: Path) -> Iterator[Path]:
    """The folder to pack in. It stays where packing is stopped, so that the next call goes on there.

    Who finds it in use, or is where locks are not possible, gets a folder for this call alone.
    """
    with locked(folder) as free:
        draft = folder.parent / f".packing-{folder.name}"
        if free:
            draft.mkdir(parents=True, exist_ok=True)
        else:
            draft = Path(tempfile.mkdtemp(prefix=".packing-", dir=folder.parent))
        try:
            yield draft
        finally:
            if free:
                with suppress(OSError):
                    draft.rmdir()  # only where nothing was packed
            else:
                shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Whether this process is the only one at a folder; a lock goes with its process, however that ends."""
    try:
        lock = _lock(folder)
        lock.acquire(timeout=0)
    except (Timeout, NotImplementedError, OSError):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@contextmanager
def taking_turns(folder: Path, waiting: Callable[[], object]) -> Iterator[None]:
    """Until this process is the only one at a folder, `waiting` is called every second. Raises OSError where locks are
    not possible."""
    try:
        lock = _lock(folder)
        while True:
            with suppress(Timeout):
                lock.acquire(timeout=1)
                break
            waiting()
    except NotImplementedError as error:
        raise OSError(f"{folder} is where files cannot be locked") from error
    try:
        yield
    finally:
        lock.release()


def _lock(folder: Path) -> FileLock:
    path = folder.parents[1] / LOCKS / folder.name
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)


def digest(content: Any) -> str:
    """SHA-256 of plain data."""
    return sha256(json.dumps(content).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
