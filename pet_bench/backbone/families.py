"""What BART and T5 do differently: the joint encoder input and the table of sites.

A **site** is a pair of stock modules of one layer, (reader, writer): X is the reader's input, H the writer's output.
The names are the same on every backbone: `{encoder,decoder}.{self_attn,cross_attn,ffn}`; `.query`, `.key`, `.value`,
`.out` below an attention and `.in`, `.out` below a feed-forward, where reader and writer are the projection itself;
`.ffn.hidden`, the hidden units that `.ffn.out` reads; `decoder.cross_attn.memory`, the encoder states as keys and
values read them; and `decoder.head`, the output layer. A gated feed-forward (see `GatedT5`) has `.ffn.gate` besides.
For a whole sub-layer X is the input of the sub-layer and H its output before dropout and the residual (METHODS.md
section 2): in BART (post-norm) X is the normalised output of the previous sub-layer; in T5 (pre-norm) the raw residual
stream, which is what the sub-layer's RMS norm reads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.t5.modeling_t5 import T5LayerNorm


class Site(NamedTuple):
    """Paths inside the stock model, with `{i}` for the layer.

    argument: X and H are both that keyword argument of the writer, which gets H' in its place. feeds: the linear
    layer whose input H is, where neither reader nor writer tells its width. before: H is what the writer reads, and
    not what it writes.
    """

    reader: str
    writer: str
    argument: str | None = None
    feeds: str | None = None
    before: bool = False


class Family(ABC):
    """One backbone family. `stacks` and `sub_layers` give module paths with `{i}` for the layer."""

    name: ClassVar[str]
    stacks: ClassVar[dict[str, str]]
    sub_layers: ClassVar[dict[str, tuple[str, str]]]
    projections: ClassVar[dict[str, str]]
    feed_forward: ClassVar[dict[str, str]]  # below the layer's feed-forward: its projections, `out` the last of them
    hidden: ClassVar[str]  # the module that writes the hidden units, or that reads them where `hidden_before`
    hidden_before: ClassVar[bool] = False
    norm: ClassVar[type[nn.Module]]
    visual_eps: ClassVar[float]
    word_std: ClassVar[float]  # of vocabulary rows added to a pre-trained table

    @classmethod
    def sites(cls) -> dict[str, Site]:
        """Site name → where it is."""
        table = {}
        for sub_layer, (reader, writer) in cls.sub_layers.items():
            layer = f"{cls.stacks[sub_layer.split('.')[0]]}.{{i}}"
            table[sub_layer] = Site(f"{layer}.{reader}", f"{layer}.{writer}")
            if sub_layer.endswith("attn"):
                for name, path in cls.projections.items():
                    table[f"{sub_layer}.{name}"] = Site(*(f"{layer}.{writer}.{path}",) * 2)
            if sub_layer.endswith("cross_attn"):
                table[f"{sub_layer}.memory"] = Site(*(f"{layer}.{writer}",) * 2, argument="key_value_states")
            if sub_layer.endswith("ffn"):
                for name, path in cls.feed_forward.items():
                    table[f"{sub_layer}.{name}"] = Site(*(f"{layer}.{path.format(ffn=writer)}",) * 2)
                hidden, out = f"{layer}.{cls.hidden.format(ffn=writer)}", table[f"{sub_layer}.out"].writer
                table[f"{sub_layer}.hidden"] = Site(
                    table[sub_layer].reader, hidden, feeds=out, before=cls.hidden_before
                )
        return table | {"decoder.head": Site("lm_head", "lm_head")}

    @staticmethod
    @abstractmethod
    def embed(lm: PreTrainedModel, text: Tensor) -> Tensor:
        """Text ids (B, L) as the encoder's input, (B, L, d), before what acts on the whole text block."""

    @staticmethod
    @abstractmethod
    def encode(lm: PreTrainedModel, words: Tensor, visual: Tensor, mask: Tensor) -> Tensor:
        """Joint encoding of embedded text (B, L, d) and visual tokens (B, P, d), mask (B, L+P) → (B, L+P, d)."""

    @staticmethod
    @abstractmethod
    def init_linear(linear: nn.Linear) -> None:
        """The initialisation that the published runs give to a new linear layer (METHODS.md section 7)."""

    @staticmethod
    @abstractmethod
    def init_embedding(weight: Tensor) -> None:
        """Likewise for a new table: image order, prompts."""


