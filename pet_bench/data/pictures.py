"""How pictures become pixels: read from wherever they are, within limits, upright and in RGB."""

from __future__ import annotations

import io
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps

from pet_bench.data.places import GROUP, Cell, Place
from pet_bench.errors import UserError
from pet_bench.files import HEAD, impostor

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")  # no others of Pillow's: some run programs
PIXELS = 1 << 26  # of a picture: 200 MB in memory
BYTES = 1 << 27  # of its file, unpacked
NOTHING: tuple[int, Any] = (-1, None)
ROWS = 16  # of a parquet table that are in memory at once


class Contents:
    """Reads pictures one after the other, fastest in the order of their places: archives stay open, tables stream."""

    def __init__(self):
        self.archive: tuple[Path, zipfile.ZipFile | tarfile.TarFile] | None = None
        self.rows: tuple[tuple[Path, int, str], Iterator[tuple[int, Any]]] | None = None
        self.last: tuple[int, Any] = NOTHING  # that came of these
        self.open = ExitStack()

    def __enter__(self) -> Contents:
        return self

    def __exit__(self, *_: object) -> None:
        self.open.close()

    def picture(self, place: Place) -> Image.Image:
        """The picture at a place in RGB, upright; raises UserError that begins with the place."""
        content = self.content(place)
        try:
            return opened(io.BytesIO(content))
        except UserError as error:
            raise UserError(f"picture {place} {error}") from None

    def content(self, place: Place) -> bytes:
        """The encoded picture; raises UserError likewise."""
        try:
            content = self._content(place)
            if len(content) > BYTES:
                raise UserError(f"has more than {BYTES:,} bytes")
            if odd := impostor(content[:HEAD]):
                raise UserError(odd)
            return content
        except UserError as error:
            raise UserError(f"picture {place} {error}") from None
        except Exception as error:  # a damaged archive can fail in any way its format knows
            raise UserError(f"picture {place} cannot be read: {_why(error)}") from None

    def _content(self, place: Place) -> bytes:
        if isinstance(place.within, Cell):
            return self._cell(place.file, place.within)
        if place.within:
            return self._member(place.file, place.within)
        with place.file.open("rb") as file:
            return file.read(BYTES + 1)

    def _member(self, path: Path, name: str) -> bytes:
        if self.archive is None or self.archive[0] != path:
            self.open.close()
            self.archive = path, self.open.enter_context(_archive(path))
        archive = self.archive[1]
        if isinstance(archive, tarfile.TarFile):
            return _tarred(archive, name)
        info = archive.getinfo(name)
        if info.flag_bits & 1:
            raise UserError("is encrypted")
        if info.file_size > BYTES:
            raise UserError(f"has {info.file_size:,} bytes unpacked, at most {BYTES:,} are read")
        with archive.open(info) as member:
            return member.read(BYTES + 1)

    def _cell(self, path: Path, cell: Cell) -> bytes:
        where = path, cell.group, cell.column
        for _ in range(2):  # from where the last one was and, if that was behind this one, from the start
            if self.rows is None or self.rows[0] != where:
                self.rows, self.last = (where, _rows_of(*where)), NOTHING
            while self.last[0] < cell.row and (one := next(self.rows[1], None)):
                self.last = one
            if self.last[0] == cell.row:
                value = self.last[1].as_py()
                pictures = value if isinstance(value, list) else [value]
                if cell.item < len(pictures):
                    if not (picture := pictures[cell.item]) or picture["bytes"] is None:
                        raise UserError("has no bytes")
                    return picture["bytes"]
            self.rows = None
        raise UserError("is not there any more")


def _archive(path: Path) -> zipfile.ZipFile | tarfile.TarFile:
    return tarfile.TarFile(path) if path.suffix == ".tar" else zipfile.ZipFile(path)


def _tarred(archive: tarfile.TarFile, name: str) -> bytes:
    try:
        member = archive.extractfile(archive.getmember(name))
    except KeyError:
        raise UserError("is not there any more") from None
    if member is None:
        raise UserError("is no file")
    return member.read(BYTES + 1)


def _rows_of(path: Path, group: int, column: str) -> Iterator[tuple[int, Any]]:
    """The rows of a row group, few of them in memory at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
        about = file.metadata.row_group(group)
        if about.total_byte_size > GROUP:
            raise UserError(f"is in a row group of {about.total_byte_size:,} bytes unpacked, at most {GROUP:,}")
        if column not in file.schema_arrow.names:
            raise UserError(f"is not there any more: no column {column}")
        batches = file.iter_batches(batch_size=ROWS, row_groups=[group], columns=[column])
        yield from enumerate(value for batch in batches for value in batch.column(0))


def look(place: Place) -> None:
    """Raises UserError where a file of its own is no picture by its first bytes; others are looked at when read."""
    if place.within:
        return
    try:
        with place.file.open("rb") as file:
            if odd := impostor(file.read(HEAD)):
                raise UserError(odd)
            file.seek(0)
            _header(file)
    except UserError as error:
        raise UserError(f"picture {place} {error}") from None
    except OSError as error:
        raise UserError(f"picture {place} cannot be read: {_why(error)}") from None


def opened(file: str | Path | IO[bytes]) -> Image.Image:
    """A picture in RGB, upright as its EXIF says; the first one of several. Raises UserError: "cannot be read: …"."""
    with _header(file) as image:
        try:
            return in_rgb(ImageOps.exif_transpose(image))
        except Exception as error:  # a damaged picture can fail in any way its format knows
            raise UserError(f"cannot be read: {_why(error)}") from None


def _header(file: str | Path | IO[bytes]) -> Image.Image:
    """A picture of which only the header has been read; raises UserError."""
    try:
        with warnings.catch_warnings(action="ignore"):  # that it is large, or its metadata odd
            image = Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError:
        raise UserError(f"has more than {PIXELS:,} pixels") from None
    except Image.UnidentifiedImageError:
        raise UserError(f"is no picture (possible: {', '.join(FORMATS)})") from None
    except Exception as error:
        raise UserError(f"cannot be read: {_why(error)}") from None
    width, height = image.size
    if width * height > PIXELS:
        image.close()
        raise UserError(f"has {width} × {height} pixels, at most {PIXELS:,} are read")
    return image


def in_rgb(image: Image.Image) -> Image.Image:
    """The same in RGB: 16 bits become 8, and what is transparent has the colour that it has beneath."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    with suppress(KeyError):
        del image.info["transparency"]
    return image.convert("RGB")


def _why(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__).splitlines()[0]
