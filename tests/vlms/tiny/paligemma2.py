from __future__ import annotations

from tokenizers import AddedToken
from transformers import (
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    SiglipImageProcessorPil,
)

from tests.vlms.tiny import text_config, tokenizer, tower_config


def build(kind: str = "gemma2"):
    """kind "gemma": PaliGemma 1."""
    words = tokenizer(image_token="<image>")
    words.add_tokens([AddedToken("\n", normalized=False)])  # which splitting at blanks would lose
    pictures = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    pictures.image_seq_length = 16
    processor = PaliGemmaProcessor(pictures, words)  # which adds 1152 words of places to the tokenizer
    more = {"query_pre_attn_scalar": 12, "sliding_window": 64} if kind == "gemma2" else {}
    config = PaliGemmaConfig(
        vision_config=tower_config("siglip_vision_model", vision_use_head=False),
        text_config=text_config(kind, **more) | {"vocab_size": 1216, "head_dim": 12},
        image_token_index=words.convert_tokens_to_ids("<image>"), projection_dim=32, hidden_size=32, vocab_size=1216,
    )  # fmt: skip
    return PaliGemmaForConditionalGeneration(config), processor
