"""Official files: what they are called and where they are found."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, TYPE_CHECKING
from zipfile import BadZipFile, ZipFile

from pet_bench.data.convert import webdataset
from pet_bench.errors import UserError
from pet_bench.files import BOM, impostor, impostor_at

if TYPE_CHECKING:
    from pet_bench.data.convert.tables import Layout
    from pet_bench.data.convert.work import Job

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar", ".gz")
HEAD = 1 << 16
UNREADABLE = (OSError, BadZipFile, zlib.error, EOFError, RuntimeError)  # what a damaged file or archive raises


@dataclass(frozen=True)
class Download:
    """An official file.

    place: where it would lie below the root; some are read there as they are. names: ends of the paths that it may
    have elsewhere, the official one first, by default its name; letter case does not count. mark: what its beginning
    matches, where other files have its name. needed: whether something is missing without it. shared: whether it is
    other tasks' file too, so that having it does not mean that this task is wanted. instead: downloads that together
    hold the same, by their names.
    """

    place: str
    names: tuple[str, ...] = ()
    mark: re.Pattern[bytes] | None = None
    needed: bool = True
    shared: bool = False
    instead: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.place.rpartition("/")[2]

    @property
    def ends(self) -> tuple[str, ...]:
        return self.names or (self.name,)

    @property
    def title(self) -> str:
        return self.ends[0]


@dataclass(frozen=True)
class Converter:
    """How one task's files are made: from what, and by which steps.

    refused: files that look like its downloads and are not, by glob pattern, and why. tables: of the hub, that it can
    be made from too. gone: why its files can no longer be had, and what takes their place.
    """

    task: str
    downloads: tuple[Download, ...]
    run: Callable[[Job], None]
    refused: tuple[tuple[str, str], ...] = ()
    tables: tuple[Layout, ...] = ()
    gone: str = ""

    def lacking(self, found: Container[str]) -> Iterator[Download | Layout]:
        """What else is needed than the downloads and tables of these names."""
        yield from (table for table in self.tables if table.needed and table.name not in found)
        replaced = {name for table in self.tables if table.name in found for name in table.instead}
        for download in self.downloads:
            if download.needed and download.name not in found and download.name not in replaced:
                parts = [part for part in self.downloads if part.name in download.instead]
                absent = [part for part in parts if part.name not in found]
                yield from absent if len(absent) < len(parts) else [download]


@dataclass(frozen=True)
class File:
    """A file in a folder, or a member of a ZIP archive there."""

    path: Path
    size: int
    member: str = ""

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        if self.member:
            with ZipFile(self.path) as archive, archive.open(self.member) as stream:
                yield stream
        else:
            with self.path.open("rb") as stream:
                yield stream

    def head(self) -> bytes:
        """How it begins, without a byte order mark; nothing where it cannot be read, which is said when it is."""
        try:
            with self.open() as stream:
                return stream.read(HEAD).removeprefix(BOM)
        except UNREADABLE:
            return b""

    def impostor(self) -> str | None:
        """What it is, where that is not what its name says."""
        return impostor(self.head())

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

    sealed: archives that are not, and why. tables: parquet files, and tar archives of WebDataset's.
    """

    def __init__(self, folder: Path):
        if not folder.is_dir():
            raise UserError(f"{folder} {'is no folder' if folder.exists() else 'does not exist'}")
        self.folder = folder
        self.files: dict[str, File] = {}
        self.sealed: dict[Path, str] = {}
        self.tables: list[Path] = []
        for path in _walk(folder):
            key, name = f"/{path.relative_to(folder).as_posix().lower()}", path.name.lower()
            if name.endswith(".zip"):
                try:
                    with ZipFile(path) as archive:
                        members = [member for member in archive.infolist() if _readable(member.filename.lower())]
                except (BadZipFile, OSError) as error:
                    self.sealed[path] = impostor_at(path) or f"cannot be read: {error}"
                    continue
                for member in members:
                    self.files[f"{key}/{member.filename.lower()}"] = File(path, member.file_size, member.filename)
            elif _readable(name):
                self.files[key] = File(path, path.stat().st_size)
            elif name.endswith(".parquet") or (name.endswith(".tar") and webdataset.columns(path)):
                self.tables.append(path)
            elif name.endswith(ARCHIVES):
                self.sealed[path] = "is not looked into; unpack it"

    def matching(self, end: str) -> list[File]:
        """The files whose paths end so; a glob pattern."""
        pattern = f"*/{end.lower()}"
        return [file for key, file in self.files.items() if fnmatchcase(key, pattern)]

    def find(self, download: Download) -> File | None:
        """Raises UserError where two files of the same name differ."""
        found = next(filter(None, (_marked(self.matching(end), download.mark) for end in download.ends)), [])
        for other in found[1:]:
            if not found[0].same(other):
                raise UserError(f"{download.title}: {found[0]} and {other} differ; leave one of them")
        return found[0] if found else None

    def impostors(self, download: Download) -> dict[str, str]:
        """Files under its names that are something else altogether, and what."""
        files = (file for end in download.ends for file in self.matching(end))
        return {str(file): what for file in files if (what := file.impostor())}


def in_place(download: Download, root: Path) -> File | None:
    """A download that lies in its place below the root already."""
    path = root / download.place
    return next(iter(_marked([File(path, path.stat().st_size)], download.mark)), None) if path.is_file() else None


def _marked(files: Iterable[File], mark: re.Pattern[bytes] | None) -> list[File]:
    heads = ((file, file.head()) for file in files)
    return [file for file, head in heads if not impostor(head) and (mark is None or mark.match(head))]


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
