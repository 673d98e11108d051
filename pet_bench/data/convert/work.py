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
from pet_bench.data.convert.tables import Spot, Table
from pet_bench.data.places import INDEX
from pet_bench.data.rows import conforming, shown, validated
from pet_bench.data.stream import elements, members
from pet_bench.errors import UserError
from pet_bench.files import BOM

Progress = Callable[[int, int], None]
State = Literal["written", "overwritten", "unchanged"]
Form = Literal["members", "elements", "lines"]
OFTEN = 1024  # rows between two reports of progress
ALBUM = 1 << 16  # rows of an index of pictures that are written at once


@dataclass
class Written:
    """A file below the root. rows: of the list, table or lines in it."""

    task: str
    target: str
    sources: tuple[File | Table, ...]
    rows: int
    state: State = "written"


class Work:
    """All that a run of several converters has made so far. Nothing is in its place before `publish`."""

    def __init__(self, root: Path, progress: Progress | None = None):
        self.root, self.progress = root, progress
        self.drafts: list[tuple[Written, Path]] = []
        self.folders: list[Path] = []  # that were made for drafts
        self.links: dict[Path, Path] = {}  # to be made, and to what
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
        for link, target in () if faults else self.links.items():
            if link.exists() and not link.is_symlink():
                faults.append(f"{link} is there, and no link to {target}; remove it")
        if faults:
            raise UserError.many(faults)

    def publish(self) -> None:
        for link, target in self.links.items():
            link.parent.mkdir(parents=True, exist_ok=True)
            if not (link.is_symlink() and link.readlink() == target):
                link.unlink(missing_ok=True)
                link.symlink_to(target)
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

    files: the downloads that were found, by the last part of their place below the root; tables: those of the hub, by
    their layouts' names. counts: rows of those that were read. torn: those of which rows could not be, so that what has
    no match in them may have had one. protocol: options under which the task reads what was written.
    """

    work: Work
    converter: Converter
    files: dict[str, File]
    tables: dict[str, Table] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    torn: set[str] = field(default_factory=set)
    protocol: dict[str, str] = field(default_factory=dict)

    @property
    def task(self) -> str:
        return self.converter.task

    def has(self, *names: str) -> bool:
        return all(name in self.files or name in self.tables for name in names)

    def source(self, name: str) -> File | Table:
        return self.tables[name] if name in self.tables else self.files[name]

    def shards(self) -> Iterator[File]:
        return (shard(path) for table in self.tables.values() for path in table.shards)

    def fault(self, name: str | Spot, said: str) -> None:
        """Of a download or table, or of one of a table's rows."""
        where = f"{self.task}: {name.path if isinstance(name, Spot) else self.source(name)}"
        row = f" row {name.number}:" if isinstance(name, Spot) else ""
        self.work.faults.setdefault(where, []).append(f"{where}:{row} {said}")

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

    def table(self, name: str, schema: Any, key: str | None = None) -> Iterator[tuple[Spot, Any]]:
        """As `read`, of the rows of a table of the hub. schema: a TypedDict of the columns to read; no others are.

        key: a column whose values must differ.
        """
        table, adapter, count = self.tables[name], TypeAdapter(schema), 0
        columns, seen = [*schema.__required_keys__, *schema.__optional_keys__ & table.columns.keys()], set()
        for path in table.shards:
            where = f"{self.task}: {path}"
            try:
                with self.work.reading(shard(path)):
                    for spot, row in table.rows(path, columns):
                        count += 1
                        faults, valid = conforming(f"{where}: row {spot.number}", row, adapter)
                        if faults:
                            self.torn.add(name)
                            self.work.faults.setdefault(where, []).extend(faults)
                            continue
                        if key is not None and valid[key] in seen:
                            self.fault(spot, f"{key} {valid[key]!r} occurs twice")
                        elif key is not None:
                            seen.add(valid[key])
                        yield spot, valid
            except UserError as error:
                self.torn.add(name)
                self.work.faults.setdefault(where, []).extend(f"{self.task}: {fault}" for fault in error.faults)
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
    def rows(
        self, target: str, *names: str, pretty: bool = False, within: str | None = None
    ) -> Iterator[Callable[[Any], None]]:
        """A function that appends a row to a JSON list made from these downloads, in an object under the key `within`.

        pretty: four spaces and sorted keys, as LXMERT's files have; else a row is a line.
        """
        head, foot = (f'{{"{within}": ', "}") if within else ("", "")
        written = Written(self.task, target, tuple(map(self.source, names)), 0)
        with self.work.draft(written).open("w", encoding="utf-8") as file:

            def add(row: Any) -> None:
                file.write(",\n" if written.rows else f"{head}[\n")
                file.write(indent(json.dumps(row, indent=4, sort_keys=True), "    ") if pretty else json.dumps(row))
                written.rows += 1

            yield add
            file.write(f"\n]{foot}" if written.rows else f"{head}[]{foot}")

    @contextmanager
    def album(self, folder: str, name: str) -> Iterator[Callable[..., None]]:
        """A function that names pictures of a table of the hub, for tasks that look for them in a folder of the root.

        add(id, spot, column="image", item=0): the picture of that row, the item-th where the column holds lists. They
        stay where they are: `<folder>/images-<name>.parquet` says where, through links in `<folder>/images-<name>/`.
        """
        table = self.tables[name]
        written = Written(self.task, f"{folder}/images-{name}.parquet", (table,), 0)
        links: dict[Path, str] = {}
        with _album(self.work.draft(written)) as write:

            def add(id: str, spot: Spot, column: str = "image", item: int = 0) -> None:
                if spot.path not in links:
                    links[spot.path] = f"images-{name}/{spot.path.name}"
                    self.work.links[self.work.root / folder / links[spot.path]] = spot.path.resolve()
                cell = [None] * 4 if spot.member else [column, spot.group, spot.within, item]
                write([id, links[spot.path], spot.member or None, *cell])
                written.rows += 1

            yield add

    def whole(
        self, target: str, content: dict | list, *names: str, pretty: bool = True, rows: int | None = None
    ) -> None:
        """A JSON file of one value; pretty as in `rows`. rows: that it holds, by default its elements."""
        text = json.dumps(content, indent=4, sort_keys=True) if pretty else json.dumps(content)
        self.text(target, text, len(content) if rows is None else rows, *names)

    def text(self, target: str, text: str, rows: int, *names: str) -> None:
        """A whole file of so many rows made from these downloads."""
        written = Written(self.task, target, tuple(map(self.source, names)), rows)
        self.work.draft(written).write_text(text, encoding="utf-8")


@contextmanager
def _album(path: Path) -> Iterator[Callable[[list[Any]], None]]:
    """A function that appends a row to an index of pictures."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.string() if name in INDEX[:4] else pa.int32()) for name in INDEX])
    rows: list[list[Any]] = []
    with pq.ParquetWriter(path, schema) as writer:

        def flush() -> None:
            columns = [
                pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), schema.types, strict=True)
            ]
            writer.write_table(pa.table(columns, schema=schema))
            rows.clear()

        def add(row: list[Any]) -> None:
            rows.append(row)
            if len(rows) == ALBUM:
                flush()

        yield add
        if rows:
            flush()


def shard(path: Path) -> File:
    return File(path, path.stat().st_size)


def _lines(stream: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    for number, line in enumerate(stream, start=1):
        line = line.removeprefix(BOM) if number == 1 else line
        if line.strip():
            yield f"line {number}", line


FORMS = {"elements": elements, "lines": _lines}
