"""All pictures that a run needs, packed once into one memory-mapped array of pixels."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

from pet_bench.data.cache import cache_dir, unwritable
from pet_bench.data.rows import shown
from pet_bench.data.store import Progress
from pet_bench.data.task import Example, Task
from pet_bench.errors import UserError
from pet_bench.files import read_json
from pet_bench.spec import Control

FORMAT = 1
PIXELS, INDEX = "pixels.bin", "index.json"


class ImageStore:
    """Pictures of any size as one flat array of uint8, and where each begins.

    A folder holds `pixels.bin` and `index.json`: each key with offset, height, width and digest of its pixels.
    fingerprint: SHA-256 of names and contents of the pictures that are wanted.
    """

    def __init__(self, folder: Path, keys: Iterable[str]):
        index = read_json(folder / INDEX, f"images: packed {folder / INDEX}")
        self.folder, self.keys = folder, sorted(keys)
        self.flat = np.memmap(folder / PIXELS, np.uint8, "r")
        self.places = [tuple(index[key][:3]) for key in self.keys]
        self.index = {key: row for row, key in enumerate(self.keys)}
        self.fingerprint = sha256(json.dumps([(key, index[key][3]) for key in self.keys]).encode()).hexdigest()

    @classmethod
    def pack(
        cls,
        root: Path | str,
        wanted: Iterable[tuple[Task, Sequence[Example]]],
        *,
        cache: Path | None = None,
        progress: Progress | None = None,
    ) -> ImageStore:
        """The store of all pictures of these examples; raises UserError for every fault together."""
        root, sources = Path(root), {key: task for task, part in wanted for e in part for key in e.images}
        files, faults = [], []
        for key, task in sorted(sources.items()):
            try:
                files.append((key, *_stamp(task.image_path(root, key))))
            except UserError as error:
                faults += [f"{task.name}: {fault}" for fault in error.faults]
        if faults:
            raise shown(faults, "images")
        name = sha256(json.dumps([FORMAT, *files]).encode()).hexdigest()[:24]
        folder = Path(cache or cache_dir()) / "images" / name
        if not folder.is_dir():
            try:
                cls._write(folder, root, sources, progress)
            except OSError as error:
                raise unwritable("images:", folder.parent, error) from None
        return cls(folder, sources)

    @staticmethod
    def _write(folder: Path, root: Path, sources: dict[str, Task], progress: Progress | None) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".packing-", dir=folder.parent))
        try:
            index, offset = {}, 0
            with (draft / PIXELS).open("wb") as file:
                for done, (key, task) in enumerate(sorted(sources.items()), start=1):
                    picture = task.image(root, key)
                    content = picture.tobytes()
                    index[key] = [offset, *picture.shape[:2], sha256(content).hexdigest()[:24]]
                    offset += file.write(content)
                    if progress:
                        progress(done, len(sources))
            (draft / INDEX).write_text(json.dumps(index), encoding="utf-8")
            draft.chmod(0o755)
            draft.rename(folder)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise

    def rows(self, examples: Sequence[Example]) -> np.ndarray:
        """Row numbers (examples, I) of examples that each have I images."""
        return np.array([[self.index[key] for key in example.images] for example in examples], np.int64)

    def to(self, device: torch.device | str) -> ImageStore:
        """Pictures stay where they are: a processor reads them."""
        return self

    @property
    def bytes_on_device(self) -> int:
        return 0

    def gather(self, rows: np.ndarray, *, control: Control = "none") -> list[list[np.ndarray]]:
        """The pictures (height, width, 3) of row numbers (B, I); black ones for "text-only", always the same noise for
        "noise"."""
        return [[self._picture(row, control) for row in example] for example in rows]

    def _picture(self, row: int, control: Control) -> np.ndarray:
        offset, height, width = self.places[row]
        if control == "text-only":
            return np.zeros((height, width, 3), np.uint8)
        if control == "noise":
            return np.random.default_rng(row).integers(0, 256, (height, width, 3), np.uint8)
        return self.flat[offset : offset + 3 * height * width].reshape(height, width, 3)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"picture {path} is missing ({error.strerror})") from None
    return status.st_size, status.st_mtime_ns
