from __future__ import annotations

from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
)

from tests.vlms.tiny import text_config, tokenizer, tower_config

# with its own begin and its own end of a turn, as the published one
TURN = (
    "{{ bos_token }}{% for m in messages %}<turn>{{ m.role }} : {% for c in m.content %}"
    "{% if c.type == 'image' %}<boi>{% else %}{{ c.text }}{% endif %}{% endfor %}<end>{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant : {% endif %}"
)


def words_and_processor(chat_template: str | None):
    """A tokenizer that begins texts by itself, as Gemma's, and the processor of Gemma 3 and T5Gemma 2."""
    words = tokenizer(image_token="<img>", boi_token="<boi>", eoi_token="<eoi>", turn="<turn>", end="<end>")
    words.add_tokens([AddedToken("\n\n", normalized=False)])
    begin = ("<bos>", words.bos_token_id)
    words._tokenizer.post_processor = TemplateProcessing("<bos> $A", "<bos> $A $B", [begin])
    pictures = Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
    return words, Gemma3Processor(pictures, words, chat_template=chat_template, image_seq_length=4)


def sizes(**more):
    """A decoder with a layer of each kind, whose window is shorter than a prompt."""
    return text_config(
        "gemma3_text", query_pre_attn_scalar=12, sliding_window=8,
        layer_types=["sliding_attention", "full_attention"], **more,
    ) | {"head_dim": 12}  # fmt: skip


def build():
    words, processor = words_and_processor(TURN)
    ids = {name: words.convert_tokens_to_ids(token) for name, token in (
        ("image_token_index", "<img>"), ("boi_token_index", "<boi>"), ("eoi_token_index", "<eoi>")
    )}  # fmt: skip
    config = Gemma3Config(
        vision_config=tower_config("siglip_vision_model", vision_use_head=False), text_config=sizes(),
        mm_tokens_per_image=4, **ids,
    )  # fmt: skip
    return Gemma3ForConditionalGeneration(config), processor
