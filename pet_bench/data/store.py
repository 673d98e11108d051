"""All features that a run needs, packed once into one memory-mapped array."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from pet_bench.data.packing import BLOCK, MANIFEST, PackedFolder, Progress, check_space, digest
from pet_bench.data.rows import shown
from pet_bench.data.task import Example, Task, open_hdf5
from pet_bench.errors import UserError, foreign
from pet_bench.files import impostor_at
from pet_bench.packed import Rows
from pet_bench.registry import title
from pet_bench.spec import Control, Visual

Sources = dict[str, Task]  # feature key → a task that reads it
Files = list[tuple[str, int, int]]  # feature key, size and time of its source file
FORMAT = 3
HALF = np.dtype("<f2")
ARRAY, INDEX = "features.npy", "index.json"
DIGESTS, DIGITS = "digests", 24  # where features are pooled: of each as it was before, a line each


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
        root = Path(root)
        sources, faults = sources_of(root, wanted, visual)
        files = files_of(root, sources)
        if faults or files is None:
            raise shown([*faults, *damage(root, sources, visual)], "features")
        folder = packed_in(files, visual, cache, pooled=pooled)
        kept = visual.pooled if pooled else visual.tokens
        return cls.open(folder, sources) or cls.written(
            folder, lambda draft: _pack(draft, files, root, sources, visual, kept, progress)
        )

    @classmethod
    def faults(
        cls,
        root: Path,
        wanted: Iterable[tuple[Task, Sequence[Example]]],
        visual: Visual,
        cache: Path | None = None,
    ) -> list[str]:
        """What `pack` would raise, but for values; of what is packed already nothing is looked at."""
        sources, said = sources_of(root, wanted, visual)
        files = files_of(root, sources)
        if said or files is None or not cls.open(packed_in(files, visual, cache), sources):
            said += damage(root, sources, visual)
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
    """The features of these examples, by key in order, and what is wrong with the examples' images."""
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
        keys = {key for example in examples for key in example.images}
        with foreign(f"{title(task)}: feature_path raised"):  # for all at once: it is asked for each again and again
            for key in keys:
                Path(task.feature_path(root, key))
        for key in keys:
            other = sources.setdefault(key, task)
            if other is not task and other.feature_path(root, key) != task.feature_path(root, key):
                faults.append(f"{task.name}: feature key {key!r} is another file in task {other.name}")
    return dict(sorted(sources.items(), key=itemgetter(0))), faults


def files_of(root: Path, sources: Sources) -> Files | None:
    """Names, sizes and times of the source files; None where one is missing."""
    try:
        status = [(key, task.feature_path(root, key).stat()) for key, task in sources.items()]
    except OSError:
        return None
    return [(key, file.st_size, file.st_mtime_ns) for key, file in status]


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
    for key, task in sources.items():
        try:
            check_header(task, root, key, visual)
        except UserError as error:
            yield from error.faults


def check_header(task: Task, root: Path, key: str, visual: Visual) -> None:
    """Raises UserError where a feature is missing or has another shape or type than `visual` says.

    Reads no values from HDF5; other formats, whose files are small, are read whole.
    """

    def read() -> tuple[tuple[int, ...], np.dtype]:
        if type(task).feature is not Task.feature:
            feature = np.asarray(task.feature(root, key))
            return feature.shape, feature.dtype
        with open_hdf5(task.feature_path(root, key)) as file:
            dataset = task.dataset(file, key)
            return dataset.shape, dataset.dtype

    _check_form(task, root, key, visual, *_guarded(task, root, key, read))


def read_feature(task: Task, root: Path, key: str, visual: Visual) -> np.ndarray:
    """One feature in half precision; raises UserError for all that can be wrong with it."""
    feature = _guarded(task, root, key, lambda: np.asarray(task.feature(root, key)))
    _check_form(task, root, key, visual, feature.shape, feature.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        half = feature.astype(HALF)
    if not np.isfinite(half).all():
        path = task.feature_path(root, key)
        raise UserError(f"{task.name}: feature {key!r} in {path} holds NaN, infinity or a value beyond half precision")
    return half


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
    done = array.stat().st_size if array.exists() else 0
    check_space("features", draft, HALF.itemsize * int(np.prod(shape)) - done)
    if faults := _fill(array, shape, root, sources, visual, progress):
        shutil.rmtree(draft, ignore_errors=True)  # a mended file will make it another folder
        raise shown(faults, "features")
    index = {key: about for (key, *about) in _digested(files, array, kept != visual.tokens)}
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
    path: Path, shape: tuple[int, ...], root: Path, sources: Sources, visual: Visual, progress: Progress | None
) -> list[str]:
    """Write the features behind those that an earlier call wrote, in NumPy's format; returns what is wrong with them.

    Everything up to a whole number of blocks was forced to disk before, so it is there even after a power cut; of
    features that are pooled to what `shape` says, digests first.
    """
    pools = shape[1] != visual.tokens
    start = io.BytesIO()
    np.lib.format.write_array_header_1_0(start, {"descr": HALF.str, "fortran_order": False, "shape": shape})
    header, size = start.getvalue(), HALF.itemsize * int(np.prod(shape[1:]))
    faults: list[str] = []
    with path.open("a+b") as file, path.with_name(DIGESTS).open("a+b") if pools else io.BytesIO() as digests:
        file.seek(0)
        whole = file.read(len(header)) == header
        done = max(0, path.stat().st_size - len(header)) // (BLOCK * size) * BLOCK if whole else 0
        done = min(done, digests.seek(0, io.SEEK_END) // ((DIGITS + 1) * BLOCK) * BLOCK) if pools else done
        digests.truncate(done * (DIGITS + 1) if pools else 0)
        file.truncate(len(header) + done * size if whole else 0)
        if not whole:
            file.write(header)
        for row, (key, task) in enumerate(islice(sources.items(), done, None), start=done + 1):
            try:
                feature = read_feature(task, root, key, visual)
            except UserError as error:
                faults += error.faults
            else:
                if not faults:  # none behind a gap: rows are counted by the file's length
                    if pools:
                        digests.write(f"{_digest(feature)}\n".encode())
                        feature = _pooled(feature, shape[1])
                    file.write(feature.tobytes())
                    if row % BLOCK == 0 or row == len(sources):
                        for one in (digests, file) if pools else (file,):
                            one.flush()
                            os.fsync(one.fileno())
            if progress:
                progress(row, len(sources))
    return faults


def _pooled(feature: np.ndarray, kept: int) -> np.ndarray:
    """(N, f) → (kept, f), as `backbone.visual.pool_grid` does: each number is one of the halves."""
    side = math.isqrt(len(feature))
    grid = torch.from_numpy(feature.astype(np.float32)).T.reshape(1, -1, side, side)
    return F.adaptive_max_pool2d(grid, math.isqrt(kept))[0].flatten(1).T.contiguous().numpy().astype(HALF)


def _digested(files: Files, array: Path, pooled: bool) -> Iterator[tuple[str, int, int, str]]:
    """(key, size, time, digest of the feature in half precision) of every source file."""
    digests = (
        array.with_name(DIGESTS).read_text("ascii").split()
        if pooled
        else map(_digest, np.load(array, mmap_mode="r", allow_pickle=False))
    )
    for about, name in zip(files, digests, strict=True):
        yield *about, name


def _digest(feature: np.ndarray) -> str:
    return sha256(feature.tobytes()).hexdigest()[:DIGITS]
