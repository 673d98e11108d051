"""A conversion in progress: what is read, written beside its place, and found wrong."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import indent
from typing import IO, Any, Literal

from pydantic import TypeAdapter

from pet_bench.data.convert.downloads import UNREADABLE, Converter, File
from pet_bench.data.rows import conforming, shown, validated
from pet_bench.data.stream import elements, members
from pet_bench.errors import UserError
from pet_bench.files import BOM

Progress = Callable[[int, int], None]
State = Literal["written", "overwritten", "unchanged"]
Form = Literal["members", "elements", "lines"]
OFTEN = 1024  # rows between two reports of progress


@dataclass
class Written:
    """A file below the root. rows: of the list or lines in it."""

    task: str
    target: str
    sources: tuple[File, ...]
    rows: int
    state: State = "written"


class Work:
    """All that a run of several converters has made so far. Nothing is in its place before `publish`."""

    def __init__(self, root: Path, progress: Progress | None = None):
        self.root, self.progress = root, progress
        self.drafts: list[tuple[Written, Path]] = []
        self.folders: list[Path] = []  # that were made for drafts
        self.faults: dict[str, list[str]] = {}  # by what they are about
        self.notes: list[str] = []
        self.done = self.total = 0  # bytes read and to be read
        self.pending: set[File] = set()

    def expect(self, files: set[File]) -> None:
        """These will be read at least once; what else is read comes on top."""
        self.pending = files
        self.total = sum(file.size for file in files)

    @contextmanager
    def reading(self, file: File) -> Iterator[Callable[[int], None]]:
        """A function that is told the position reached in a file."""
        if file in self.pending:
            self.pending.discard(file)
        else:
            self.total += file.size

        def at(position: int) -> None:
            if self.progress:
                self.progress((self.done + position) >> 20, self.total >> 20)  # in MiB

        yield at
        self.done += file.size

    def planned(self, target: str) -> bool:
        return any(written.target == target for written, _ in self.drafts)

    def draft(self, written: Written) -> Path:
        """A file beside the one to be written, which it will become."""
        path = self.root / written.target
        missing = [folder for folder in path.parents if not folder.exists()]
        for folder in reversed(missing):
            self.folders.append(folder)
            folder.mkdir()
        draft = path.with_name(f".{path.name}.{os.getpid()}.part")
        self.drafts.append((written, draft))
        return draft

    def check(self, force: bool) -> None:
        """Raises UserError for all that was found wrong, and for files in the way that hold something else."""
        faults = [fault for what, found in self.faults.items() for fault in shown(found, what).faults]
        for written, draft in () if faults else self.drafts:
            path = self.root / written.target
            if path.exists():
                same = path.is_file() and filecmp.cmp(draft, path, shallow=False)
                written.state = "unchanged" if same else "overwritten"
                if not same and not (force and path.is_file()):
                    remedy = "--force overwrites it" if path.is_file() else "it is no file"
                    faults.append(f"{written.task}: {path} is there and differs from what would be written; {remedy}")
        if faults:
            raise UserError.many(faults)

    def publish(self) -> None:
        new = [(written, draft) for written, draft in self.drafts if written.state != "unchanged"]
        for _, draft in new:
            with draft.open("rb") as file:
                os.fsync(file.fileno())
        for written, draft in new:
            draft.replace(self.root / written.target)

    def clear(self) -> None:
        """Remove the drafts, and the folders that were made for them if nothing is in them."""
        for _, draft in self.drafts:
            draft.unlink(missing_ok=True)
        for folder in reversed(self.folders):
            with suppress(OSError):
                folder.rmdir()


@dataclass
class Job:
    """One task's part.

    files: the downloads that were found, by the last part of their place below the root. counts: rows of those that
    were read. torn: those of which rows could not be, so that what has no match in them may have had one.
    """

    work: Work
    converter: Converter
    files: dict[str, File]
    counts: dict[str, int] = field(default_factory=dict)
    torn: set[str] = field(default_factory=set)

    @property
    def task(self) -> str:
        return self.converter.task

    def has(self, *names: str) -> bool:
        return all(name in self.files for name in names)

    def fault(self, name: str, said: str) -> None:
        where = f"{self.task}: {self.files[name]}"
        self.work.faults.setdefault(where, []).append(f"{where}: {said}")

    def note(self, said: str) -> None:
        self.work.notes.append(f"{self.task}: {said}")

    def read(
        self, name: str, schema: Any, *, within: str | None = None, form: Form = "members"
    ) -> Iterator[tuple[str, Any]]:
        """(place, row) of everything in a download that follows the schema; the rest is noted as faults.

        The rows are what `stream` yields of its members, or of one within it, or of its elements; or lines. One row is
        in memory at a time.
        """
        file, adapter, count = self.files[name], TypeAdapter(schema), 0
        where = f"{self.task}: {file}"
        check = validated if form == "lines" else conforming
        try:
            with file.open() as stream, self.work.reading(file) as at:
                for place, row in FORMS[form](stream) if form != "members" else members(stream, within):
                    count += 1
                    if count % OFTEN == 0:
                        at(stream.tell())
                    faults, valid = check(f"{where}: {place}", row, adapter)
                    if faults:
                        self.torn.add(name)
                        self.work.faults.setdefault(where, []).extend(faults)
                    else:
                        yield place, valid
        except UNREADABLE as error:
            self.torn.add(name)
            self.fault(name, f"cannot be read: {getattr(error, 'strerror', None) or error}")
        except ValueError as error:
            self.torn.add(name)
            self.fault(name, f"behind {count} rows: {error}" if count else str(error))
        self.counts[name] = count
        if not count and name not in self.torn:
            self.torn.add(name)
            self.fault(name, "holds nothing")

    def place(self, name: str) -> None:
        """Put a download, which has been read and found sound, where the tasks read it as it is."""
        place = next(download.place for download in self.converter.downloads if download.name == name)
        if not self.work.faults and not self.work.planned(place):
            draft = self.work.draft(Written(self.task, place, (self.files[name],), self.counts[name]))
            with self.files[name].open() as source, draft.open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)

    @contextmanager
    def rows(self, target: str, *names: str, pretty: bool = False) -> Iterator[Callable[[Any], None]]:
        """A function that appends a row to a JSON list made from these downloads.

        pretty: four spaces and sorted keys, as LXMERT's files have; else a row is a line.
        """
        written = Written(self.task, target, tuple(self.files[name] for name in names), 0)
        with self.work.draft(written).open("w", encoding="utf-8") as file:

            def add(row: Any) -> None:
                file.write(",\n" if written.rows else "[\n")
                file.write(indent(json.dumps(row, indent=4, sort_keys=True), "    ") if pretty else json.dumps(row))
                written.rows += 1

            yield add
            file.write("\n]" if written.rows else "[]")

    def whole(
        self, target: str, content: dict | list, *names: str, pretty: bool = True, rows: int | None = None
    ) -> None:
        """A JSON file of one value; pretty as in `rows`. rows: that it holds, by default its elements."""
        written = Written(self.task, target, tuple(self.files[name] for name in names), rows or len(content))
        text = json.dumps(content, indent=4, sort_keys=True) if pretty else json.dumps(content)
        self.work.draft(written).write_text(text, encoding="utf-8")


def _lines(stream: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    for number, line in enumerate(stream, start=1):
        line = line.removeprefix(BOM) if number == 1 else line
        if line.strip():
            yield f"line {number}", line


FORMS = {"elements": elements, "lines": _lines}
