"""The shipped mini backbones with methods attached, and batches for them."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from operator import itemgetter

import pytest
import torch
from torch.nn import functional as F

from pet_bench.backbone import EncoderDecoder, find_backbone, load
from pet_bench.data.suite import suite_by_name
from pet_bench.pet import Design, Method, attach, build_method, trained_parameters
from pet_bench.registry import METHODS
from pet_bench.spec import MethodSpec
from tests.conftest import one_each

SUITE = suite_by_name("mini-image-text")
FAMILIES = ("bart", "t5")
CASES = [(family, method) for family in FAMILIES for method in METHODS.names()]


def every(test: Callable[..., None]) -> Callable[..., None]:
    """Every method, on one of the families, which the test's name draws; `make test-all`: on each."""
    return pytest.mark.parametrize(("family", "method"), one_each(CASES, itemgetter(1), test.__name__))(test)


@cache
def stock(family: str, seed: int = 0):
    """The backbone `mini-<family>` and its tokenizer. Read once a process: attach to a copy only."""
    torch.manual_seed(seed)
    return load(find_backbone(f"mini-{family}"), SUITE.visual)


def built(family: str, method: str, **options) -> Method:
    return build_method(MethodSpec(method, options), find_backbone(f"mini-{family}").anatomy)


def mini(family: str, method: str | Design | None = None, *, seed: int = 0, **options) -> EncoderDecoder:
    """A mini backbone in evaluation mode, a design or a method's attached. seed: of all that is drawn at random."""
    model = deepcopy(stock(family, seed)[0])
    if isinstance(method, str):
        method = built(family, method, **options).design(model.anatomy)
    if method:
        torch.manual_seed(seed + 1)
        attach(model, method, SUITE.tasks)
    return model.eval()


def batch(family: str, *, images: int = 1, task: str = "vqa") -> dict:
    """text (3, 9), rows 1 and 2 padded by 2 and 4; features (3, images, 36, 192); targets (3, 4), row 1 padded by 2."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(5, 150, (3, 9), generator=generator)
    text[1, 7:] = text[2, 5:] = stock(family)[0].lm.config.pad_token_id
    targets = torch.randint(5, 150, (3, 4), generator=generator)
    targets[1, 2:] = -100
    features = torch.randn(3, images, SUITE.visual.tokens, SUITE.visual.width, generator=generator)
    return {"text": text, "features": features, "targets": targets, "task": task}


def alone(batch: dict, row: int, pad: int, *, extra: int = 0) -> dict:
    """One example by itself, without padding or with `extra` words of it."""
    one = {key: value[row : row + 1] if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
    text = one["text"][one["text"] != pad][None]
    return one | {"text": F.pad(text, (0, extra), value=pad)}


def nudge(model, *, seed: int = 5):
    """Away from points where a gradient is zero by symmetry (LoRA's B = 0) and outputs are the backbone's."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in trained_parameters(model).values():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def logits(model, batch: dict) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch)
