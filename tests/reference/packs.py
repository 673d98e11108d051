"""Parity fixtures, packed without loss: several in one HDF5 file of a JSON index and a few flat, compressed arrays.

A tensor that occurs twice is stored once. Most of a fixture are weights that were drawn from a seed: of those only the
place in the seed's stream is stored, and by how many units in the last place each number differs from what `mersenne`
computes there. Reading checks a fixture against a digest of what went in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from tests.reference.mersenne import Draw, Stream

KINDS = {"floats": np.float32, "integers": np.int64, "last_places": np.int8}
FIRST = re.compile(r"param/(model\.)?shared\.weight")  # the parameter that was drawn first
Tensors = dict[str, NDArray]


@dataclass(frozen=True)
class Given:
    """A fixture: what its JSON says, and its tensors."""

    about: dict[str, Any]
    tensors: Tensors


class _Arrays:
    """The flat arrays of a pack while it is written."""

    def __init__(self) -> None:
        self.parts: dict[str, list[NDArray]] = {kind: [np.empty(0, dtype)] for kind, dtype in KINDS.items()}
        self._ends = dict.fromkeys(KINDS, 0)
        self._places: dict[tuple[str, bytes], int] = {}

    def store(self, kind: str, array: NDArray) -> tuple[str, int]:
        """Where it is: its kind, and the start in the array of that kind."""
        content = kind, array.tobytes()
        if content not in self._places:
            self._places[content] = self._ends[kind]
            self._ends[kind] += array.size
            self.parts[kind].append(array.ravel())
        return kind, self._places[content]


def write(path: Path, fixtures: Mapping[str, Given]) -> None:
    """Raises TypeError for tensors that are neither float32 nor int64."""
    arrays = _Arrays()
    index = {name: _entry(fixture, arrays) for name, fixture in fixtures.items()}
    with h5py.File(path, "w") as file:
        text = np.frombuffer(json.dumps(index).encode(), np.uint8)
        file.create_dataset("index", data=text, compression="gzip", compression_opts=9)
        for kind, parts in arrays.parts.items():
            flat = np.concatenate(parts)
            file.create_dataset(kind, data=flat, compression="gzip", compression_opts=9, shuffle=True)


def _entry(fixture: Given, arrays: _Arrays) -> dict[str, Any]:
    first = next((tensor for key, tensor in fixture.tensors.items() if FIRST.fullmatch(key)), None)
    stream = None if first is None else Stream.beginning(first)
    tensors = {}
    for key, tensor in sorted(fixture.tensors.items()):
        draw, rest = _drawn(tensor, stream) if stream and key.startswith("param/") else (None, None)
        if draw and rest is not None:
            tensors[key] = [*arrays.store("last_places", rest), tensor.shape, *astuple(draw)]
            continue
        kinds = [kind for kind in ("floats", "integers") if KINDS[kind] == tensor.dtype]
        if not kinds:
            raise TypeError(f"{key} is of {tensor.dtype}")
        tensors[key] = [*arrays.store(kinds[0], tensor), tensor.shape]
    seed = stream.seed if stream else None
    return {"about": fixture.about, "seed": seed, "sha256": digest(fixture.tensors), "tensors": tensors}


def _drawn(tensor: NDArray, stream: Stream) -> tuple[Draw | None, NDArray | None]:
    """How it was drawn, and what is missing to its last bit."""
    draw = stream.draw_of(tensor.ravel())
    if draw is None:
        return None, None
    rest = ordered(tensor.ravel()).astype(np.int64) - ordered(stream.drawn(tensor.size, draw))
    return draw, rest.astype(np.int8) if abs(rest).max() < 128 else None


@cache
def _open(path: Path) -> tuple[dict[str, Any], dict[str, NDArray]]:
    with h5py.File(path) as file:
        index, arrays = np.asarray(file["index"]), {kind: np.asarray(file[kind]) for kind in KINDS}
    return json.loads(index.tobytes()), arrays


def names(path: Path) -> list[str]:
    return list(_open(path)[0])


def about(path: Path, name: str) -> dict[str, Any]:
    return _open(path)[0][name]["about"]


def tensors(path: Path, name: str) -> Tensors:
    """By their names. Raises ValueError where they are not what was packed."""
    index, arrays = _open(path)
    entry = index[name]
    stream = None if entry["seed"] is None else Stream(entry["seed"])
    unpacked = {}
    for key, (kind, start, shape, *draw) in entry["tensors"].items():
        size = int(np.prod(shape))
        flat = arrays[kind][start : start + size]
        if stream and draw:
            flat = unordered(ordered(stream.drawn(size, Draw(*draw))) + flat.astype(np.int32))
        unpacked[key] = flat.reshape(shape).copy()
    if digest(unpacked) != entry["sha256"]:
        raise ValueError(f"{path.name}: {name} is not what was packed")
    return unpacked


def digest(tensors: Tensors) -> str:
    """Of names, types, shapes and bits."""
    hashed = sha256()
    for key, tensor in sorted(tensors.items()):
        hashed.update(f"{key} {tensor.dtype} {tensor.shape}\n".encode())
        hashed.update(tensor.tobytes())
    return hashed.hexdigest()


def ordered(floats: NDArray) -> NDArray:
    """float32 as int32 that count up as the numbers do."""
    bits = floats.view(np.int32)
    return np.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def unordered(integers: NDArray) -> NDArray:
    """The inverse."""
    return np.where(integers < 0, integers ^ 0x7FFFFFFF, integers).view(np.float32)
