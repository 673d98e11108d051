"""Folders of small checkpoints, as users have them: every way in which word tables and output layer can be tied."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BartConfig, BartForConditionalGeneration, T5Config, T5ForConditionalGeneration

from pet_bench.backbone import find_backbone
from pet_bench.backbone.known import EXTRA_WORDS

SIZES = {
    "bart": {
        "d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 64,
        "init_std": 0.5, "dropout": 0.0,
    },
    "t5": {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 1, "num_decoder_layers": 2, "num_heads": 2,
           "decoder_start_token_id": 0, "dropout_rate": 0.0},
}  # fmt: skip
# Kind → the configuration's own keys, and names under which the checkpoint has further tables.
KINDS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "bart": ({}, ()),
    "bart own head": ({}, ("lm_head.weight",)),
    "bart own head, flag off": ({"tie_word_embeddings": False}, ("lm_head.weight",)),
    "bart four tables": (
        {"tie_word_embeddings": False},
        ("lm_head.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"),
    ),
    "t5": ({}, ()),
    "t5 own head": ({}, ("lm_head.weight",)),
    "t5 gated": ({"feed_forward_proj": "gated-gelu"}, ()),
    "t5 gated own head": (  # T5 1.1, Flan-T5
        {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, ("lm_head.weight",)
    ),
}  # fmt: skip


def write(folder: Path, kind: str, *, grown: bool = True) -> Path:
    """A checkpoint of that kind. grown: whether its vocabulary has the 200 extra words already."""
    family, (config, further) = kind.split()[0], KINDS[kind]
    mini = Path(find_backbone(f"mini-{family}").source)
    folder.mkdir()
    shutil.copy(mini / "tokenizer_config.json", folder)
    tokenizer = json.loads((mini / "tokenizer.json").read_text())
    rows = 1 + max(token["id"] for token in tokenizer["added_tokens"])
    if not grown:
        rows -= len(EXTRA_WORDS)
        tokenizer["added_tokens"] = [t for t in tokenizer["added_tokens"] if t["content"] not in EXTRA_WORDS]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    stock, of = {"bart": (BartForConditionalGeneration, BartConfig), "t5": (T5ForConditionalGeneration, T5Config)}[
        family
    ]
    torch.manual_seed(0)
    stock(of(vocab_size=rows, **SIZES[family] | config | {"tie_word_embeddings": True})).save_pretrained(folder)
    edit_config(folder, {"scale_decoder_outputs": None, "is_gated_act": None, "dense_act_fn": None} | config)
    table = "shared.weight" if family == "t5" else "model.shared.weight"

    def edit(tensors):
        louder = {
            n: 4 * t for n, t in tensors.items() if t.dim() > 1 and n != table
        }  # than what a word repeats of itself
        return tensors | louder | {name: torch.randn_like(tensors[table]) for name in further}

    edit_tensors(folder, edit)
    return folder


def edit_config(folder: Path, changes: dict[str, Any], name: str = "config.json") -> None:
    """None takes a key out."""
    content = json.loads((folder / name).read_text()) | changes
    (folder / name).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def tensors_of(folder: str | Path) -> dict[str, Tensor]:
    return load_file(Path(folder) / "model.safetensors")


def edit_tensors(folder: Path, edit) -> None:
    save_file(edit(tensors_of(folder)), folder / "model.safetensors", metadata={"format": "pt"})
