from __future__ import annotations

from transformers import T5Gemma2Config, T5Gemma2ForConditionalGeneration

from tests.vlms.tiny import tower_config
from tests.vlms.tiny.gemma3 import sizes, words_and_processor


def build():
    words, processor = words_and_processor(None)
    image, boi, eoi = words.convert_tokens_to_ids(["<img>", "<boi>", "<eoi>"])
    text = {name: value for name, value in sizes().items() if name != "model_type"}
    encoder = {
        "text_config": text, "vision_config": tower_config("siglip_vision_model"), "mm_tokens_per_image": 4,
        "image_token_index": image, "boi_token_index": boi, "eoi_token_index": eoi,
    }  # fmt: skip
    config = T5Gemma2Config(encoder=encoder, decoder=text, image_token_index=image, eoi_token_index=eoi)
    return T5Gemma2ForConditionalGeneration(config), processor
