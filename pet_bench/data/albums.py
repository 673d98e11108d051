"""Where the pictures of a data set are: in files of their own, in zip archives, in parquet tables."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from pet_bench.errors import UserError
from pet_bench.files import impostor_at

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
GROUP = 1 << 34  # of a parquet table's row group, unpacked


class Place(NamedTuple):
    """Where a picture is: a file of its own, a zip archive's member, or (row group, row in it) of a parquet table.

    stamp: two numbers that change with it, those of a file of its own being size and time.
    """

    file: Path
    within: str | tuple[int, int] = ""
    stamp: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        if isinstance(self.within, tuple):
            return f"{self.file}, row {self.within[1]} of row group {self.within[0]}"
        return f"{self.file}{f', member {self.within}' if self.within else ''}"


class Album:
    """The pictures of a folder by name: below `images/`, in `images.zip` and `images/*.zip`, in `images*.parquet` and
    `images/*.parquet`. What is found earlier in this list is taken. Where there is no `images/`, it may lie beside the
    folder under its name, `images/nlvr/` for `nlvr/`, as in `data.shards`.

    A name is a path below `images/`, or in an archive, or the last part of one; in a table it is the column `id`;
    always without the suffix. Nothing is ever written where a name in an archive says.
    """

    def __init__(self, folder: Path):
        self.folder, self.home = folder, folder / "images"
        if (beside := folder.parent / "images" / folder.name).is_dir() and not self.home.exists():
            self.home = beside
        self.faults: list[str] = []  # of archives and tables as a whole
        self.twice: dict[str, tuple[Place, Place]] = {}

    def find(self, name: str) -> Place:
        """Raises UserError where there is none, or more than one."""
        name, places = _stem(name), self.places
        one, other = self.twice.get(name, (None, None))
        if one is not None and places[name] is one:
            raise UserError(f"picture {self.home / name} is there twice: {one} and {other}")
        place = None
        try:
            place = places[name]
            if place.within:
                return place
            status = place.file.stat()
            return place._replace(stamp=(status.st_size, status.st_mtime_ns))
        except (KeyError, FileNotFoundError):
            raise UserError(
                f"picture {self.home / name} is missing (possible: {', '.join(SUFFIXES)} there or below, or in "
                f"{self.home.name}.zip, {self.home.name}*.parquet or such files in {self.home.name}/)"
            ) from None
        except OSError as error:
            raise UserError(f"picture {place} cannot be read: {error.strerror or error}") from None

    @cached_property
    def places(self) -> dict[str, Place]:
        """Every picture, by each of its names."""
        places: dict[str, Place] = {}
        paths = sorted(_walk(self.home))
        self._add(places, ((path.relative_to(self.home), Place(path)) for path in paths if _pictured(path)))
        for kind, read in ((".zip", _members), (".parquet", _table)):
            beside = (path for path in self.folder.glob(f"images*{kind}") if kind != ".zip" or path.stem == "images")
            named: list[tuple[Path | PurePosixPath, Place]] = []
            for path in [*sorted(beside), *(path for path in paths if path.suffix.lower() == kind)]:
                try:
                    named += read(path)
                except UserError as error:
                    self.faults += error.faults
                except Exception as error:  # a damaged file can fail in any way its format knows
                    self.faults.append(f"pictures {path} {impostor_at(path) or f'cannot be read: {error}'}")
            self._add(places, named)
        return places

    def _add(self, places: dict[str, Place], pictures: Any) -> None:
        """Pictures of one kind, by their paths: names that are there already stay."""
        own: dict[str, Place] = {}
        for path, place in pictures:
            for name in dict.fromkeys((_stem(path.as_posix()), _stem(path.name))):
                if name not in own:
                    own[name] = place
                elif own[name] is not place:
                    self.twice.setdefault(name, (own[name], place))
        for name, place in own.items():
            places.setdefault(name, place)


class Albums:
    """The albums of a data root, each looked through once."""

    def __init__(self):
        self.albums: dict[Path, Album] = {}

    def find(self, folder: Path, name: str) -> Place:
        """Raises UserError as `Album.find` does."""
        return self.album(folder).find(name)

    def lack(self, folder: Path, name: str) -> bool:
        """Whether there is no such picture."""
        return _stem(name) not in self.album(folder).places

    def album(self, folder: Path) -> Album:
        return self.albums.setdefault(folder, Album(folder))

    @property
    def faults(self) -> list[str]:
        return [fault for album in self.albums.values() for fault in album.faults]


def _walk(home: Path) -> Iterator[Path]:
    """All files below a folder; links to folders are followed, each folder once."""
    seen = set()
    for here, folders, files in os.walk(home, followlinks=True):
        status = os.stat(here)  # noqa: PTH116
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        yield from (Path(here, file) for file in files)


def _pictured(path: Path | PurePosixPath) -> bool:
    """Whether a file is called like a picture; macOS leaves others of such names."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and "__MACOSX" not in path.parts


def _stem(name: str) -> str:
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in SUFFIXES else name


def _members(path: Path) -> list[tuple[PurePosixPath, Place]]:
    """The pictures in a zip archive."""
    with zipfile.ZipFile(path) as archive:
        members = [(PurePosixPath(one.filename), one) for one in archive.infolist() if not one.is_dir()]
    return [
        (_below_images(name), Place(path, one.filename, (one.file_size, one.CRC)))
        for name, one in members
        if _pictured(name)
    ]


def _below_images(name: PurePosixPath) -> PurePosixPath:
    """`COCO/images/train2014/a.jpg` → `train2014/a.jpg`"""
    parts = name.parts
    return PurePosixPath(*parts[parts.index("images") + 1 :]) if "images" in parts[:-1] else name


def _table(path: Path) -> list[tuple[PurePosixPath, Place]]:
    """The pictures in a parquet table with the columns id: string and image: struct{bytes, path}."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if odd := impostor_at(path):
        raise UserError(f"pictures {path} {odd}")
    status = path.stat()
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        kinds = {field.name: field.type for field in schema}
        image, id = kinds.get("image"), kinds.get("id")
        whole = image is not None and pa.types.is_struct(image) and image.get_field_index("bytes") >= 0
        if not whole or id is None or not (pa.types.is_string(id) or pa.types.is_large_string(id)):
            there = ", ".join(f"{name}: {kind}" for name, kind in kinds.items())
            raise UserError(
                f"pictures {path} has the columns {there}, expected id: string and image: struct<bytes: binary, path: "
                "string>"
            )
        pictures = []
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).total_byte_size
            if size > GROUP:
                raise UserError(f"pictures {path}: row group {group} has {size:,} bytes unpacked, at most {GROUP:,}")
            batches = file.iter_batches(row_groups=[group], columns=["id"])
            for row, name in enumerate(name for batch in batches for name in batch.column(0).to_pylist()):
                if name:
                    place = Place(path, (group, row), (status.st_size, status.st_mtime_ns))
                    pictures.append((PurePosixPath(name), place))
    return pictures
