"""What a frozen tower gave of pictures: a folder in the cache that only grows."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pet_bench.data.cache import cache_dir
from pet_bench.data.packing import Progress, taking_turns
from pet_bench.data.pieces import Piece, growing, read_pieces

WHAT = "towers"
OUTPUTS, INDEX = "outputs.bin", "index.jsonl"


class Full(Exception):
    """What is to be kept does not fit; the message says what it needs."""


class Outputs:
    """Tensors, several of each picture, which is known by the digest of its pixels.

    A folder holds `outputs.bin`, memory-mapped, and `index.jsonl`, a `Piece` a picture with type and shape of each of
    its tensors. Trials that need other pictures of the same tower add them; what was being added when a process stopped
    is added by the next.
    """

    def __init__(self, key: str, cache: Path | None = None):
        self.folder = Path(cache or cache_dir()) / WHAT / key
        self.pieces: dict[str, Piece] = {}
        self.flat = np.empty(0, np.uint8)

    def look(self) -> None:
        """See what is there by now."""
        try:
            size = (self.folder / OUTPUTS).stat().st_size
            self.pieces = {piece.name: piece for piece in read_pieces(self.folder / INDEX, size)}
        except FileNotFoundError:
            self.pieces = {}
        if self.pieces:
            self.flat = np.memmap(self.folder / OUTPUTS, np.uint8, "r")

    def lacking(self, digests: Iterable[str]) -> list[str]:
        """Those of them that are not there, each once."""
        self.look()
        return [digest for digest in dict.fromkeys(digests) if digest not in self.pieces]

    def fill(self, digests: Sequence[str], make: Callable[[int], list[Tensor]], progress: Progress) -> None:
        """Have all of these: `make(i)` gives the i-th picture's. One process adds at a time, the others wait for it.

        `progress(done, total)` is called meanwhile. Raises Full, with what fits kept, and OSError where the cache
        cannot be written.
        """
        first = {digest: i for i, digest in reversed([*enumerate(digests)])}
        if not self.lacking(first):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with taking_turns(self.folder, lambda: progress(len(first) - len(self.lacking(first)), len(first))):
            left = self.lacking(first)
            with growing(self.folder / OUTPUTS, self.folder / INDEX) as pieces:
                for number, digest in enumerate(left):
                    tensors = [tensor.detach().cpu().contiguous() for tensor in make(first[digest])]
                    content = b"".join(tensor.view(torch.uint8).numpy().tobytes() for tensor in tensors)
                    self._check_space(len(content) * (len(left) - number))
                    pieces.add(digest, content, [[str(t.dtype).removeprefix("torch."), *t.shape] for t in tensors])
                    progress(len(first) - len(left) + number + 1, len(first))
        self.look()

    def _check_space(self, size: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < size:
            raise Full(f"it needs {size / 1e9:.1f} GB of the cache's disk, where {free / 1e9:.1f} GB are free")

    def __getitem__(self, digest: str) -> list[Tensor]:
        """A picture's tensors, as they were given."""
        piece, tensors = self.pieces[digest], []
        at = piece.start
        for name, *shape in piece.about[0]:
            dtype: torch.dtype = getattr(torch, name)
            end = at + int(np.prod(shape)) * dtype.itemsize
            tensors.append(torch.from_numpy(self.flat[at:end].copy()).view(dtype).view(shape))
            at = end
        return tensors
