from __future__ import annotations

from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessorPil,
)

from pet_bench.backbone.pixels import without_videos
from tests.vlms.tiny import LAYERS, D, text_config, tokenizer, turn

TOKENS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
VISION = {"depth": LAYERS, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 8}


def processor(kind):
    """Pictures of 256 to 1024 pixels, so 4 to 16 patches: 1 to 4 visual tokens. Without a video processor."""
    words = tokenizer(**TOKENS)
    pictures = Qwen2VLImageProcessorPil(patch_size=8, merge_size=2, min_pixels=256, max_pixels=1024)
    return without_videos(kind)(pictures, words, chat_template=turn("<|vision_start|><|image_pad|><|vision_end|>"))


def ids(words):
    """Of the configuration."""
    return {f"{name}_id": words.convert_tokens_to_ids(token) for name, token in TOKENS.items()}


def build():
    made = processor(Qwen2_5_VLProcessor)
    text = text_config(rope_parameters=ROPE)
    for key in ("head_dim", "model_type"):
        del text[key]
    vision = VISION | {"window_size": 32, "out_hidden_size": D, "fullatt_block_indexes": (1,)}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids(made.tokenizer))
    return Qwen2_5_VLForConditionalGeneration(config), made
