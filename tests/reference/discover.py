"""The parity fixtures that there are: packed or loose in this folder, and loose in the shared one.

A file added to any of these is found without a change to a test; a name that occurs twice is the repository's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import load_file

from tests.conftest import SHARED
from tests.reference import packs

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Source:
    """A fixture that is read when it is asked for, once in a process."""

    name: str
    _about: Callable[[], dict[str, Any]]
    _tensors: Callable[[], packs.Tensors]

    @cached_property
    def about(self) -> dict[str, Any]:
        return self._about()

    @cached_property
    def tensors(self) -> dict[str, torch.Tensor]:
        return {key: torch.from_numpy(tensor) for key, tensor in self._tensors().items()}


@cache
def fixtures(folder: str = "parity", roots: tuple[Path, ...] = (HERE, SHARED)) -> dict[str, Source]:
    """By name, in alphabetical order; `followups/parity` are those of the methods to come."""
    sources: dict[str, Source] = {}
    for root in roots:
        for source in (*_packed(root / folder), *_loose(root / folder)):
            sources.setdefault(source.name, source)
    return dict(sorted(sources.items()))


def _packed(folder: Path) -> list[Source]:
    return [
        Source(name, partial(packs.about, path, name), partial(packs.tensors, path, name))
        for path in sorted(folder.glob("*.h5"))
        for name in packs.names(path)
    ]


def _loose(folder: Path) -> list[Source]:
    return [
        Source(path.stem, partial(_json, path.with_suffix(".json")), partial(load_file, path))
        for path in sorted(folder.glob("*.safetensors"))
    ]


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
