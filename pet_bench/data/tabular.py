"""Small tables of people's own: CSV, TSV, JSON, JSON lines and parquet as rows of plain values."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pet_bench.data.rows import read_json, read_json_lines, shown
from pet_bench.errors import UserError, unknown
from pet_bench.files import impostor_at, read_text

Row = dict[str, Any]
Rows = list[tuple[str, Row]]
Value = str | int | float | bool | list[str] | None
LARGEST = 1 << 30  # bytes of a parquet table's columns, unpacked


def read_table(what: str, path: Path, columns: Mapping[str, Iterable[str]]) -> Rows:
    """(place, row) of each row, `line 2` in CSV, else `row 1`. columns: those that are wanted, by what wants them.

    Raises UserError with all faults together: a file that is missing, broken or empty, a column that is not there, a
    line of another length than the first, a value that is no text, number or list of texts.
    """
    wanted = dict.fromkeys(name for names in columns.values() for name in names)
    rows = FORMS[path.suffix.lower()](what, path, [*wanted])
    if not rows:
        raise UserError(f"{what}: {path} holds no rows")
    lacking = [
        unknown(f"{what}: {path}: column ({key})", name, rows[0][1])
        for key, names in columns.items()
        for name in dict.fromkeys(names)
        if name not in rows[0][1]
    ]
    if lacking:
        raise UserError.many(lacking)
    faults = []
    for place, row in rows:
        for name in wanted:
            if name not in row:
                faults.append(f"{what}: {path}: {place}: {name} is missing")
            elif not _plain(row[name]):
                said = f"{name} is text, a number or a list of texts, found {type(row[name]).__name__}"
                faults.append(f"{what}: {path}: {place}: {said}")
    if faults:
        raise shown(faults, f"{what}: {path}")
    return rows


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float) or _texts(value)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _separated(what: str, path: Path, wanted: list[str], *, delimiter: str) -> Rows:
    reader = csv.reader(io.StringIO(read_text(path, f"{what}: table {path}")), delimiter=delimiter, strict=True)
    try:
        names = next(reader, [])
        lines = [(f"line {reader.line_num}", cells) for cells in reader if cells]
    except csv.Error as error:
        raise UserError(f"{what}: {path}: line {reader.line_num}: {error}") from None
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{what}: {path}: line 1: the column {twice[0]!r} is there twice")
    odd = [
        f"{what}: {path}: {place}: {len(cells)} values, expected {len(names)} ({', '.join(names)})"
        for place, cells in lines
        if len(cells) != len(names)
    ]
    if odd:
        raise shown(odd, f"{what}: {path}")
    return [(place, dict(zip(names, cells, strict=True))) for place, cells in lines]


def _json(what: str, path: Path, wanted: list[str]) -> Rows:
    return [(f"row {number}", row) for number, row in enumerate(read_json(what, path, list[Row]), start=1)]


def _json_lines(what: str, path: Path, wanted: list[str]) -> Rows:
    return [(f"row {number}", row) for number, row in enumerate(read_json_lines(what, path, Row), start=1)]


def _parquet(what: str, path: Path, wanted: list[str]) -> Rows:
    import pyarrow.parquet as pq

    if not path.is_file():
        raise UserError(f"{what}: table {path} is missing")
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            paths = [file.schema.column(i).path for i in range(len(file.schema.names))]
            numbers = [i for i, place in enumerate(paths) if place.split(".")[0] in wanted]
            groups = [file.metadata.row_group(group) for group in range(file.num_row_groups)]
            size = sum(group.column(i).total_uncompressed_size for group in groups for i in numbers)
            if size > LARGEST:
                raise UserError(f"{what}: {path}: its columns have {size:,} bytes unpacked, at most {LARGEST:,}")
            rows = file.read(columns=[name for name in wanted if name in names]).to_pylist()
    except UserError:
        raise
    except Exception as error:  # a damaged file can fail in any way its format knows
        raise UserError(f"{what}: {path} {impostor_at(path) or f'cannot be read: {error}'}") from None
    return [(f"row {number}", dict.fromkeys(names) | row) for number, row in enumerate(rows, start=1)]


FORMS: dict[str, Callable[[str, Path, list[str]], Rows]] = {
    ".csv": partial(_separated, delimiter=","),
    ".tsv": partial(_separated, delimiter="\t"),
    ".json": _json,
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}
