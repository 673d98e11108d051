from __future__ import annotations

from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor

from tests.vlms.tiny import D, text_config
from tests.vlms.tiny.qwen2_5_vl import ROPE, VISION, ids, processor


def build():
    made = processor(Qwen3VLProcessor)
    text = text_config(rope_parameters=ROPE)
    del text["model_type"]
    vision = VISION | {"out_hidden_size": D, "num_position_embeddings": 16, "deepstack_visual_indexes": (0,)}
    return Qwen3VLForConditionalGeneration(
        Qwen3VLConfig(text_config=text, vision_config=vision, **ids(made.tokenizer))
    ), made
