"""A tiny random model of each form, and a batch for it: encoder-decoders, a decoder fed with features, and the families
of `tests.vlms.tiny`, which see pixels. Every family is its own name here."""

from __future__ import annotations

import pkgutil
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pet_bench.backbone import Backbone, Model, build
from pet_bench.backbone.known import family_for
from pet_bench.registry import FAMILIES
from tests.tiny import TINY, VISUAL, tiny_batch
from tests.vlms import tiny

LLAMA = Backbone(
    "tiny-llama",
    "llama",
    "",
    {
        "vocab_size": 60, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1, "attention_dropout": 0.1,
        "initializer_range": 0.1,
    },
)  # fmt: skip
FED = TINY | {"llama": LLAMA}
PIXELS = [module.name for module in pkgutil.iter_modules(tiny.__path__)]
FORMS = [*FED, *PIXELS]


def model_of(name: str, seed: int = 0, device: str = "cpu") -> Model:
    """The model in evaluation mode; with the same seed, the same."""
    torch.manual_seed(seed)
    if name in FED:
        return build(FED[name], VISUAL, device=device).eval()
    stock, _ = tiny.build(name, seed)
    found = family_for(stock.config.model_type)
    assert found is not None
    family: Any = FAMILIES.get(found)
    return family.model(stock.to(device), family.anatomy(f"tiny-{name}", stock.config), VISUAL).eval()


def batch_of(name: str, rows: slice = slice(None)) -> tuple[dict[str, Any], Tensor]:
    """Inputs and targets of three examples, which differ in length, or of some of them as they are in the batch."""
    if name in FED:
        batch = tiny_batch()
        targets = batch.pop("targets")
        return {key: value if key == "task" else value[rows] for key, value in batch.items()}, targets[rows]
    stock, processor = tiny.build(name)
    family: Any = FAMILIES.get(family_for(stock.config.model_type) or "")
    pictures = [[picture] for picture in np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)]
    texts = ["what color is the circle ?", "how many ?", "is this a red square ?"]
    inputs = family.reader(processor).inputs(torch.zeros(3, 0), pictures, texts)
    targets = torch.randint(5, 30, (3, 4), generator=torch.Generator().manual_seed(0))
    targets[1, 2:] = -100
    bounds = slice(*rows.indices(len(texts))[:2])
    some = {key: value[bounds] if isinstance(value, Tensor) else value.of(bounds) for key, value in inputs.items()}
    return some | {"task": "vqa"}, targets[bounds]
