"""Where the pictures of a data set are: in files of their own, in zip archives, in parquet tables."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from pet_bench.data.places import SUFFIXES, Place, members, named_as_picture, stamp_of, stem, table
from pet_bench.errors import UserError
from pet_bench.files import impostor_at


class Album:
    """The pictures of a folder by name: below `images/`, in `images.zip` and `images/*.zip`, in `images*.parquet` and
    `images/*.parquet`. What is found earlier in this list is taken. Where there is no `images/`, it may lie beside the
    folder under its name, `images/nlvr/` for `nlvr/`, as in `data.shards`.

    A name is a path below `images/`, or in an archive, or the last part of one; in a table it is the column `id`;
    always without the suffix. Nothing is ever written where a name in an archive says. A table may also be an index of
    pictures in other tables, which lie below its folder or are linked there (`places.table`); these come last, in the
    order of their names.
    """

    def __init__(self, folder: Path):
        self.folder, self.home = folder, folder / "images"
        if (beside := folder.parent / "images" / folder.name).is_dir() and not self.home.exists():
            self.home = beside
        self.faults: list[str] = []  # of archives and tables as a whole
        self.twice: dict[str, tuple[Place, Place]] = {}

    def find(self, name: str) -> Place:
        """Raises UserError where there is none, or more than one."""
        name, places = stem(name), self.places
        one, other = self.twice.get(name, (None, None))
        if one is not None and places[name] is one:
            raise UserError(f"picture {self.home / name} is there twice: {one} and {other}")
        place = None
        try:
            place = places[name]
            if place.within:
                return place
            return place._replace(stamp=stamp_of(place.file))
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
        self._add(places, ((path.relative_to(self.home), Place(path)) for path in paths if named_as_picture(path)))
        for kind, read in ((".zip", members), (".parquet", table)):
            beside = (path for path in self.folder.glob(f"images*{kind}") if kind != ".zip" or path.stem == "images")
            named: list[tuple[Path | PurePosixPath, Place]] = []
            indexes: list[list[tuple[PurePosixPath, Place]]] = []
            for path in [*sorted(beside), *(path for path in paths if path.suffix.lower() == kind)]:
                try:
                    found = read(path)
                    if found and found[0][1].file != path:
                        indexes.append(found)
                    else:
                        named += found
                except UserError as error:
                    self.faults += error.faults
                except Exception as error:  # a damaged file can fail in any way its format knows
                    self.faults.append(f"pictures {path} {impostor_at(path) or f'cannot be read: {error}'}")
            for pictures in (named, *indexes):
                self._add(places, pictures)
        return places

    def _add(self, places: dict[str, Place], pictures: Any) -> None:
        """Pictures of one kind, by their paths: names that are there already stay."""
        own: dict[str, Place] = {}
        for path, place in pictures:
            for name in dict.fromkeys((stem(path.as_posix()), stem(path.name))):
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
        return stem(name) not in self.album(folder).places

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
