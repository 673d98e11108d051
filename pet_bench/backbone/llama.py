"""LLaMA: decoder-only, pre-norm, rotary positions."""

from __future__ import annotations

from typing import ClassVar

from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from pet_bench.backbone.decoder_only import DecoderOnlyFamily
from pet_bench.backbone.known import mini


class Llama(DecoderOnlyFamily):
    """LLaMA and what is saved in its form (Touvron et al., 2023), fed with stored features."""

    name = "llama"
    stock = LlamaForCausalLM
    config = LlamaConfig
    sizes: ClassVar = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads",
    )  # fmt: skip
    optional = ("num_key_value_heads",)  # as the heads
    batch_size = 500
    norm = LlamaRMSNorm
    visual_eps = 1e-6
    word_std = 0.02


MINI_LLAMA = mini("mini-llama", "llama", epochs=2, batch_size=32)
