"""A tiny random model of each form, and a batch for it: encoder-decoders, a decoder fed with features, and what sees
pixels (`tests.vlms.attached`). Every family is its own name here."""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any, TypeVar

import torch
from torch import Tensor

from pet_bench.backbone import Model, build
from pet_bench.packed import Packed
from pet_bench.spec import Scope
from tests import tiny
from tests.conftest import EVERYTHING
from tests.vlms import attached

DECODERS, PIXELS = attached.TINY, attached.PIXELS
FORMS = [*tiny.TINY, *DECODERS]
Case = TypeVar("Case", bound=tuple[Any, ...])


def drawn(cases: list[Case], number: int) -> list[Case]:
    """Of these cases (family, …) that many of each family, by a seed that is its name; `make test-all`: all of them."""
    if EVERYTHING:
        return cases
    each = [[case for case in cases if case[0] == family] for family in dict.fromkeys(case[0] for case in cases)]
    part = [case for some in each for case in Random(some[0][0]).sample(some, min(number, len(some)))]
    return [case for case in cases if case in part]


def model_of(name: str, scope: Scope | None = None) -> Model:
    """The model in evaluation mode, always the same, frozen as its reference is to be: some kernels of convolutions
    are others where weights train."""
    if name in DECODERS:
        return attached.bare(name, scope).requires_grad_(False)
    torch.manual_seed(0)
    return build(tiny.TINY[name], tiny.VISUAL).eval()


def batch_of(name: str, rows: slice = slice(None)) -> tuple[dict[str, Any], Tensor]:
    """Inputs and targets of three examples, which differ in length, or of some of them as they are in the batch."""
    inputs, targets = _batch(name)
    bounds = slice(*rows.indices(len(targets))[:2])
    some = {
        key: value[bounds] if isinstance(value, Tensor) else value.of(bounds) if isinstance(value, Packed) else value
        for key, value in inputs.items()
    }
    return some, targets[bounds]


@cache
def _batch(name: str) -> tuple[dict[str, Any], Tensor]:
    if name in DECODERS:
        return attached.batch(name)
    inputs: dict[str, Any] = tiny.tiny_batch()
    return inputs, inputs.pop("targets")
