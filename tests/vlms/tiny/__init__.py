"""Tiny random vision-language models with real processor files, one module a family: `build()` gives both.

Nothing is downloaded: models come from configurations, tokenizers from a list of words, processors from their classes.
`folder(name, path)` saves both as stock transformers does, for `find_backbone`.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast

WORDS = (
    "what", "is", "this", "a", "red", "blue", "green", "circle", "square", "left", "right", "of", "the", "yes", "no",
    "how", "many", "are", "there", "color", "shape", "0", "1", "2", "3", "one", "two", ".", "?", ",", ":", "user",
    "assistant", "vqa", "caption",
)  # fmt: skip
SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>")
D, FFN, LAYERS, HEADS, KEYS = 32, 48, 2, 4, 2  # width, feed-forward, layers, heads, heads of keys and values
VOCABULARY = 128
TURN = (
    "{% for m in messages %}{{ m.role }} : {% for c in m.content %}{% if c.type == 'image' %}IMAGE"
    "{% else %}{{ c.text }}{% endif %} {% endfor %}{% if m.role == 'assistant' %}<eos> {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}assistant : {% endif %}"
)


def tokenizer(**extra: str) -> PreTrainedTokenizerFast:
    """Words of the world, split at blanks; extra: further special tokens by what a processor calls them."""
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    model = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>",
        extra_special_tokens=extra, padding_side="left",
    )  # fmt: skip


def turn(image: str) -> str:
    """A chat template that puts `image` where a picture is."""
    return TURN.replace("IMAGE", image)


def text_config(kind: str = "llama", **more) -> dict:
    """Sizes of a tiny language model."""
    return {
        "model_type": kind, "vocab_size": VOCABULARY, "hidden_size": D, "intermediate_size": FFN,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KEYS, "head_dim": D // HEADS,
        "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1, **more,
    }  # fmt: skip


def tower_config(kind: str, **more) -> dict:
    """Sizes of a tiny CLIP or SigLIP tower for pictures of 32 × 32."""
    return {
        "model_type": kind, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": LAYERS,
        "num_attention_heads": 2, "image_size": 32, "patch_size": 8, **more,
    }  # fmt: skip


def build(name: str, seed: int = 0):
    """(stock model, processor) of a family, weights large enough for the picture to matter."""
    module = importlib.import_module(f"{__name__}.{name.replace('-', '_').replace('.', '_')}")
    torch.manual_seed(seed)
    model, processor = module.build()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.1)
    return model.eval(), processor


def folder(name: str, path: Path, seed: int = 0) -> Path:
    """A checkpoint folder as stock transformers saves it."""
    model, processor = build(name, seed)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path
