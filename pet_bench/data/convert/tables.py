"""Tables of the hub: parquet files as `huggingface_hub` lays them out, known by their columns.

A converter names the tables that it can read (`Converter.tables`), each a `Layout`: columns with their kinds, and which
splits and configurations. Who owns the copy and what its folder is called does not matter. `convert` finds them, checks
that their shards are all there and alike, and the converter's `run` reads rows of those that `job.has`:

    ROWS = Layout("okvqa-val", {"question_id": "string", "answers": "list<string>", "image": "image"}, split="val*")

    for spot, row in job.table("okvqa-val", Row, key="question_id"):      # Row: a TypedDict of the columns to read
        if not row["answers"]:
            job.fault(spot, "answers are none")                           # okvqa: <file>: row 17: answers are none
        add({...})

Of a column of pictures, rows have the paths alone (`Picture`). Their bytes are loaded by `Table.pictures`, which
streams them, and by who reads pictures later: `with job.album(folder, name) as add` names some for a folder of the data
root, `add(id, spot, column)`; they are left where they are, and read from there (`pet_bench.data.places`).
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import TypedDict

from pet_bench.data.convert import webdataset
from pet_bench.errors import UserError
from pet_bench.files import impostor_at

SHARD = re.compile(r"(.+?)-(\d{5})-of-(\d{5})(?:-[0-9a-f]{16})?")  # <split>-<number>-of-<how many>[-<hash>]
ROWS = 256  # in memory at once
PICTURES = 16
GROUP = 1 << 30  # bytes, unpacked, that are read of a row group; of one with pictures as below
PICTURE_GROUP = 1 << 34
BROKEN = (pa.ArrowException, OSError, ValueError, OverflowError)  # what a damaged file raises


@dataclass(frozen=True)
class Layout:
    """A table as it is published.

    columns: the kind of each (`kind_of`), of which all must be there; others: columns that may be there too, of any
    kind, "*" where not all are known. split, config: glob patterns of the split's name, which its files tell, and of
    the configuration, its folder. needed: whether something is missing without it. shared: whether it is other tasks'
    table too, so that having it does not mean that this task is wanted. instead: names of the converter's downloads
    that it stands for. origin: where it comes from.
    """

    name: str
    columns: Mapping[str, str]
    split: str = "*"
    config: str = "*"
    others: tuple[str, ...] = ()
    needed: bool = False
    shared: bool = False
    instead: tuple[str, ...] = ()
    origin: str = ""

    def differences(self, columns: Mapping[str, str]) -> list[str]:
        """What is other than published in a table of these columns."""
        said = []
        for name, kind in self.columns.items():
            if name not in columns:
                said.append(f"column {name} ({kind}) is missing")
            elif columns[name] != kind:
                said.append(f"column {name} is {columns[name]}, expected {kind}")
        if "*" not in self.others:
            unknown = [name for name in columns if name not in self.columns and name not in self.others]
            said += [f"column {name} is none of this table ({', '.join(self.columns)})" for name in unknown]
        return said

    def likeness(self, columns: Mapping[str, str]) -> float:
        """Of the columns of both, how many agree; half where the name alone does."""
        names = {name for name in columns if name in self.columns or name not in self.others}
        same = sum(columns.get(name) == kind for name, kind in self.columns.items())
        return (len(names & self.columns.keys()) + same) / (2 * len(names | self.columns.keys()))


class Picture(TypedDict):
    """What a row holds of a picture; its bytes are left out."""

    path: str | None


class Spot(NamedTuple):
    """A row: its number in its file, and in which row group it is the how-manieth; or of an archive, its picture."""

    path: Path
    number: int
    group: int
    within: int
    member: str = ""

    def __str__(self) -> str:
        return f"{self.path}: row {self.number}"


@dataclass
class Table:
    """One split: its files in order, all with these columns."""

    folder: Path
    config: str
    split: str
    shards: list[Path]
    columns: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        if len(self.shards) == 1:
            return str(self.shards[0])
        return f"{self.folder}/{self.split}*{self.shards[0].suffix} ({len(self.shards)} files)"

    @property
    def size(self) -> int:
        return sum(path.stat().st_size for path in self.shards)

    def rows(self, path: Path, columns: Sequence[str]) -> Iterator[tuple[Spot, dict[str, Any]]]:
        """The rows of one shard, without the bytes of pictures. Raises UserError where it cannot be read."""
        if path.suffix == ".tar":
            for number, (member, row) in enumerate(webdataset.rows(path)):
                yield Spot(path, number, 0, number, member), row
            return
        light = {name for name in columns if "image" in self.columns.get(name, "")}
        for spot, batch in _batches(path, columns, ROWS, GROUP, light):
            for number, row in enumerate(batch.to_pylist()):
                yield spot._replace(number=spot.number + number, within=spot.within + number), row

    def pictures(self, column: str) -> Iterator[tuple[Spot, list[bytes | None]]]:
        """The encoded pictures of every row, of an `image` column one, of a `list<image>` any number.

        A few rows are in memory at once. Raises UserError where a shard cannot be read.
        """
        for path in self.shards:
            for spot, batch in _batches(path, [column], PICTURES, PICTURE_GROUP):
                for number, row in enumerate(batch.to_pylist()):
                    found = row[column] if isinstance(row[column], list) else [row[column]]
                    at = spot._replace(number=spot.number + number, within=spot.within + number)
                    yield at, [picture and picture["bytes"] for picture in found]


def kind_of(type: pa.DataType) -> str:
    """How `Layout` calls a type of Arrow's: string, int, float, bool, image, struct, list<…>, or as Arrow does."""
    if pa.types.is_dictionary(type):
        return kind_of(type.value_type)
    if pa.types.is_list(type) or pa.types.is_large_list(type) or pa.types.is_fixed_size_list(type):
        return f"list<{kind_of(type.value_type)}>"
    if pa.types.is_struct(type):
        return "image" if {child.name for child in type} == {"bytes", "path"} else "struct"
    tests = {
        "string": (pa.types.is_string, pa.types.is_large_string),
        "int": (pa.types.is_integer,),
        "float": (pa.types.is_floating,),
        "bool": (pa.types.is_boolean,),
    }
    return next((kind for kind, known in tests.items() if any(test(type) for test in known)), str(type))


