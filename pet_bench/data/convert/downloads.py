"""Official files: what they are called and where they are found."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from zipfile import BadZipFile, ZipFile

from pet_bench.errors import UserError

if TYPE_CHECKING:
    from pet_bench.data.convert.work import Job

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar", ".gz")
HEAD = 1 << 16


@dataclass(frozen=True)
class Download:
    """An official file.

    place: where it would lie below the root; some are read there as they are. names: ends of the paths that it may
    have elsewhere, the official one first, by default its name; letter case does not count. mark: what its beginning
    matches, where other files have its name. needed: whether something is missing without it. shared: whether it is
    other tasks' file too, so that having it does not mean that this task is wanted.
    """

    place: str
    names: tuple[str, ...] = ()
    mark: re.Pattern[bytes] | None = None
    needed: bool = True
    shared: bool = False

    @property
    def name(self) -> str:
        return self.place.rpartition("/")[2]

    @property
    def title(self) -> str:
        return self.names[0] if self.names else self.name


@dataclass(frozen=True)
class Converter:
    """How one task's files are made: from what, and by which steps.

    refused: files that look like its downloads and are not, by glob pattern, and why.
    """

    task: str
    downloads: tuple[Download, ...]
    run: Callable[[Job], None]
    refused: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class File:
    """A file in a folder, or a member of a ZIP archive there."""

    path: Path
    size: int
    member: str = ""

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        if self.member:
            with ZipFile(self.path) as archive, archive.open(self.member) as stream:
                yield stream
        else:
            with self.path.open("rb") as stream:
                yield stream

    def same(self, other: File) -> bool:
        if self.size != other.size:
            return False
        with self.open() as one, other.open() as two:
            while block := one.read(1 << 20):
                if block != two.read(len(block)):
                    return False
        return True

    def __str__(self) -> str:
        return f"{self.path}/{self.member}" if self.member else str(self.path)


class Source:
    """All files below a folder that may be downloads; ZIP archives are looked into.

    sealed: archives that are not, and why.
    """

    def __init__(self, folder: Path):
        if not folder.is_dir():
            raise UserError(f"{folder} {'is no folder' if folder.exists() else 'does not exist'}")
        self.folder = folder
        self.files: dict[str, File] = {}
        self.sealed: dict[Path, str] = {}
        for path in _walk(folder):
            key, name = f"/{path.relative_to(folder).as_posix().lower()}", path.name.lower()
            if name.endswith(".zip"):
                try:
                    with ZipFile(path) as archive:
                        members = [member for member in archive.infolist() if _readable(member.filename.lower())]
                except (BadZipFile, OSError) as error:
                    self.sealed[path] = f"cannot be read: {error}"
                    continue
                for member in members:
                    self.files[f"{key}/{member.filename.lower()}"] = File(path, member.file_size, member.filename)
            elif _readable(name):
                self.files[key] = File(path, path.stat().st_size)
            elif name.endswith(ARCHIVES):
                self.sealed[path] = "is not looked into; unpack it"

    def matching(self, end: str) -> list[File]:
        """The files whose paths end so; a glob pattern."""
        pattern = f"*/{end.lower()}"
        return [file for key, file in self.files.items() if fnmatchcase(key, pattern)]

    def find(self, download: Download) -> File | None:
        """Raises UserError where two files of the same name differ."""
        ends = download.names or (download.title,)
        found = next(filter(None, (_marked(self.matching(end), download.mark) for end in ends)), [])
        for other in found[1:]:
            if not found[0].same(other):
                raise UserError(f"{download.title}: {found[0]} and {other} differ; leave one of them")
        return found[0] if found else None


def in_place(download: Download, root: Path) -> File | None:
    """A download that lies in its place below the root already."""
    path = root / download.place
    return next(iter(_marked([File(path, path.stat().st_size)], download.mark)), None) if path.is_file() else None


def _marked(files: Iterable[File], mark: re.Pattern[bytes] | None) -> list[File]:
    return [file for file in files if mark is None or mark.match(_head(file))]


def _head(file: File) -> bytes:
    try:
        with file.open() as stream:
            return stream.read(HEAD)
    except (OSError, BadZipFile):
        return b""


def _readable(name: str) -> bool:
    return name.endswith((".json", ".jsonl", ".csv")) and "__macosx" not in name


def _walk(folder: Path) -> Iterator[Path]:
    """Files below a folder in the order of their names; links to folders are followed, but not in circles."""
    seen = set()
    for where, folders, names in os.walk(folder, followlinks=True):
        here = Path(where)
        seen.add(here.resolve())
        folders[:] = sorted(name for name in folders if name[0] != "." and (here / name).resolve() not in seen)
        yield from (here / name for name in sorted(names) if name[0] != "." and (here / name).is_file())
