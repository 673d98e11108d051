"""VL-Adapter's data set as the hub has it: features in parquet shards, annotations in a folder of their own.

    annotations/<as in a VL-Adapter workspace>                   vqa/karpathy_test.json, COCO/dataset_coco.json, …
    features/<folder>/data_clip_RN101_att/part-00000.parquet     id: string, features: halves (49, 2048) as lists
    images/<folder>/part-00000.parquet                           id: string, image: struct<bytes, path>
    manifest.json.gz                                             what is in which file, see `data.manifest`

A root is laid out so if the manifest or a folder of shards is there; files may be links, as in the hub's cache. Nothing
is unpacked: ids are read once, and values in batches of few rows, whatever the size of a row group. Columns beside the
two are ignored; a name that is there twice is refused.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pet_bench.errors import UserError
from pet_bench.files import impostor_at

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

HALF = np.dtype("<f2")
GRIDS = "data_clip_RN101_att"
MANIFEST = "manifest.json.gz"
BATCH = 16  # rows in memory at once
BUFFER = 1 << 16  # bytes of a column that are read at once
NEAR = 64  # rows from the start of a row group that are quick to reach
DEPTH = 2  # batches that wait
READERS = 2  # row groups that are decoded at once, at 90 MB each

Stamp = tuple[int, int]  # size and time of a file


def is_hub(root: Path) -> bool:
    return (root / MANIFEST).is_file() or any((root / "features").glob(f"*/{GRIDS}"))


def annotations_of(root: Path) -> Path:
    """The folder that annotation files are in, each at its place in a VL-Adapter workspace."""
    return root / "annotations" if is_hub(root) else root


def refuse_cache(root: Path) -> None:
    """Raises UserError for a folder of the hub's cache that may hold several revisions."""
    if (root / "snapshots").is_dir() and (root / "blobs").is_dir():
        there = ", ".join(sorted(str(path) for path in (root / "snapshots").iterdir()))
        raise UserError(f"{root} is a folder of the hub's cache: say which revision (there: {there or 'none'})")


def shards_of(root: Path | str) -> Shards | None:
    """The shards of a root that is laid out so. What is known of them is kept while their files stay as they are."""
    root = Path(root)
    if not is_hub(root):
        return None
    return _shards(root, tuple(_listing(root)))


def _listing(root: Path) -> Iterator[tuple[str, Path, Stamp | None]]:
    """Folder, shard and its stamp; None where it is a link that leads nowhere."""
    for path in sorted((root / "features").glob(f"*/{GRIDS}/*.parquet")):
        try:
            status = path.stat()
        except OSError:
            yield path.parts[-3], path, None
        else:
            yield path.parts[-3], path, (status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4)
def _shards(root: Path, listing: tuple[tuple[str, Path, Stamp | None], ...]) -> Shards:
    return Shards(root, listing)


class Group(NamedTuple):
    """A row group of a file. first: the number of its first row among all of its folder; row: among its file's."""

    path: Path
    number: int
    first: int
    row: int
    shape: tuple[int, int]
    stamp: Stamp


class Catalogue:
    """Which image's feature is in which row of the shards of a folder.

    faults: a line for everything by which a shard cannot be used; none of its rows is in the catalogue then.
    """

    def __init__(self, home: Path, files: Iterable[tuple[Path, Stamp | None]]):
        self.home = home
        self.faults: list[str] = []
        self.groups: list[Group] = []
        self.rows: dict[str, int] = {}
        self.counts: dict[str, int] = {}  # of rows, by the shard's name
        for path, stamp in files:
            try:
                self._add(path, stamp)
            except UserError as error:
                self.faults += error.faults
        self.firsts = [group.first for group in self.groups]

    def _add(self, path: Path, stamp: Stamp | None) -> None:
        if stamp is None:
            raise UserError(f"{path} is a link to a file that is missing: download it again")
        shape, sizes, ids = _contents(path)
        start, faults = sum(self.counts.values()), []
        for row, id in enumerate(ids):
            if id is None:
                faults.append(f"{path}: row {row}.id is null")
            elif fault := _odd(id):
                faults.append(f"{path}: row {row}.id {fault}")
            elif id in self.rows:
                other, there = self.at(self.rows[id]) if self.rows[id] < start else (None, self.rows[id] - start)
                where = f"row {there}" if other is None else f"{other.path}, row {other.row + there}"
                faults.append(f"{path}: row {row}.id {id!r} is there twice, also in {where}")
            else:
                self.rows[id] = start + row
        if faults:
            for id in [id for id, number in self.rows.items() if number >= start]:
                del self.rows[id]
            rest = f" and {len(faults) - 1} faults more" * (len(faults) > 1)
            raise UserError(faults[0] + rest)
        row = 0
        for index, size in enumerate(sizes):
            self.groups.append(Group(path, index, start + row, row, shape, stamp))
            row += size
        self.counts[path.name] = row
        self.firsts = [group.first for group in self.groups]

    def at(self, number: int) -> tuple[Group, int]:
        """Row group, and row in it, of a row of the folder."""
        group = self.groups[bisect_right(self.firsts, number) - 1]
        return group, number - group.first

    def find(self, id: str) -> tuple[Group, int]:
        """Raises KeyError where it is in no shard."""
        return self.at(self.rows[id])