class Bart(Family):
    """Post-norm, learned positions. Positions and the embedding norm act on the text only."""

    name = "bart"
    stacks: ClassVar = {"encoder": "model.encoder.layers", "decoder": "model.decoder.layers"}
    sub_layers: ClassVar = {
        "encoder.self_attn": ("self_attn", "self_attn"),
        "encoder.ffn": ("fc1", "fc2"),
        "decoder.self_attn": ("self_attn", "self_attn"),
        "decoder.cross_attn": ("encoder_attn", "encoder_attn"),
        "decoder.ffn": ("fc1", "fc2"),
    }
    projections: ClassVar = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}
    feed_forward: ClassVar = {"in": "fc1", "out": "fc2"}
    hidden = "activation_fn"
    norm = nn.LayerNorm
    visual_eps = 1e-5
    word_std = 0.02

    @staticmethod
    def embed(lm, text):
        encoder = lm.model.encoder
        return encoder.embed_tokens(text) + encoder.embed_positions(text)

    @staticmethod
    def encode(lm, words, visual, mask):
        encoder = lm.model.encoder
        hidden = F.dropout(
            torch.cat([encoder.layernorm_embedding(words), visual], dim=1), encoder.dropout, encoder.training
        )
        mask = create_bidirectional_mask(config=encoder.config, inputs_embeds=hidden, attention_mask=mask)
        for layer in encoder.layers:
            hidden = layer(hidden, mask)
        return hidden

    @staticmethod
    def init_linear(linear):
        nn.init.normal_(linear.weight, std=0.02)
        nn.init.zeros_(linear.bias)

    @staticmethod
    def init_embedding(weight):
        nn.init.normal_(weight, std=0.02)


class T5(Family):
    """Pre-norm, relative positions. The relative bias exists between text tokens only; any other pair has 0."""

    name = "t5"
    stacks: ClassVar = {"encoder": "encoder.block", "decoder": "decoder.block"}
    sub_layers: ClassVar = {
        "encoder.self_attn": ("layer.0.layer_norm", "layer.0.SelfAttention"),
        "encoder.ffn": ("layer.1.layer_norm", "layer.1.DenseReluDense"),
        "decoder.self_attn": ("layer.0.layer_norm", "layer.0.SelfAttention"),
        "decoder.cross_attn": ("layer.1.layer_norm", "layer.1.EncDecAttention"),
        "decoder.ffn": ("layer.2.layer_norm", "layer.2.DenseReluDense"),
    }
    projections: ClassVar = {"query": "q", "key": "k", "value": "v", "out": "o"}
    feed_forward: ClassVar = {"in": "{ffn}.wi", "out": "{ffn}.wo"}
    hidden = "{ffn}.act"
    norm = T5LayerNorm
    visual_eps = 1e-6
    word_std = 1.0

    @staticmethod
    def embed(lm, text):
        return lm.encoder.embed_tokens(text)

    @staticmethod
    def encode(lm, words, visual, mask):
        encoder = lm.encoder
        hidden = encoder.dropout(torch.cat([words, visual], dim=1))
        mask = create_bidirectional_mask(config=encoder.config, inputs_embeds=hidden, attention_mask=mask)
        length, tokens = words.shape[1], visual.shape[1]
        bias = encoder.block[0].layer[0].SelfAttention.compute_bias(length, length)  # (1, heads, L, L)
        bias = F.pad(bias, (0, tokens, 0, tokens))
        for block in encoder.block:
            hidden, _, _ = block(hidden, mask, bias)
        return encoder.dropout(encoder.final_layer_norm(hidden))

    @staticmethod
    def init_linear(linear):
        linear.reset_parameters()

    @staticmethod
    def init_embedding(weight):
        nn.init.normal_(weight, std=1.0)


class GatedT5(T5):
    """T5 1.1 and Flan-T5: hidden units act(W_gate x) ⊙ (W_in x), `.ffn.gate` being wi_0 and `.ffn.in` wi_1.

    `.in` is the linear one of the two, as the reference of IA³ has it on such models (it scales the output of wi_1,
    which is to scale the hidden units).
    """

    feed_forward: ClassVar = {"gate": "{ffn}.wi_0", "in": "{ffn}.wi_1", "out": "{ffn}.wo"}
    hidden = "{ffn}.dropout"  # no module writes the product
    hidden_before = True


def family_of(config: PreTrainedConfig) -> type[Family]:
    """What a stock model of that configuration is."""
    if config.model_type == Bart.name:
        return Bart
    return GatedT5 if config.is_gated_act else T5
