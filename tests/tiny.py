"""Tiny random BART and T5, built from a configuration: no weights are read."""

from __future__ import annotations

import torch

from pet_bench.backbone import Backbone, EncoderDecoder, build
from pet_bench.pet import attach, build_method
from pet_bench.spec import MethodSpec, Visual

BART = Backbone(
    "tiny-bart",
    "bart",
    "",
    {
        "vocab_size": 60, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 40,
        "init_std": 0.3,
    },
)  # fmt: skip
T5 = Backbone(
    "tiny-t5",
    "t5",
    "",
    {
        "vocab_size": 60, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 2,
        "num_heads": 4, "decoder_start_token_id": 0,
    },
)  # fmt: skip
TINY = {"bart": BART, "t5": T5}
VISUAL = Visual(width=12, tokens=9, pooled=4)
TASKS = ("vqa", "gqa")


def tiny_model(family: str, method: str | None = None, *, seed: int = 0, **options) -> EncoderDecoder:
    """A tiny model in evaluation mode, the method attached if one is named."""
    torch.manual_seed(seed)
    model = build(TINY[family], VISUAL)
    if method:
        torch.manual_seed(seed + 1)
        attach(model, build_method(MethodSpec(method, options), model.anatomy).design(model.anatomy), TASKS)
    return model.eval()


def tiny_batch(*, images: int = 1, seed: int = 0) -> dict[str, torch.Tensor]:
    """text (3, 7) with padding in rows 1 and 2, features (3, images, 9, 12), targets (3, 4); pad words are 1 and 0."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(5, 50, (3, 7), generator=generator)
    targets = torch.randint(5, 50, (3, 4), generator=generator)
    targets[1, 2:] = -100
    features = torch.randn(3, images, 9, 12, generator=generator)
    return {"text": text, "features": features, "targets": targets, "task": "vqa"}
