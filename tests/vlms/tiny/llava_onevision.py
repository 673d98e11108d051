from __future__ import annotations

from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
    LlavaOnevisionProcessor,
)

from pet_bench.backbone.pixels import without_videos
from tests.vlms.tiny import text_config, tokenizer, tower_config, turn

GRIDS = [[32, 32], [32, 64], [64, 32]]  # heights and widths


def build():
    words = tokenizer(image_token="<image>", video_token="<video>")
    pictures = LlavaOnevisionImageProcessorPil(size={"height": 32, "width": 32}, image_grid_pinpoints=GRIDS)
    processor = without_videos(LlavaOnevisionProcessor)(
        pictures, words, num_image_tokens=16, vision_feature_select_strategy="full", chat_template=turn("<image>")
    )
    config = LlavaOnevisionConfig(
        vision_config=tower_config("siglip_vision_model", vision_use_head=False), text_config=text_config("qwen2"),
        image_token_index=processor.image_token_id, video_token_index=processor.video_token_id,
        image_grid_pinpoints=GRIDS,
    )  # fmt: skip
    return LlavaOnevisionForConditionalGeneration(config), processor
