from __future__ import annotations

from transformers import CLIPImageProcessorPil, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

from tests.vlms.tiny import text_config, tokenizer, tower_config, turn


def build():
    words = tokenizer(image_token="<image>")
    image = words.convert_tokens_to_ids("<image>")
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = LlavaProcessor(
        pictures, words, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=turn("<image>"),
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=tower_config("clip_vision_model", projection_dim=24), text_config=text_config(),
        image_token_index=image, image_seq_length=16,
    )  # fmt: skip
    return LlavaForConditionalGeneration(config), processor
