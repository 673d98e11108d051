"""All features that a run needs, packed once into one memory-mapped array."""

from __future__ import annotations

import io
import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from pet_bench.data.journal import journalled
from pet_bench.data.manifest import differences
from pet_bench.data.packing import BLOCK, MANIFEST, PackedFolder, Progress, check_space, digest
from pet_bench.data.rows import shown
from pet_bench.data.shards import HALF, Shards, Stamp
from pet_bench.data.task import SPLITS, Example, Split, Task, absent, annotation_files, open_hdf5
from pet_bench.errors import UserError, foreign
from pet_bench.files import impostor_at
from pet_bench.packed import Rows
from pet_bench.registry import title
from pet_bench.spec import Control, Visual

Sources = dict[str, "Source"]  # by feature key
Files = list[tuple[str, int, int]]  # feature key, size and time of its source file
FORMAT = 3
ARRAY, INDEX = "features.npy", "index.json"
DIGESTS, DIGITS = "digests", 24  # while it is packed: of each feature that is safe, a line each
EXPONENT = 0x7C00  # of a half


class Source(NamedTuple):
    """Where a feature is: in shards, or else in a file of its own that the task reads."""

    task: Task
    shards: Shards | None

    def file(self, root: Path, key: str) -> object:
        """What two sources have in common if they are the same feature."""
        return self.shards or self.task.feature_path(root, key)

    def absent(self, root: Path, key: str) -> bool:
        return self.shards.lack(key) if self.shards else absent(self.task.feature_path(root, key))

    def stamp(self, root: Path, key: str) -> Stamp:
        """Raises OSError or KeyError where there is none."""
        if self.shards:
            return self.shards.stamp(key)
        status = self.task.feature_path(root, key).stat()
        return status.st_size, status.st_mtime_ns


