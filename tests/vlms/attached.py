"""Tiny random models of every family that is fed with pixels, and of `llama`, with methods attached."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pet_bench.backbone import Anatomy, Backbone, Model, load
from pet_bench.backbone.loading import Stock
from pet_bench.pet import Design, attach, build_method, design_of, why_skipped
from pet_bench.registry import FAMILIES
from pet_bench.spec import MethodSpec, Scope, Visual
from tests.vlms import tiny

TASKS = ("vqa", "gqa")
VISUAL = Visual(width=12, tokens=9, pooled=4)
TEXTS = ("vqa: what color is this circle ?", "is this a square ?", "vqa: how many are there of the red square ?")
ANSWERS = ("red", "yes", "two green")
SIDES = ((32, 32), (40, 28), (36, 48))  # height and width of each example's picture


def module_of(family: str) -> str:
    return f"tests.vlms.tiny.{family.replace('-', '_').replace('.', '_')}"


PIXELS = [family.name for family in FAMILIES if family.fed == "pixels"]
TINY = [name for name in ("llama", *PIXELS) if find_spec(module_of(name))]


@cache
def known(family: str) -> tuple[Backbone, Stock]:
    """A backbone of the family and its stock model with a processor (llama: a tokenizer), built once a process."""
    lm, processor = tiny.build(family)
    return Backbone(f"tiny-{family}", family, "", lm.config.to_dict()), Stock(lm, processor)


@cache
def anatomy_of(family: str, scope: Scope | None = None) -> Anatomy:
    return known(family)[0].anatomy.scoped(scope)


def bare(family: str, scope: Scope | None = None) -> Model:
    """The model of a family without any method, in evaluation mode, as it is loaded."""
    torch.manual_seed(0)
    backbone, stock = known(family)
    return load(backbone, VISUAL, stock, scope)[0].eval()


def attached(family: str, method: str | Design, scope: Scope | None = None, **options: Any) -> Model:
    """With a design, or the one of a method with options, for TASKS."""
    model = bare(family, scope)
    if isinstance(method, str):
        method = design_of(build_method(MethodSpec(method, options), model.anatomy), model.anatomy)
    torch.manual_seed(1)
    return attach(model, method, TASKS).eval()


@cache
def skipped(family: str, method: str, scope: Scope | None = None) -> str | None:
    anatomy = anatomy_of(family, scope)
    return why_skipped(build_method(MethodSpec(method), anatomy), anatomy)


@cache
def reader_of(family: str):
    backbone, stock = known(family)
    return FAMILIES.get(family).reader(load(backbone, VISUAL, stock)[1])


def batch(family: str, rows: tuple[int, ...] = (0, 1, 2), longer: int = 0) -> tuple[dict[str, Any], Tensor]:
    """Inputs and targets of these of three examples, of one image each, padded as their reader does.

    longer: positions of padding more in the targets.
    """
    reader, kind = reader_of(family), FAMILIES.get(family)
    said = [TEXTS[row] for row in rows]
    text = pad_sequence(
        [torch.tensor(ids) for ids in reader.tokens(said, None)], batch_first=True, padding_value=reader.pad
    )
    targets = pad_sequence(
        [torch.tensor(ids) for ids in reader.targets([ANSWERS[row] for row in rows], None)],
        batch_first=True, padding_value=-100,
    )  # fmt: skip
    seen = _pictures(rows) if kind.fed == "pixels" else _features(rows)
    targets = torch.nn.functional.pad(targets, (0, longer), value=-100)
    return {**reader.inputs(text, seen, said), "task": "vqa"}, targets


def _pictures(rows: tuple[int, ...]) -> list[list[np.ndarray]]:
    return [[np.random.default_rng(row).integers(0, 256, (*SIDES[row], 3), np.uint8)] for row in rows]


def _features(rows: tuple[int, ...]) -> Tensor:
    each = [torch.randn(1, VISUAL.tokens, VISUAL.width, generator=torch.Generator().manual_seed(row)) for row in rows]
    return torch.stack(each)


def logits(model: Model, inputs: dict[str, Any], targets: Tensor) -> Tensor:
    with torch.no_grad():
        return model.logits(inputs, targets)