class Shards:
    """The features of a root, by keys `<folder>/<image>`. A folder's ids are read when they are first asked for."""

    def __init__(self, root: Path, listing: Iterable[tuple[str, Path, Stamp | None]]):
        self.root = root
        self.files: dict[str, list[tuple[Path, Stamp | None]]] = {}
        for folder, path, stamp in listing:
            self.files.setdefault(folder, []).append((path, stamp))
        self.catalogues: dict[str, Catalogue] = {}

    def catalogue(self, folder: str) -> Catalogue:
        if folder not in self.catalogues:
            home, plain = self.root / "features" / folder / GRIDS, self.root / folder / "clip_features" / GRIDS
            made = self.catalogues[folder] = Catalogue(home, self.files.get(folder, ()))
            if folder in self.files and plain.is_dir():
                made.faults.append(f"features of {folder} are there twice, in {home} and in {plain}: keep one of them")
        return self.catalogues[folder]

    def find(self, key: str) -> tuple[Group, int]:
        """Raises KeyError where it is in no shard."""
        folder, image = key.split("/", 1)
        return self.catalogue(folder).find(image)

    def summary(self) -> str:
        """`COCO 123,287 in 31 shards, GQA …` of the folders that have been looked into, the others by their files."""
        parts = []
        for folder, files in self.files.items():
            known = self.catalogues.get(folder)
            count = f"{len(known.rows):,} images in " if known else ""
            parts.append(f"{folder} {count}{len(files):,} shard{'s' * (len(files) > 1)}")
        return ", ".join(parts)

    def where(self, key: str) -> str:
        """File and row, for messages; raises KeyError."""
        group, row = self.find(key)
        return f"{group.path}: row {group.row + row}"

    def stamp(self, key: str) -> Stamp:
        """Of the file that it is in; raises KeyError."""
        return self.find(key)[0].stamp

    def lack(self, key: str) -> bool:
        folder, image = key.split("/", 1)
        return image not in self.catalogue(folder).rows

    def faults(self, keys: Iterable[str]) -> list[str]:
        """What is wrong with the shards of these keys' folders."""
        folders = dict.fromkeys(key.split("/", 1)[0] for key in keys)
        return [fault for folder in folders for fault in self.catalogue(folder).faults]

    def check(self, key: str, shape: tuple[int, int]) -> Group:
        """The row group that it is in; raises UserError where that is none, or its features have another shape."""
        try:
            group, _ = self.find(key)
        except KeyError:
            catalogue = self.catalogue(key.split("/", 1)[0])
            lost = f"feature {key!r} is in none of the {len(catalogue.counts)} shards in {catalogue.home}"
            raise UserError(*(catalogue.faults or [lost])) from None
        if group.shape != shape:
            raise UserError(f"{group.path}: features have shape {group.shape}, expected {shape}")
        return group

    def near(self, keys: Iterable[str], most: int) -> set[str]:
        """Some of these, about `most`, that are quick to read: what is wanted of the first rows of each shard."""
        groups: dict[Group, list[str]] = {}
        for key in keys:
            try:
                group, row = self.find(key)
            except KeyError:
                continue
            found = groups.setdefault(group, [])
            if row < NEAR:
                found.append(key)
        each = -(-most // max(1, len(groups)))
        return {key for found in groups.values() for key in islice(found, each)}

    def read(self, keys: Iterable[str], shape: tuple[int, int]) -> Iterator[tuple[str, np.ndarray | UserError]]:
        """Each feature (N, f) as it is stored, or what is wrong with it, in the order of two shards at once.

        An array is a view of the batch, not to be kept.
        """
        wanted: defaultdict[Group, dict[int, str]] = defaultdict(dict)
        for key in keys:
            try:
                wanted[self.check(key, shape)][self.find(key)[1]] = key
            except UserError as error:
                yield key, error
        yield from _by_turns(_rows(group, wanted[group]) for group in sorted(wanted))

    def feature(self, key: str) -> np.ndarray:
        """One feature (N, f). Raises KeyError where there is none, UserError where it cannot be read."""
        group, row = self.find(key)
        for _, found in _rows(group, {row: key}):
            if isinstance(found, UserError):
                raise found
            return found.copy()
        raise KeyError(key)


def _by_turns(streams: Iterator[Iterator[tuple[str, np.ndarray | UserError]]]):
    """One of each of `READERS` streams after the other; where one ends, the next takes its place."""
    reading = deque(islice(streams, READERS))
    while reading:
        stream = reading.popleft()
        if (one := next(stream, None)) is None:
            reading.extend(islice(streams, 1))
        else:
            reading.append(stream)
            yield one


def _rows(group: Group, wanted: dict[int, str]) -> Iterator[tuple[str, np.ndarray | UserError]]:
    """The rows of a row group by number, with their keys: decoded in another thread, while this one works on them."""
    last, left, row = max(wanted), dict(wanted), 0
    try:
        for column in _ahead(_columns(group, last)):
            values = _values(column, group.shape)
            for i in range(len(column)):
                if (key := left.pop(row + i, None)) is not None:
                    one = values[i] if values is not None else _values(column.slice(i, 1), group.shape)
                    null = UserError(f"{group.path}: row {group.row + row + i}.features holds null")
                    yield key, null if one is None else one.reshape(group.shape)
            row += len(column)
        why = "the row group ends there"
    except Exception as error:  # a damaged file can fail in any way its format knows
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
    broken = UserError(f"{group.path}: row {group.row + row}.features cannot be read: {why}")
    yield from ((key, broken) for key in left.values())


def _columns(group: Group, last: int) -> Iterator[pa.Array]:
    row = 0
    with _opened(group.path) as file:
        for batch in file.iter_batches(BATCH, row_groups=[group.number], columns=["features"], use_threads=False):
            yield batch.column(0)
            if (row := row + len(batch)) > last:
                return


def _ahead(columns: Iterator[pa.Array]) -> Iterator[pa.Array]:
    with ThreadPoolExecutor(1, "shards") as thread:
        waiting = deque(thread.submit(next, columns, None) for _ in range(DEPTH))
        while (column := waiting.popleft().result()) is not None:
            waiting.append(thread.submit(next, columns, None))
            yield column


def _values(column: pa.Array, shape: tuple[int, int]) -> np.ndarray | None:
    """(rows, N, f) without a copy; None where there is a null in it."""
    vectors = _within(column)
    numbers = _within(vectors)
    if column.null_count or vectors.null_count or numbers.null_count:
        return None
    buffer = numbers.buffers()[1]  # as `to_numpy` gives it, which imports pandas first
    return np.frombuffer(buffer, HALF, len(numbers), HALF.itemsize * numbers.offset).reshape(-1, *shape)


def _within(lists: pa.FixedSizeListArray) -> pa.Array:
    """What is in these lists, one behind the other."""
    size = lists.type.list_size
    return lists.values.slice(lists.offset * size, len(lists) * size)


def _opened(path: Path) -> pq.ParquetFile:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False)


