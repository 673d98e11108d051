"""PaliGemma 1 and 2: a SigLIP tower, a linear projector, a Gemma decoder that reads its prompt in both directions."""

from __future__ import annotations

from typing import ClassVar

from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm

from pet_bench.backbone.gemma import GemmaFamily


class PaliGemma2(GemmaFamily):
    """`google/paligemma2-3b-pt-224` and its like, PaliGemma 1 included (Steiner et al., 2024; Beyer et al., 2024).

    Pictures and text are a prefix whose positions all see each other; the answer is causal. The processor puts a text
    behind its pictures, between <bos> and a newline; where a checkpoint has a chat template, that is applied first.
    """

    name = "paligemma2"
    model_type = "paligemma"
    stock = PaliGemmaForConditionalGeneration
    config = PaliGemmaConfig
    batch_size = 256  # of its transfers (big_vision: configs/proj/paligemma/transfers/vqav2.py)
    scope = ("language",)
    norm = Gemma2RMSNorm
    answers: ClassVar = {"token_type_ids": 1}  # 0 is the prefix
    reads: ClassVar = {
        "gemma": ("input_layernorm", "post_attention_layernorm"),  # PaliGemma 1, which is pre-norm
        "gemma2": ("input_layernorm", "pre_feedforward_layernorm"),
    }
    linear = "linear"

    @classmethod
    def read(cls, processor, texts, pictures):
        given = dict(super().read(processor, texts, pictures))
        given.pop("labels", None)  # of an answer, which it was not told
        return given

    @classmethod
    def positions(cls, mask):
        """Counted from 1, as the model counts them itself."""
        return {name: positions + 1 for name, positions in super().positions(mask).items()}

    @classmethod
    def places(cls, config):
        return config.text_config.num_image_tokens
