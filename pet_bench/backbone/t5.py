"""T5: pre-norm, relative positions. The relative bias exists between text tokens only; any other pair has 0."""

from __future__ import annotations

from typing import ClassVar

from torch import nn
from torch.nn import functional as F
from transformers import T5Config, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Block, T5LayerNorm

from pet_bench.backbone.anatomy import ffn_sites
from pet_bench.backbone.encoder_decoder import EncoderDecoderFamily
from pet_bench.backbone.known import Backbone, mini

# By `is_gated_act`: the projections of a feed-forward, and what writes or (before) reads its hidden units. A gated one,
# T5 1.1's and Flan-T5's, has hidden units act(W_gate x) ⊙ (W_in x), of which no module writes the product; `.in` is
# wi_1, the linear one of the two, as the reference of IA³ has it on such models (it scales the output of wi_1, which
# is to scale the hidden units).
FEED_FORWARD = {
    False: ({"in": "wi", "out": "wo"}, "act", False),
    True: ({"gate": "wi_0", "in": "wi_1", "out": "wo"}, "dropout", True),
}


class T5(EncoderDecoderFamily):
    """`google-t5/t5-base`, T5 1.1, Flan-T5 and their like (Raffel et al., JMLR 2020)."""

    name = "t5"
    stock = T5ForConditionalGeneration
    config = T5Config
    sizes: ClassVar = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads")
    optional = ("num_decoder_layers",)  # as the encoder's
    batch_size = 300
    norm = T5LayerNorm
    visual_eps = 1e-6
    word_std = 1.0
    biases = False

    stacks: ClassVar = {"encoder": ("lm.encoder", "block"), "decoder": ("lm.decoder", "block")}
    depth: ClassVar = {"encoder": ("num_layers", "num_heads"), "decoder": ("num_decoder_layers", "num_heads")}
    sub_layers: ClassVar = {
        "encoder.self_attn": ("layer.0.layer_norm", "layer.0.SelfAttention"),
        "encoder.ffn": ("layer.1.layer_norm", "layer.1.DenseReluDense"),
        "decoder.self_attn": ("layer.0.layer_norm", "layer.0.SelfAttention"),
        "decoder.cross_attn": ("layer.1.layer_norm", "layer.1.EncDecAttention"),
        "decoder.ffn": ("layer.2.layer_norm", "layer.2.DenseReluDense"),
    }
    projections: ClassVar = {"query": "q", "key": "k", "value": "v", "out": "o"}
    decoder_input = "lm.decoder.embed_tokens"
    decoder_output = "lm.decoder"

    narrow = ("d_model", "d_ff", "d_kv")
    alike = (("q", "k", "v"), ("o",), ("wi",), ("wi_0", "wi_1"), ("wo",))
    walk: ClassVar = {
        "encoder": ("layer.0.layer_norm", "layer.0.SelfAttention", "layer.1.layer_norm", "layer.1.DenseReluDense"),
        "decoder": (
            "layer.0.layer_norm", "layer.0.SelfAttention", "layer.1.layer_norm", "layer.1.EncDecAttention",
            "layer.2.layer_norm", "layer.2.DenseReluDense",
        ),
    }  # fmt: skip

    @classmethod
    def feed_forward(cls, name, reader, writer, config):
        projections, hidden, before = FEED_FORWARD[config.is_gated_act]
        paths = {projection: f"{writer}.{path}" for projection, path in projections.items()}
        return ffn_sites(name, reader, writer, paths, f"{writer}.{hidden}", before=before)

    @classmethod
    def has_own_head(cls, raw, config):
        """Together with leaving the decoder's states unscaled (T5 1.1); with `scale_decoder_outputs` on, the flag is a
        leftover."""
        return super().has_own_head(raw, config) and not getattr(config, "scale_decoder_outputs", False)

    @staticmethod
    def embed(lm, text):
        return lm.encoder.embed_tokens(text)

    @staticmethod
    def positions(blocks, length, images):
        bias = blocks[0].layer[0].SelfAttention.compute_bias(length, length)  # (1, heads, L, L)
        return (F.pad(bias, (0, images, 0, images)),)

    @staticmethod
    def last_norm(stack):
        return stack.final_layer_norm

    @staticmethod
    def init_linear(linear):
        linear.reset_parameters()

    @staticmethod
    def init_embedding(weight):
        nn.init.normal_(weight, std=1.0)

    @classmethod
    def block(cls, stack, config, i, layers):
        return T5Block(config, has_relative_attention_bias=i == 0, layer_idx=layers + i)

    @staticmethod
    def decode_step(block, states, mask, memory, memory_mask, cache, kept):
        own, cross = kept.get("own"), kept.get("cross")
        states, kept["own"], kept["cross"] = block(states, mask, own, memory, memory_mask, cross, past_key_values=cache)
        return states


# Sizes as published (METHODS.md section 1), so that counting needs no download.
T5_BASE = Backbone(
    "t5-base",
    "t5",
    "google-t5/t5-base",
    {
        "vocab_size": 32128, "d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12,
        "num_decoder_layers": 12, "num_heads": 12, "dropout_rate": 0.1, "decoder_start_token_id": 0,
    },
    rows=32000 + 200,
)  # fmt: skip
MINI_T5 = mini("mini-t5", "t5", epochs=3, batch_size=16)
