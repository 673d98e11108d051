"""Prefix-tuning (Li & Liang, ACL 2021): learned keys and values before those of every attention."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, ClassVar, Literal, cast

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from pet_bench.errors import unknown
from pet_bench.pet import Attend, Builder, Call, Design, Door, Method, edit_attention
from pet_bench.spec import STRICT, Distinct, Size

Attention = Literal["vision.self_attn", "encoder.self_attn", "decoder.self_attn", "decoder.cross_attn"]
Attentions = Annotated[tuple[Attention, ...], Distinct, Field(min_length=1)]
TEXT: Attentions = ("encoder.self_attn", "decoder.self_attn", "decoder.cross_attn")


class After:
    """The attention over [P_k; K] and [P_v; V]; `prefix` gives P_k and P_v, (M, heads · width)."""

    def __init__(self, prefix: Callable[[], tuple[Tensor, Tensor]]):
        self.prefix = prefix

    def __call__(self, call: Call, *, attend: Attend) -> Tensor:
        key, value = (_heads(states, call.key) for states in self.prefix())
        return attend(call.before(key, value))


def _heads(prefix: Tensor, like: Tensor) -> Tensor:
    """prefix (M, heads · width) as keys or values (B, heads, M, width) of a batch."""
    batch, heads, _, width = like.shape
    return prefix.view(-1, heads, width).transpose(0, 1).to(like.dtype).expand(batch, -1, -1, -1)


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
    attentions: Attentions = TEXT
    per_task: bool = False

    @property
    def formula(self) -> str:
        own = ", one per task" if self.per_task else ""
        network = f"W_2 tanh(W_1 T + b_1) + b_2, T ({self.length}, d), hidden {self.hidden}{own}"
        return f"Attn(Q, [P_k; K], [P_v; V]) at {', '.join(self.attentions)}, P = {network}"

    def open(self, build):
        model, sites = build.model, build.anatomy.sites
        networks = nn.ModuleDict()
        for name in self.attentions:
            if name not in sites:
                raise unknown("attention", name, build.anatomy.attentions)
            stack, key = build.anatomy.stacks[name.partition(".")[0]], sites[f"{name}.key"]
            layers = [stack.name_of(i) for i in range(stack.layers)]
            fused = key.part[1] if key.part else 1
            widths = [cast(nn.Linear, model.at(key.writer, layer)).out_features // fused for layer in layers]

            def make(widths=widths):
                return PrefixNetwork(self, build, widths)

            network = networks[name.replace(".", "_")] = build.by_task(make) if self.per_task else make()
            for i, layer in enumerate(layers):
                edit_attention(model, model.at(sites[name].writer, layer), After(partial(network, i)))
        return networks


class PrefixNetwork(nn.Module):
    """P_k and P_v of every layer's attention of one kind; W_2 as one linear layer a layer.

    widths: heads · width of the keys in each, of which there may be fewer than of the queries.
    """

    def __init__(self, spec: Prefix, build: Builder, widths: list[int]):
        super().__init__()
        d = build.anatomy.d
        self.table = build.table(spec.length, d)
        self.down = build.linear(d, spec.hidden)
        self.up = nn.ModuleList(build.linear(spec.hidden, 2 * width) for width in widths)

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
    size: ClassVar = "length"
    learning_rates: ClassVar = {"mini-bart": 5e-3, "mini-t5": 5e-3}

    hidden: Size
    length: Size = 20
    attentions: Attentions
    per_task: bool = False

    @classmethod
    def defaults(cls, anatomy):
        return {"hidden": max(1, anatomy.d // 2), "attentions": list(anatomy.attentions or TEXT)}

    def skip(self, anatomy):
        whole = anatomy.scoped([*anatomy.scope, "language"])
        if not whole.attentions:
            return "the backbone has no attention"
        if not anatomy.attentions:
            return f"the scope {', '.join(anatomy.scope)} has no attention"
        stacks = (name.partition(".")[0] for name in self.attentions)
        odd = next((name for name in stacks if name in anatomy.stacks and anatomy.stacks[name].over_channels), None)
        return f"the backbone's {odd} looks over channels too, where there is no key for a position" if odd else None

    def design(self, anatomy):
        return Design(doors=(Prefix(self.length, self.hidden, self.attentions, self.per_task),))
