"""All features that a run needs, packed once into one memory-mapped array."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pet_bench.data.cache import cache_dir
from pet_bench.data.rows import shown
from pet_bench.data.task import Example, Task
from pet_bench.errors import UserError
from pet_bench.spec import Control, Visual

Progress = Callable[[int, int], None]
FORMAT = 1


class FeatureStore:
    """Features as one array (features, tokens, width) float16, and the row of each.

    `pack` makes or finds it; nothing after that opens the source files. fingerprint: SHA-256 of names and contents.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]):
        self.folder, self.fingerprint = folder, manifest["fingerprint"]
        array = np.load(folder / "features.npy", mmap_mode="r", allow_pickle=False)
        if list(array.shape) != manifest["shape"] or array.dtype != np.float16:
            raise ValueError("the array is not the one of the manifest")
        self.index = {key: row for row, key in enumerate(manifest["keys"])}
        self.array = array

    @classmethod
    def pack(
        cls,
        root: Path | str,
        wanted: Iterable[tuple[Task, Sequence[Example]]],
        visual: Visual,
        *,
        cache: Path | None = None,
        progress: Progress | None = None,
    ) -> FeatureStore:
        """The store of all features of these examples, read from the cache if it is there.

        The cache folder is keyed by names, sizes and times of the source files. Several processes may pack the same
        features at once. `progress(done, total)` is called while packing.

        Raises UserError for every fault together: a missing or unreadable file, a missing key, another shape than
        `visual` says, values that are not finite (in half precision), an example with more images than
        `visual.images`, a cache that cannot be written.
        """
        root = Path(root)
        sources: dict[str, Task] = {}
        faults: list[str] = []
        for task, examples in wanted:
            many = next((example for example in examples if len(example.images) > visual.images), None)
            if many:
                images = len(many.images)
                faults.append(f"{task.name}: example {many.id!r} has {images} images, at most {visual.images} fit")
            uneven = {len(example.images) for example in examples}
            if len(uneven) > 1:
                faults.append(f"{task.name}: examples have {sorted(uneven)} images; every one must have as many")
            for key in {key for example in examples for key in example.images}:
                other = sources.setdefault(key, task)
                if other is not task and other.feature_path(root, key) != task.feature_path(root, key):
                    faults.append(f"{task.name}: feature key {key!r} is another file in task {other.name}")
        sources = dict(sorted(sources.items(), key=itemgetter(0)))
        try:
            files = [(key, task.feature_path(root, key).stat()) for key, task in sources.items()]
        except OSError:
            files = None
        if faults or files is None:
            raise shown([*faults, *_damage(root, sources, visual)], "features")
        listing = [FORMAT, visual.tokens, visual.width, *((key, f.st_size, f.st_mtime_ns) for key, f in files)]
        name = sha256(json.dumps(listing).encode()).hexdigest()[:24]
        folder = Path(cache or cache_dir()) / "features" / name
        return cls._open(folder) or cls._write(folder, root, sources, visual, progress)

    @classmethod
    def _open(cls, folder: Path) -> FeatureStore | None:
        """None where there is nothing, or nothing whole."""
        try:
            return cls(folder, json.loads((folder / "manifest.json").read_text("utf-8")))
        except (OSError, ValueError, KeyError):
            return None

    @classmethod
    def _write(cls, folder, root, sources, visual, progress) -> FeatureStore:
        shape = (len(sources), visual.tokens, visual.width)
        size = 2 * int(np.prod(shape))
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder.parent).free
            if free < size:
                need = f"{size / 1e9:.1f} GB in {folder.parent}, {free / 1e9:.1f} GB are free"
                raise UserError(f"features: packing needs {need}")
            draft = Path(tempfile.mkdtemp(prefix=".packing-", dir=folder.parent))
        except OSError as error:
            raise UserError(f"features: cannot write to the cache {folder.parent}: {error.strerror}") from None
        try:
            array = np.lib.format.open_memmap(draft / "features.npy", mode="w+", dtype=np.float16, shape=shape)
            digest, faults = sha256(json.dumps([FORMAT, *shape]).encode()), []
            for row, (key, task) in enumerate(sources.items()):
                try:
                    array[row] = _read(task, root, key, visual)
                except UserError as error:
                    faults += error.faults
                digest.update(key.encode() + b"\0")
                digest.update(array[row])
                if progress:
                    progress(row + 1, len(sources))
            if faults:
                raise shown(faults, "features")
            array.flush()
            del array
            manifest = {
                "format": FORMAT,
                "fingerprint": digest.hexdigest(),
                "shape": shape,
                "source": root.name,
                "keys": list(sources),
            }
            (draft / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
            if folder.exists() and not cls._open(folder):
                shutil.rmtree(folder, ignore_errors=True)  # damaged
            try:
                os.rename(draft, folder)  # noqa: PTH104  fails, as it should, where another process was first
            except OSError:
                if not folder.is_dir():
                    raise
        except OSError as error:
            raise UserError(f"features: cannot write to the cache {folder.parent}: {error.strerror or error}") from None
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        store = cls._open(folder)
        if store is None:
            raise UserError(f"features: the packed features in {folder} cannot be read back; remove that folder")
        return store

    def rows(self, examples: Sequence[Example]) -> np.ndarray:
        """Row numbers (examples, I) of examples that each have I images."""
        return np.array([[self.index[key] for key in example.images] for example in examples], np.int64)

    def gather(self, rows: np.ndarray, *, control: Control = "none") -> torch.Tensor:
        """Features (B, I, N, f) float32 of row numbers (B, I); zeros for "text-only".

        For "noise", standard normal values that depend on the row alone.
        """
        shape = self.array.shape[1:]
        if control == "text-only":
            return torch.zeros(*rows.shape, *shape)
        if control == "noise":
            noise = [np.random.default_rng(row).standard_normal(shape, np.float32) for row in rows.flat]
            return torch.from_numpy(np.stack(noise).reshape(*rows.shape, *shape))
        return torch.from_numpy(self.array[rows].astype(np.float32))


def _read(task: Task, root: Path, key: str, visual: Visual) -> np.ndarray:
    path = task.feature_path(root, key)
    try:
        feature = np.asarray(task.feature(root, key))
    except FileNotFoundError:
        raise UserError(f"{task.name}: feature file {path} of {key!r} is missing") from None
    except KeyError:
        raise UserError(f"{task.name}: feature file {path} has no key for {key!r}") from None
    except Exception as error:  # a damaged file can fail in any way its format knows
        raise UserError(f"{task.name}: feature file {path} of {key!r} cannot be read: {error}") from None
    if feature.shape != (visual.tokens, visual.width):
        expected = (visual.tokens, visual.width)
        raise UserError(f"{task.name}: feature {key!r} in {path} has shape {feature.shape}, expected {expected}")
    with np.errstate(over="ignore", invalid="ignore"):
        half = feature.astype(np.float16)
    if not np.isfinite(half).all():
        raise UserError(f"{task.name}: feature {key!r} in {path} holds NaN, infinity or a value beyond half precision")
    return half


def _damage(root: Path, sources: dict[str, Task], visual: Visual) -> Iterator[str]:
    """A line for every feature that cannot be used."""
    for key, task in sources.items():
        try:
            _read(task, root, key, visual)
        except UserError as error:
            yield from error.faults