def columns_of(path: Path) -> dict[str, str]:
    """The kinds of a file's columns. Raises UserError where it is no parquet, or only a part of one."""
    if path.suffix == ".tar":
        return webdataset.columns(path)
    with _reading(path), pq.ParquetFile(path) as file:
        return {column.name: kind_of(column.type) for column in file.schema_arrow}


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raises UserError for whatever a damaged file does."""
    try:
        yield
    except BROKEN as error:
        why = str(getattr(error, "strerror", None) or error).splitlines()[0]
        raise UserError(f"{path} {impostor_at(path) or f'cannot be read (cut off?): {why}'}") from None


def _batches(
    path: Path, columns: Sequence[str], size: int, most: int, light: Container[str] = ()
) -> Iterator[tuple[Spot, pa.RecordBatch]]:
    """Rows of some columns, with the place of the first of each batch. light: columns of which bytes are left out."""
    number = 0
    with _reading(path), pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
        for group in range(file.num_row_groups):
            about, within = file.metadata.row_group(group), 0
            chunks = [about.column(i) for i in range(about.num_columns)]
            sizes = {chunk.path_in_schema: chunk.total_uncompressed_size for chunk in chunks}
            leaves = [leaf for leaf in sizes if leaf.split(".")[0] in columns]
            leaves = [leaf for leaf in leaves if not (leaf.split(".")[0] in light and leaf.endswith(".bytes"))]
            if (wanted := sum(sizes[leaf] for leaf in leaves)) > most:
                raise UserError(f"{path}: row group {group} has {wanted:,} bytes unpacked, at most {most:,} are read")
            batches = file.iter_batches(size, row_groups=[group], columns=leaves, use_threads=False)
            for batch in batches:
                yield Spot(path, number, group, within), batch
                number, within = number + batch.num_rows, within + batch.num_rows
