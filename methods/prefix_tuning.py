"""Prefix-tuning (Li & Liang, ACL 2021): learned keys and values before those of every attention."""

from __future__ import annotations

from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from pet_bench.methods.lora import ATTENTIONS
from pet_bench.pet import Builder, Design, Door, Method
from pet_bench.spec import STRICT, Distinct, Size

IMPLEMENTATION = "pet-bench-prefix"
Attentions = Annotated[tuple[Literal[ATTENTIONS], ...], Distinct]


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    position_bias: Tensor | None = None,
    **settings,
) -> tuple[Tensor, None]:
    """The stock attention over [P_k; K] and [P_v; V], (B, heads, M + S, width), where the module has a prefix.

    It runs after the cache was read and written, so that prefixes are in none. attention_mask (B, 1, T, S) is true
    where a query may look; position_bias (1, heads, T, S) is T5's.
    """
    if hasattr(module, "prefix"):
        keys, values = module.prefix()
        length = len(keys)
        key, value = _before(keys, key), _before(values, value)
        attention_mask = F.pad(attention_mask, (length, 0), value=True)
        if position_bias is not None:
            position_bias = F.pad(position_bias, (length, 0))
    return sdpa_attention_forward(module, query, key, value, attention_mask, position_bias=position_bias, **settings)


def _before(prefix: Tensor, states: Tensor) -> Tensor:
    """prefix (M, heads · width) before states (B, heads, S, width)."""
    batch, heads, _, width = states.shape
    prefix = prefix.view(-1, heads, width).transpose(0, 1).to(states.dtype)
    return torch.cat([prefix.expand(batch, -1, -1, -1), states], dim=2)


def mask(*arguments, **settings) -> Tensor:
    """The stock mask, never left out: without one, causality would be counted from the first prefix position."""
    return sdpa_mask(*arguments, **settings | {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})


AttentionInterface.register(IMPLEMENTATION, attend)
AttentionMaskInterface.register(IMPLEMENTATION, mask)


@dataclass(frozen=True, config=STRICT)
class Prefix(Door):
    """Attn(Q, [P_k; K], [P_v; V]) in every layer, P = W_2 tanh(W_1 T + b_1) + b_2, (length, layers · 2 · d).

    T (length, d), W_1 (hidden, d), W_2 (layers · 2 · d, hidden). Prefix positions are never masked and have no
    relative position (bias 0 in T5).
    attentions: which have one, each with its own T and network. per_task: every task has its own.
    """

    kind: ClassVar = "prefix"
    length: Size
    hidden: Size
    attentions: Attentions = Field(default=ATTENTIONS, min_length=1)
    per_task: bool = False

    @property
    def formula(self) -> str:
        own = ", one per task" if self.per_task else ""
        network = f"W_2 tanh(W_1 T + b_1) + b_2, T ({self.length}, d), hidden {self.hidden}{own}"
        return f"Attn(Q, [P_k; K], [P_v; V]) at {', '.join(self.attentions)}, P = {network}"

    def open(self, build):
        model, sites = build.model, build.model.family.sites()
        networks = nn.ModuleDict()
        for name in self.attentions:
            writer, shape = sites[name].writer, model.shape
            layers = shape.encoder_layers if name.startswith("encoder") else shape.decoder_layers
            attentions = [model.lm.get_submodule(writer.format(i=i)) for i in range(layers)]
            width = model.lm.get_submodule(sites[f"{name}.key"].writer.format(i=0)).out_features

            def make(width=width, layers=layers):
                return PrefixNetwork(self, build, width, layers)

            network = networks[name.replace(".", "_")] = build.by_task(make) if self.per_task else make()
            for i, attention in enumerate(attentions):
                attention.prefix = partial(network, i)
        model.lm.set_attn_implementation(IMPLEMENTATION)
        return networks


class PrefixNetwork(nn.Module):
    """P_k and P_v of every layer's attention of one kind; W_2 as one linear layer a layer."""

    def __init__(self, spec: Prefix, build: Builder, width: int, layers: int):
        super().__init__()
        d = build.model.shape.d
        self.table = build.table(spec.length, d)
        self.down = build.linear(d, spec.hidden)
        self.up = nn.ModuleList(build.linear(spec.hidden, 2 * width) for _ in range(layers))

    def forward(self, layer: int) -> tuple[Tensor, Tensor]:
        """P_k, P_v of that layer, each (length, heads · width)."""
        return self.up[layer](torch.tanh(self.down(self.table))).chunk(2, dim=-1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PrefixTuning(Method):
    """Attn(Q, [P_k; K], [P_v; V]) in every attention, P = W_2 tanh(W_1 T + b_1) + b_2, T (length, d).

    length: 20 (paper: 10 for table-to-text, 200 for summaries). hidden: width of the network; d/2, as the authors'
    512 at d = 1024. attentions: those with a prefix; each kind has a network of its own for all of its layers. The
    networks stay: P is not folded after training. Deliberate difference: the visual embedding trains too, as in every
    method here. No learning rate is published for this set-up.
    """

    name: ClassVar = "prefix-tuning"
    source: ClassVar = "Prefix-Tuning (Li & Liang, ACL 2021), sections 4.2 and 4.3"
    year: ClassVar = 2021
    learning_rates: ClassVar = {"mini-bart": 5e-3, "mini-t5": 5e-3}

    hidden: Size
    length: Size = 20
    attentions: Attentions = Field(default=ATTENTIONS, min_length=1)
    per_task: bool = False

    @classmethod
    def defaults(cls, shape):
        return {"hidden": max(1, shape.d // 2)}

    def design(self, shape):
        return Design(doors=(Prefix(self.length, self.hidden, self.attentions, self.per_task),))
