"""BART: post-norm, learned positions. Positions and the embedding norm act on the text only."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn
from transformers import BartConfig, BartForConditionalGeneration
from transformers.models.bart.modeling_bart import BartDecoderLayer, BartEncoderLayer

from pet_bench.backbone.anatomy import ffn_sites
from pet_bench.backbone.encoder_decoder import EncoderDecoderFamily
from pet_bench.backbone.known import Backbone, mini
from pet_bench.errors import UserError

BLOCK = {"encoder": BartEncoderLayer, "decoder": BartDecoderLayer}


class Bart(EncoderDecoderFamily):
    """`facebook/bart-base` and its like (Lewis et al., ACL 2020)."""

    name = "bart"
    stock = BartForConditionalGeneration
    config = BartConfig
    sizes: ClassVar = (
        "vocab_size", "d_model", "encoder_layers", "decoder_layers", "encoder_attention_heads",
        "decoder_attention_heads", "encoder_ffn_dim", "decoder_ffn_dim", "max_position_embeddings",
    )  # fmt: skip
    batch_size = 500
    norm = nn.LayerNorm
    visual_eps = 1e-5
    word_std = 0.02
    biases = True

    stacks: ClassVar = {"encoder": ("lm.model.encoder", "layers"), "decoder": ("lm.model.decoder", "layers")}
    depth: ClassVar = {
        "encoder": ("encoder_layers", "encoder_attention_heads"),
        "decoder": ("decoder_layers", "decoder_attention_heads"),
    }
    sub_layers: ClassVar = {
        "encoder.self_attn": ("self_attn", "self_attn"),
        "encoder.ffn": ("fc1", "fc2"),
        "decoder.self_attn": ("self_attn", "self_attn"),
        "decoder.cross_attn": ("encoder_attn", "encoder_attn"),
        "decoder.ffn": ("fc1", "fc2"),
    }
    projections: ClassVar = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}
    decoder_input = "lm.model.decoder.layernorm_embedding"
    decoder_output = "lm.model.decoder"
    before_choice = ("bos_token_id",)
    beams_end = True

    narrow = ("d_model", "encoder_ffn_dim", "decoder_ffn_dim")
    alike = (("q_proj", "k_proj", "v_proj"), ("out_proj",))
    walk: ClassVar = {
        "encoder": ("self_attn", "self_attn_layer_norm", "fc1", "fc2", "final_layer_norm"),
        "decoder": (
            "self_attn", "self_attn_layer_norm", "encoder_attn", "encoder_attn_layer_norm", "fc1", "fc2",
            "final_layer_norm",
        ),
    }  # fmt: skip

    @classmethod
    def feed_forward(cls, name, reader, writer, config):
        layer = reader.rpartition(".")[0]
        return ffn_sites(name, reader, writer, {"in": reader, "out": writer}, f"{layer}.activation_fn")

    @staticmethod
    def embed(lm, text):
        encoder = lm.model.encoder
        return encoder.embed_tokens(text) + encoder.embed_positions(text)

    @staticmethod
    def begin(encoder, words):
        return encoder.layernorm_embedding(words)

    @classmethod
    def narrowed(cls, config, reduction):
        thin: Any = super().narrowed(config, reduction)
        if thin.d_model % thin.num_attention_heads:
            raise UserError(
                f"{thin.num_attention_heads} heads do not divide the width {thin.d_model} (reduction {reduction})"
            )
        return thin

    @classmethod
    def block(cls, stack, config, i, layers):
        return BLOCK[stack](config, **({"layer_idx": layers + i} if stack == "decoder" else {}))

    @staticmethod
    def decode_step(block, states, mask, memory, memory_mask, cache, kept):
        return block(states, mask, memory, encoder_attention_mask=memory_mask, past_key_values=cache)


# Sizes as published (METHODS.md section 1), so that counting needs no download.
BART_BASE = Backbone(
    "bart-base",
    "bart",
    "facebook/bart-base",
    {
        "vocab_size": 50265, "d_model": 768, "encoder_layers": 6, "decoder_layers": 6,
        "encoder_attention_heads": 12, "decoder_attention_heads": 12, "encoder_ffn_dim": 3072,
        "decoder_ffn_dim": 3072, "max_position_embeddings": 1024, "dropout": 0.1, "attention_dropout": 0.1,
        "activation_dropout": 0.1,
    },
    rows=50265 + 200,
)  # fmt: skip
MINI_BART = mini("mini-bart", "bart", epochs=2, batch_size=32)
MINI_BART_CLIPS = mini("mini-bart-clips", "bart", rates_of="mini-bart", epochs=2, batch_size=32)
