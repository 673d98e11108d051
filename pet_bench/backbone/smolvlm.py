"""SmolVLM: a SigLIP tower that sees pictures in tiles, pixel shuffle and one linear layer, a LLaMA decoder."""

from __future__ import annotations

from typing import ClassVar

from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration, SmolVLMProcessor
from transformers.utils.import_utils import is_num2words_available

from pet_bench.backbone.llava import LlavaLike
from pet_bench.backbone.pixels import without_videos
from pet_bench.errors import UserError
from pet_bench.packed import Rows


class SmolVLM(LlavaLike):
    """`HuggingFaceTB/SmolVLM-256M-Instruct` and its like (Marafioti et al., COLM 2025)."""

    name = "smolvlm"
    model_types = ("idefics3",)
    stock = SmolVLMForConditionalGeneration
    config = SmolVLMConfig
    batch_size = 128
    scope = ("language",)
    tower = "lm.model.vision_model"
    root = "lm.model.text_model"
    projector = "lm.model.connector"
    ends: ClassVar = {"in": "modality_projection.proj"}

    @classmethod
    def processor(cls, source):
        if not is_num2words_available():  # to write numbers of frames, without which the class is not to be had
            raise UserError("it needs the package num2words: pip install 'pet-bench[vlm]'")
        return without_videos(SmolVLMProcessor).from_pretrained(source)

    @classmethod
    def model(cls, lm, anatomy, visual):
        """Pictures come to words in the type of the model's first parameter, words in that of their table: one is the
        other, where some train in float32 and the rest is halved."""
        lm.get_input_embeddings().register_forward_hook(lambda table, ids, words: words.to(lm.model.dtype))
        return super().model(lm, anatomy, visual)

    @classmethod
    def rows(cls, given, images) -> dict[str, Rows]:
        """All is of examples: what has fewer tiles than another has empty ones, which the model leaves out."""
        return {**given}