class FeatureStore(PackedFolder):
    """Features as one array (features, tokens, width) float16, and the row of each.

    `pack` makes or finds it; nothing after that opens the source files. A folder holds `features.npy`, `index.json`
    (in the order of the rows, each key with size, time and digest of its feature) and `manifest.json`: counts, shape,
    type, the SHA-256 of both files and of the listing of the source files.

    It may be packed pooled, for models that max-pool the grid anyway (`Visual.pooled`): the largest of some halves is
    one of them, so that what they read is the same to the bit. The manifest then says `tokens`, those of the source;
    digests, and so the fingerprint, are of features before pooling, and noise is as many vectors as before.
    """

    what, checked = "features", (ARRAY, INDEX)

    def __init__(self, folder: Path, keys: Iterable[str] | None = None):
        manifest = self.read(folder / MANIFEST)
        index = self.read(folder / INDEX)
        array = np.load(folder / ARRAY, mmap_mode="r", allow_pickle=False)
        if manifest["format"] != FORMAT or list(array.shape) != manifest["shape"] or array.dtype != HALF:
            raise ValueError("array and manifest disagree")
        if len(index) != len(array):
            raise ValueError("array and index disagree")
        self.folder, self.array = folder, array
        self.tokens: int = manifest.get("tokens", array.shape[1])
        rows = {key: row for row, key in enumerate(index)}
        self.index = rows if keys is None else {key: rows[key] for key in keys}
        self.fingerprint = digest(sorted((key, index[key][2]) for key in self.index))
        self.used = np.array(sorted(self.index.values()), np.int64)
        self.resident: torch.Tensor | None = None  # the rows `used` on an accelerator

    @classmethod
    def pack(
        cls,
        root: Path | str,
        wanted: Iterable[tuple[Task, Sequence[Example]]],
        visual: Visual,
        *,
        cache: Path | None = None,
        progress: Progress | None = None,
        pooled: bool | None = None,
    ) -> FeatureStore:
        """The store of all features of these examples, read from the cache if it is there.

        The cache folder is keyed by names, sizes and times of the source files; a store that holds more than is wanted
        serves too. Features are written one after the other, so memory does not grow with their number; packing that
        was stopped at any moment goes on where it was. Several processes may pack the same features at once.
        `progress(done, total)` is called while packing. pooled: to `visual.pooled` vectors, or not; None: as they are,
        or the store that is there, whichever it is.

        Raises UserError where nothing would be pooled, and for every fault together: a missing or unreadable file, a
        missing key, another shape than `visual` says, a type that is no floating-point one, values that are not finite
        (in half precision), an example with more images than `visual.images`, a cache that cannot be written.
        """
        if pooled and visual.pooled == visual.tokens:
            raise UserError(f"features: nothing to pool: all {visual.tokens} vectors of an image enter the model")
        root, wanted = Path(root), list(wanted)
        sources, faults = sources_of(root, wanted, visual)
        files = files_of(root, sources)
        folder = Path()
        if not faults and files is not None:
            folder = packed_in(files, visual, cache, pooled=pooled)
            if store := cls.open(folder, sources):
                return store
            faults = unlike_sent(root, wanted, sources)
        if faults or files is None:
            raise shown([*faults, *damage(root, sources, visual)], "features")
        kept = visual.pooled if pooled else visual.tokens
        store = cls.written(folder, lambda draft: _pack(draft, files, root, sources, visual, kept, progress))
        (store.folder / DIGESTS).unlink(missing_ok=True)
        return store

    @classmethod
    def faults(
        cls,
        root: Path,
        wanted: Iterable[tuple[Task, Sequence[Example]]],
        visual: Visual,
        cache: Path | None = None,
    ) -> list[str]:
        """What `pack` would raise, but for values; of what is packed already nothing is looked at."""
        wanted = list(wanted)
        sources, said = sources_of(root, wanted, visual)
        files = files_of(root, sources)
        if said or files is None or not cls.open(packed_in(files, visual, cache), sources):
            said += [*unlike_sent(root, wanted, sources), *damage(root, sources, visual)]
        return said

    def rows(self, examples: Sequence[Example]) -> np.ndarray:
        """Row numbers (examples, I) of examples that each have I images."""
        return np.array([[self.index[key] for key in example.images] for example in examples], np.int64)

    def to(self, device: torch.device | str, *, free: Callable[[torch.device], int] | None = None) -> FeatureStore:
        """Keep the features on an accelerator if they take at most half of what is free there; returns the store.

        The other half is the model's. `gather` then indexes on the device; its values are the same. Nothing changes on
        a CPU. free: bytes that a device has left, by default as CUDA reports them and none on other devices.
        """
        device = torch.device(device)
        if self.resident is not None and device in (there := self.resident.device, torch.device(there.type)):
            return self
        size = self.array[:1].nbytes * len(self.used)
        if device.type != "cpu" and 2 * size <= (free or free_memory)(device):
            self.resident = torch.empty(len(self.used), *self.array.shape[1:], dtype=torch.float16, device=device)
            for at in range(0, len(self.used), BLOCK):
                rows = self.used[at : at + BLOCK]
                self.resident[at : at + BLOCK] = torch.from_numpy(self.array[rows])
        return self

    @property
    def bytes_wanted(self) -> int:
        """What the features that are wanted take."""
        return len(self.index) * self.array[:1].nbytes

    @property
    def bytes_on_device(self) -> int:
        """What the features take of an accelerator's memory."""
        return self.resident.nbytes if self.resident is not None else 0

    def gather(self, rows: np.ndarray, *, control: Control = "none") -> torch.Tensor:
        """Features (B, I, N, f) float32 of row numbers (B, I), where the features are; zeros for "text-only".

        For "noise", standard normal values that depend on the feature's place among those that are wanted.
        """
        shape = (self.tokens, self.array.shape[2])
        device = self.resident.device if self.resident is not None else None
        if control == "text-only":
            return torch.zeros(*rows.shape, *shape, device=device)
        if control == "noise":
            places = np.searchsorted(self.used, rows).flat
            noise = [np.random.default_rng(place).standard_normal(shape, np.float32) for place in places]
            return torch.from_numpy(np.stack(noise).reshape(*rows.shape, *shape)).to(device or "cpu")
        if self.resident is not None:
            return self.resident[torch.from_numpy(np.searchsorted(self.used, rows)).to(device)].float()
        return torch.from_numpy(self.array[rows].astype(np.float32))

    def named(self, rows: np.ndarray, *, control: Control = "none") -> dict[str, Rows]:
        """What a model is told of which features it sees: nothing."""
        return {}


