from __future__ import annotations

from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration, SmolVLMImageProcessorPil, SmolVLMProcessor

from pet_bench.backbone.pixels import without_videos
from tests.vlms.tiny import text_config, tokenizer, tower_config, turn


def build():
    words = tokenizer(
        image_token="<image>", fake_image_token="<fake>", global_image_token="<global>", end_of_utterance_token="<eou>",
        **{f"tile_{row}_{column}": f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)},
    )  # fmt: skip
    pictures = SmolVLMImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    kind = without_videos(SmolVLMProcessor)
    processor = kind(pictures, words, None, image_seq_len=4, chat_template=turn("<image>"))
    tower = tower_config("smolvlm_vision")
    config = SmolVLMConfig(
        vision_config=tower, text_config=text_config(), image_token_id=processor.image_token_id, scale_factor=2,
        pad_token_id=0,
    )  # fmt: skip
    return SmolVLMForConditionalGeneration(config), processor
