"""Where a picture is, and which there are in an archive, a table, or an index of tables that lie elsewhere."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from pet_bench.errors import UserError
from pet_bench.files import impostor_at

if TYPE_CHECKING:
    import pyarrow.parquet as pq

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
GROUP = 1 << 34  # of a parquet table's row group, unpacked
INDEX = ("id", "file", "member", "column", "group", "row", "item")  # the columns of an index, by which it is known
TABLE = "id: string and image: struct<bytes: binary, path: string>"


class Cell(NamedTuple):
    """Which picture of a parquet table: row group, row in it, and which of the row's, where its column has lists."""

    group: int
    row: int
    column: str = "image"
    item: int = 0


class Place(NamedTuple):
    """Where a picture is: a file of its own, an archive's member, or a cell of a parquet table.

    stamp: two numbers that change with it, those of a file of its own being size and time.
    """

    file: Path
    within: str | Cell = ""
    stamp: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        if isinstance(self.within, Cell):
            return f"{self.file}, row {self.within.row} of row group {self.within.group}"
        return f"{self.file}{f', member {self.within}' if self.within else ''}"


class OtherColumns(UserError):
    """A sound table, but not of pictures with names."""


Pictures = list[tuple[PurePosixPath, Place]]


def named_as_picture(path: Path | PurePosixPath) -> bool:
    """Whether a file is called like a picture; macOS leaves others of such names."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and "__MACOSX" not in path.parts


def stem(name: str) -> str:
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in SUFFIXES else name


def members(path: Path) -> Pictures:
    """The pictures in a zip archive."""
    with zipfile.ZipFile(path) as archive:
        members = [(PurePosixPath(one.filename), one) for one in archive.infolist() if not one.is_dir()]
    return [
        (_below_images(name), Place(path, one.filename, (one.file_size, one.CRC)))
        for name, one in members
        if named_as_picture(name)
    ]


def _below_images(name: PurePosixPath) -> PurePosixPath:
    """`COCO/images/train2014/a.jpg` → `train2014/a.jpg`"""
    parts = name.parts
    return PurePosixPath(*parts[parts.index("images") + 1 :]) if "images" in parts[:-1] else name


def table(path: Path) -> Pictures:
    """The pictures of a parquet table: its own where it has the columns id: string and image: struct{bytes, path};
    where it has those of `INDEX`, ones in other files.

    An index has a row a picture: its name, the file below the folder that the index is in, and where it is there: of a
    table its column, row group, row in that, and the number within the row where the column holds lists (all counted
    from 0); of a tar archive its member, in place of a column.
    """
    import pyarrow.parquet as pq

    if odd := impostor_at(path):
        raise UserError(f"pictures {path} {odd}")
    with pq.ParquetFile(path) as file:
        return list(_index(path, file) if {*INDEX} <= {*file.schema_arrow.names} else _table(path, file))


def _table(path: Path, file: pq.ParquetFile) -> Iterator[tuple[PurePosixPath, Place]]:
    import pyarrow as pa

    kinds = {field.name: field.type for field in file.schema_arrow}
    image, id = kinds.get("image"), kinds.get("id")
    whole = image is not None and pa.types.is_struct(image) and image.get_field_index("bytes") >= 0
    if not whole or id is None or not (pa.types.is_string(id) or pa.types.is_large_string(id)):
        there = ", ".join(f"{name}: {kind}" for name, kind in kinds.items())
        raise OtherColumns(f"pictures {path} has the columns {there}, expected {TABLE}")
    stamp = stamp_of(path)
    for group in range(file.num_row_groups):
        size = file.metadata.row_group(group).total_byte_size
        if size > GROUP:
            raise UserError(f"pictures {path}: row group {group} has {size:,} bytes unpacked, at most {GROUP:,}")
        batches = file.iter_batches(row_groups=[group], columns=["id"])
        for row, name in enumerate(name for batch in batches for name in batch.column(0).to_pylist()):
            if name:
                yield PurePosixPath(name), Place(path, Cell(group, row), stamp)


def _index(path: Path, file: pq.ParquetFile) -> Iterator[tuple[PurePosixPath, Place]]:
    there: dict[str, tuple[Path, tuple[int, int]]] = {}
    rows = (row for batch in file.iter_batches(columns=list(INDEX)) for row in batch.to_pylist())
    for number, row in enumerate(rows):
        name = row["file"]
        if name not in there:
            if not isinstance(name, str) or name.startswith("/") or ".." in PurePosixPath(name).parts:
                raise UserError(f"pictures {path}: row {number}: file {name!r} is not below its folder")
            try:
                there[name] = path.parent / name, stamp_of(path.parent / name)
            except OSError as error:
                link = path.parent / name
                to = f" (a link to {link.readlink()})" if link.is_symlink() else ""
                raise UserError(f"pictures {path}: {link}{to} cannot be read: {error.strerror}") from None
        id, column, member, numbers = row["id"], row["column"], row["member"], [row[key] for key in INDEX[4:]]
        if not id or not (member or (column and all(type(n) is int and n >= 0 for n in numbers))):
            raise UserError(f"pictures {path}: row {number} names no picture: {row}")
        target, stamp = there[name]
        yield PurePosixPath(id), Place(target, member or Cell(numbers[0], numbers[1], column, numbers[2]), stamp)


def stamp_of(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