def free_memory(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


# source files --------------------------------------------------------------------------------------------------------


def sources_of(
    root: Path, wanted: Iterable[tuple[Task, Sequence[Example]]], visual: Visual
) -> tuple[Sources, list[str]]:
    """The features of these examples, by key in order, and what is wrong with the examples' images and the shards."""
    sources: Sources = {}
    faults: list[str] = []
    for task, examples in wanted:
        many = next((example for example in examples if len(example.images) > visual.images), None)
        if many:
            images = len(many.images)
            faults.append(f"{task.name}: example {many.id!r} has {images} images, at most {visual.images} fit")
        uneven = {len(example.images) for example in examples}
        if len(uneven) > 1:
            faults.append(f"{task.name}: examples have {sorted(uneven)} images; every one must have as many")
        keys, source = {key for example in examples for key in example.images}, Source(task, task.shards(root))
        if source.shards:
            faults += source.shards.faults(keys)
        with foreign(f"{title(task)}: feature_path raised"):  # for all at once: it is asked for each again and again
            for key in keys:
                Path(task.feature_path(root, key))
        for key in keys:
            other = sources.setdefault(key, source)
            if other is not source and other.file(root, key) != source.file(root, key):
                faults.append(f"{task.name}: feature key {key!r} is another file in task {other.task.name}")
    return dict(sorted(sources.items(), key=itemgetter(0))), faults


def files_of(root: Path, sources: Sources) -> Files | None:
    """Names, sizes and times of the source files; None where one is missing."""
    try:
        return [(key, *source.stamp(root, key)) for key, source in sources.items()]
    except (OSError, KeyError):
        return None


def listing_of(files: Files, visual: Visual, kept: int) -> str:
    """kept: vectors of an image."""
    return digest([FORMAT, visual.tokens, *([kept] if kept != visual.tokens else []), visual.width, *files])


def packed_in(files: Files, visual: Visual, cache: Path | None = None, *, pooled: bool | None = None) -> Path:
    """The folder of the store that holds exactly these features, or of one that holds them among others.

    The former where neither exists. pooled: as in `FeatureStore.pack`.
    """
    kept = {None: {visual.pooled, visual.tokens}, True: {visual.pooled}, False: {visual.tokens}}[pooled]

    def holds(folder: Path) -> bool:
        manifest = FeatureStore.read(folder / MANIFEST)
        if manifest["format"] != FORMAT or manifest["shape"][0] < len(files):
            return False
        _, rows, width = manifest["shape"]
        if rows not in kept or [manifest.get("tokens", rows), width] != [visual.tokens, visual.width]:
            return False
        index = FeatureStore.read(folder / INDEX)
        return all(key in index and index[key][:2] == about for key, *about in files)

    return FeatureStore.place(listing_of(files, visual, visual.pooled if pooled else visual.tokens), cache, holds)


def damage(root: Path, sources: Sources, visual: Visual) -> Iterator[str]:
    """A line for every feature that is missing or whose file, key, shape or type is wrong; no values are read."""
    for key, source in sources.items():
        try:
            look(root, key, source, visual)
        except UserError as error:
            yield from error.faults


def look(root: Path, key: str, source: Source, visual: Visual) -> None:
    """Raises UserError where a feature is missing or has another shape or type than `visual` says."""
    if source.shards:
        source.shards.check(key, (visual.tokens, visual.width))
    else:
        check_header(source.task, root, key, visual)


def unlike_sent(
    root: Path, wanted: Iterable[tuple[Task, Sequence[Example]]], sources: Sources, *, contents: bool = False
) -> list[str]:
    """In which shards and annotations are not what the hub sent, a line each (see `data.manifest`)."""
    used = {key.split("/", 1)[0] for key, source in sources.items() if source.shards}
    shards = next((source.shards for source in sources.values() if source.shards), None)
    if shards is None:
        return []
    tasks = {task.name: task for task, _ in wanted}.values()
    splits: list[tuple[Task, Split]] = [(task, split) for task in tasks for split in SPLITS if getattr(task, split)]
    annotations = {path for task, split in splits for path in annotation_files(task, root, split)}
    return differences(shards, sorted(used), annotations, contents=contents)


def check_header(task: Task, root: Path, key: str, visual: Visual) -> None:
    """As `look`, of a file. Reads no values from HDF5; other formats, whose files are small, are read whole."""

    def read() -> tuple[tuple[int, ...], np.dtype]:
        if type(task).feature is not Task.feature:
            feature = np.asarray(task.feature(root, key))
            return feature.shape, feature.dtype
        with open_hdf5(task.feature_path(root, key)) as file:
            dataset = task.dataset(file, key)
            return dataset.shape, dataset.dtype

    _check_form(task, root, key, visual, *_guarded(task, root, key, read))


def read_features(
    root: Path, sources: Sources, visual: Visual, keys: Iterable[str]
) -> Iterator[tuple[str, np.ndarray | UserError]]:
    """Each of these features in half precision, or what is wrong with it, in the order in which it is quick to read.

    An array is not to be kept.
    """
    sharded: dict[Shards, list[str]] = {}
    for key in keys:
        source = sources[key]
        if source.shards:
            sharded.setdefault(source.shards, []).append(key)
            continue
        try:
            yield key, read_feature(source.task, root, key, visual)
        except UserError as error:
            yield key, error
    for shards, some in sharded.items():
        for key, found in shards.read(some, (visual.tokens, visual.width)):
            if isinstance(found, UserError) or _finite(found):
                yield key, found
            else:
                yield key, UserError(f"{shards.where(key)}.features holds NaN or infinity")


def read_feature(task: Task, root: Path, key: str, visual: Visual) -> np.ndarray:
    """One feature of a file in half precision; raises UserError for all that can be wrong with it."""
    feature = _guarded(task, root, key, lambda: np.asarray(task.feature(root, key)))
    _check_form(task, root, key, visual, feature.shape, feature.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        half = feature.astype(HALF)
    if not _finite(half):
        path = task.feature_path(root, key)
        raise UserError(f"{task.name}: feature {key!r} in {path} holds NaN, infinity or a value beyond half precision")
    return half


def _finite(half: np.ndarray) -> bool:
    """Ten times faster than `isfinite`: of halves, the exponent of others is all ones."""
    return bool((half.view(np.uint16) & EXPONENT).max(initial=0) < EXPONENT)


def _guarded(task: Task, root: Path, key: str, read: Callable[[], Any]) -> Any:
    path = task.feature_path(root, key)
    try:
        return read()
    except FileNotFoundError:
        raise UserError(f"{task.name}: feature file {path} of {key!r} is missing") from None
    except KeyError:
        raise UserError(f"{task.name}: feature file {path} has no key for {key!r}") from None
    except Exception as error:  # a damaged file can fail in any way its format knows
        what = impostor_at(path) or f"cannot be read: {error}"
        raise UserError(f"{task.name}: feature file {path} of {key!r} {what}") from None


def _check_form(task: Task, root: Path, key: str, visual: Visual, shape: tuple[int, ...], dtype: np.dtype) -> None:
    expected, path = (visual.tokens, visual.width), task.feature_path(root, key)
    if shape != expected:
        raise UserError(f"{task.name}: feature {key!r} in {path} has shape {shape}, expected {expected}")
    if dtype.kind != "f":
        raise UserError(f"{task.name}: feature {key!r} in {path} is of type {dtype}, expected floating-point numbers")


# packing -------------------------------------------------------------------------------------------------------------


def _pack(
    draft: Path, files: Files, root: Path, sources: Sources, visual: Visual, kept: int, progress: Progress | None
) -> dict[str, Any]:
    """Write all features into the draft, `kept` vectors of each; returns what the manifest says of them."""
    shape, array = (len(sources), kept, visual.width), draft / ARRAY
    faults, digests = _fill(draft, shape, root, sources, visual, progress)
    if faults:
        shutil.rmtree(draft, ignore_errors=True)  # a mended file will make it another folder
        raise shown(faults, "features")
    index = {key: [*about, digests[row]] for row, (key, *about) in enumerate(files)}
    (draft / INDEX).write_text(json.dumps(index), encoding="utf-8")
    return {
        "format": FORMAT,
        "source": root.name,
        "listing": listing_of(files, visual, kept),
        **({"tokens": visual.tokens} if kept != visual.tokens else {}),
        "features": len(sources),
        "shape": shape,
        "dtype": HALF.name,
        "bytes": array.stat().st_size,
    }


def _fill(
    draft: Path, shape: tuple[int, ...], root: Path, sources: Sources, visual: Visual, progress: Progress | None
) -> tuple[list[str], dict[int, str]]:
    """Write the features that an earlier call has not written, in NumPy's format.

    Returns what is wrong with them, and the digest of each as it was before pooling, by row.
    """
    start = io.BytesIO()
    np.lib.format.write_array_header_1_0(start, {"descr": HALF.str, "fortran_order": False, "shape": shape})
    rows, size = {key: row for row, key in enumerate(sources)}, HALF.itemsize * int(np.prod(shape[1:]))
    faults: list[str] = []
    with journalled(draft / ARRAY, draft / DIGESTS, start.getvalue(), size) as journal:
        done = len(journal.about)
        check_space("features", draft, size * (len(sources) - done))
        lacking = [key for key, row in rows.items() if row not in journal.about]
        features = read_features(root, sources, visual, lacking)
        for number, (key, feature) in enumerate(features, start=done + 1):
            if isinstance(feature, UserError):
                faults += feature.faults
            elif not faults:  # otherwise all is thrown away
                pooled = _pooled(feature, shape[1]) if shape[1] != visual.tokens else feature
                journal.put(rows[key], np.ascontiguousarray(pooled).data, _digest(feature))
            if progress:
                progress(number, len(sources))
    return faults, journal.about


def _pooled(feature: np.ndarray, kept: int) -> np.ndarray:
    """(N, f) → (kept, f), as `backbone.visual.pool_grid` does: each number is one of the halves."""
    side = math.isqrt(len(feature))
    grid = torch.from_numpy(feature.astype(np.float32)).T.reshape(1, -1, side, side)
    return F.adaptive_max_pool2d(grid, math.isqrt(kept))[0].flatten(1).T.contiguous().numpy().astype(HALF)


def _digest(feature: np.ndarray) -> str:
    return sha256(np.ascontiguousarray(feature).data).hexdigest()[:DIGITS]
