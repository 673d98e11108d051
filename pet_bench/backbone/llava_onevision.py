"""LLaVA-OneVision: a SigLIP tower that sees one picture in tiles and several ones whole, a Qwen2 decoder."""

from __future__ import annotations

from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor

from pet_bench.backbone.llava import LlavaLike
from pet_bench.backbone.pixels import without_videos
from pet_bench.packed import Packed


class LlavaOnevision(LlavaLike):
    """`llava-hf/llava-onevision-qwen2-7b-ov-hf` and its like (Li et al., TMLR 2025)."""

    name = "llava-onevision"
    stock = LlavaOnevisionForConditionalGeneration
    config = LlavaOnevisionConfig
    batch_size = 128
    also = ("lm.model.image_newline",)

    @classmethod
    def processor(cls, source):
        return without_videos(LlavaOnevisionProcessor).from_pretrained(source)

    @classmethod
    def rows(cls, given, images):
        """Pixels (images, tiles, 3, H, W), padded, and sizes (images, 2), are of images; all else is of examples."""
        packed = ("pixel_values", "image_sizes")
        return {name: Packed(it, images) if name in packed else it for name, it in given.items()}
