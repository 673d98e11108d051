from __future__ import annotations

from transformers import GotOcr2ImageProcessorPil, InternVLConfig, InternVLForConditionalGeneration, InternVLProcessor

from pet_bench.backbone.pixels import without_videos
from tests.vlms.tiny import text_config, tokenizer, tower_config, turn


def build():
    words = tokenizer(
        start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>", video_token="<video>"
    )
    processor = without_videos(InternVLProcessor)(
        GotOcr2ImageProcessorPil(size={"height": 32, "width": 32}, max_patches=3), words, image_seq_length=4,
        chat_template=turn("<IMG_CONTEXT>"),
    )  # fmt: skip
    tower = tower_config("internvl_vision") | {"image_size": [32, 32], "patch_size": [8, 8]}
    config = InternVLConfig(
        vision_config=tower, text_config=text_config("qwen2"), image_token_id=processor.image_token_id,
        image_seq_length=4, downsample_ratio=0.5,
    )  # fmt: skip
    return InternVLForConditionalGeneration(config), processor