def _contents(path: Path) -> tuple[tuple[int, int], list[int], list[str | None]]:
    """Shape of the features, rows of each row group, and the ids; raises UserError where the file is no such shard."""
    try:
        if odd := impostor_at(path):
            raise UserError(f"{path} {odd}")
        with _opened(path) as file:
            shape = _shape(path, file.schema_arrow)
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            ids = [id for batch in file.iter_batches(columns=["id"]) for id in batch.column(0).to_pylist()]
    except UserError:
        raise
    except Exception as error:  # as above
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be read: {why}") from None
    if not ids:
        raise UserError(f"{path} has no rows")
    if len(ids) != sum(sizes):
        raise UserError(f"{path} has {len(ids)} ids, expected {sum(sizes)}, its number of rows")
    return shape, sizes, ids


def _shape(path: Path, schema: pa.Schema) -> tuple[int, int]:
    import pyarrow as pa

    faults = []
    for name, expected in (("id", "string"), ("features", "fixed_size_list<fixed_size_list<halffloat>>")):
        if (count := schema.names.count(name)) != 1:
            there = ", ".join(f"{field.name}: {field.type}" for field in schema) or "none"
            found = f"is there {count} times" if count else "is missing"
            faults.append(f"column {name} {found}, expected {name}: {expected} (columns: {there})")
        elif not (_is_text if name == "id" else _is_grid)(kind := schema.field(name).type):
            faults.append(f"column {name} is of type {kind}, expected {expected}")
    if faults:
        raise UserError(f"{path}: {'; '.join(faults)}")
    kind = schema.field("features").type
    assert isinstance(kind, pa.FixedSizeListType) and isinstance(kind.value_type, pa.FixedSizeListType)
    return kind.list_size, kind.value_type.list_size


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_grid(kind: pa.DataType) -> bool:
    import pyarrow as pa

    lists = pa.types.is_fixed_size_list
    return lists(kind) and lists(kind.value_type) and pa.types.is_float16(kind.value_type.value_type)


def _odd(id: str) -> str:
    """What keeps an id from being an image's name, if anything; no path is made of one here, but other tools do."""
    if not id.strip():
        return "is empty"
    if id in (".", "..") or any(mark in id for mark in "/\\\0"):
        return f"is {id!r}, expected the name of an image, no path"
    return ""
