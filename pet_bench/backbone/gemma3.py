"""Gemma 3: a SigLIP tower, a projector that pools, a Gemma decoder of sliding windows."""

from __future__ import annotations

from typing import ClassVar

from transformers import Gemma3Config, Gemma3ForConditionalGeneration
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm

from pet_bench.backbone.gemma import GemmaFamily


class Gemma3(GemmaFamily):
    """`google/gemma-3-4b-it` and its like (Gemma Team, 2025).

    The image tokens of one picture see each other in both directions, all else is causal, and most layers look back a
    window only. The projector multiplies what it has pooled with a bare parameter: there is no `projector.in`.
    """

    name = "gemma3"
    stock = Gemma3ForConditionalGeneration
    config = Gemma3Config
    batch_size = 64  # our choice: no run of its tuning says one
    scope = ("language",)
    norm = Gemma3RMSNorm
    answers: ClassVar = {"token_type_ids": 0}  # 1 is an image token
    reads: ClassVar = {"gemma3_text": ("input_layernorm", "pre_feedforward_layernorm")}
    gap = " "

    @classmethod
    def places(cls, config):
        return config.mm_tokens_per_image
