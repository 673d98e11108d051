"""LLaMA-Adapter (Zhang et al., ICLR 2024; V2 2023): a second, gated attention over prompts in the topmost layers."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from pet_bench.backbone.interface import Context
from pet_bench.pet import (
    Attend,
    Builder,
    Call,
    Design,
    Difference,
    Door,
    Insert,
    LowRank,
    Method,
    Offset,
    edit_attention,
)
from pet_bench.pet.select import no_words
from pet_bench.pet.visual_memory import Beside
from pet_bench.spec import STRICT, Names, Size

Images = Literal["tokens", "mean", "queries"]


def topmost(layers: int, count: int | None = None) -> tuple[int, ...]:
    """The numbers of so many layers from the top, if there are as many; None: of all but the lowest 1/16, as of 30 of
    32, 5 of 6 and 1 of 2."""
    return tuple(range(max(0, layers - (count or max(1, layers * 15 // 16))), layers))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GatedPrompts(Door):
    """o ← o + g ⊙ softmax(s q k_Pᵀ) v_P before the output projection, k_P = W_k P + b_k, v_P = W_v P + b_v.

    In the self-attentions of the topmost `layers` of each of `stacks`; a layer's P is (length, d) ~ N(0, 1), and W_k
    and W_v are the frozen ones alone, without inserts at them or rotary positions. g: tanh(γ), γ (heads,) = 0, or γ
    itself; factor: times a further scalar that starts at 1. s: as of the attention's own scores.
    images: "tokens", they are in the sequence; else they are not, and P ← P + I: W f̄ + b, f̄ the "mean" of the features,
    or what `Queries` makes of them.
    """

    kind: ClassVar = "gated-prompts"
    length: Size
    layers: Size | None
    stacks: Names
    images: Images = "tokens"
    tanh: bool = True
    factor: bool = False

    @property
    def formula(self) -> str:
        gate = f"{'c · ' if self.factor else ''}{'tanh(γ)' if self.tanh else 'γ'}"
        prompts = {"tokens": "P", "mean": "P + W f̄ + b", "queries": "P + Queries(f)"}[self.images]
        of = ", ".join(f"{stack}.self_attn" for stack in self.stacks)
        return f"o + {gate} ⊙ Attn(q, W_k P', W_v P') at {of}, P' = {prompts} ({self.length}, d)"

    def open(self, build):
        model, anatomy = build.model, build.anatomy
        if self.images != "tokens":
            model.visual = (Mean if self.images == "mean" else Queries)(build, self.length)
        opened = nn.ModuleDict()
        for name in self.stacks:
            stack, site = anatomy.stacks[name], f"{name}.self_attn"
            layers = opened[name] = nn.ModuleDict()
            for i in topmost(stack.layers, self.layers):
                layer = stack.name_of(i)
                key, value = (model.at(anatomy.sites[f"{site}.{of}"].writer, layer) for of in ("key", "value"))
                prompts = Prompts(self, stack.width_of(i), stack.heads, build.context)
                prompts.project = key, value
                layers[str(i)] = prompts
                edit_attention(model, model.at(anatomy.sites[site].writer, layer), prompts.edit)
        return opened


class Prompts(nn.Module):
    """One layer's P and g. project: W_k and W_v, which are the backbone's: in a tuple, no part of this."""

    project: tuple[nn.Module, nn.Module]

    def __init__(self, spec: GatedPrompts, d: int, heads: int, context: Context):
        super().__init__()
        self.context, self.tanh, self.sees = context, spec.tanh, spec.images != "tokens"
        self.prompt = nn.Parameter(torch.empty(spec.length, d).normal_())
        self.gate = nn.Parameter(torch.zeros(heads))
        self.factor = nn.Parameter(torch.ones(1)) if spec.factor else None

    def edit(self, call: Call, *, attend: Attend) -> Tensor:
        query, states = call.query, self.prompt[None]
        if self.sees and self.context.beside is not None:
            states = states + self.context.beside
        key, value = (self._heads(linear, states, call) for linear in self.project)
        if (norm := getattr(call.module, "k_norm", None)) is not None:
            key = norm(key)
        scaling = call.settings.get("scaling") or query.shape[-1] ** -0.5
        weights = (scaling * query @ key.mT).softmax(dim=-1).to(value.dtype)
        gate = self.gate.tanh() if self.tanh else self.gate
        gate = gate if self.factor is None else self.factor * gate
        return attend(call) + (gate[:, None, None].to(value.dtype) * (weights @ value)).transpose(1, 2)

    @staticmethod
    def _heads(linear: nn.Module, prompts: Tensor, call: Call) -> Tensor:
        """prompts (1 or B, K, d) → keys or values (1 or B, heads, K, width), without hooks of the projection."""
        states = type(linear).forward(linear, prompts).to(call.query.dtype)
        heads, fewer, width = call.query.shape[1], call.key.shape[1], call.query.shape[-1]
        return states.unflatten(-1, (fewer, width)).transpose(1, 2).repeat_interleave(heads // fewer, dim=1)


class Mean(Beside):
    """I = W f̄ + b, (B, 1, d), f̄ the mean of the features of the images that are there; 0 where none is."""

    def __init__(self, build: Builder, length: int):
        super().__init__(build)
        self.project = build.linear(self.visual.width, self.d)

    def memory(self, features):
        rows = features.flatten(1, 2)
        there = self.there(rows)
        mean = (there * rows).sum(dim=1, keepdim=True) / there.sum(dim=1, keepdim=True).clamp(min=1)
        return there.amax(dim=1, keepdim=True) * self.project(mean)


class Queries(Beside):
    """I = LN(W_o z + b_o), (B, length, d), z the first rows of pre-norm blocks over [queries; LN(W f + b)].

    Eight blocks of sixteen heads and a feed-forward of four times their width, 768 at d = 4096. An image that is not
    there is not read, and I is 0 where none is.
    """

    BLOCKS, HEADS = 8, 16

    def __init__(self, build: Builder, length: int):
        super().__init__(build)
        width = self.HEADS * max(1, round(self.d * 768 / 4096 / self.HEADS))
        self.queries = nn.Parameter(torch.empty(length, width).normal_())
        self.project, self.norm = build.linear(self.visual.width, width), nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, self.HEADS, 4 * width, 0.0, F.gelu, batch_first=True, norm_first=True
            )
            for _ in range(self.BLOCKS)
        )  # fmt: skip
        self.out, self.out_norm = build.linear(width, self.d), nn.LayerNorm(self.d)

    def memory(self, features):
        features, length = features.flatten(1, 2), len(self.queries)
        there, rows = self.there(features), self.norm(self.project(features))
        hidden = F.pad(there[..., 0] == 0, (length, 0), value=False)
        states = torch.cat([self.queries.to(rows.dtype).expand(len(rows), -1, -1), rows], dim=1)
        for block in self.blocks:
            states = block(states, src_key_padding_mask=hidden)
        return there.amax(dim=1, keepdim=True) * self.out_norm(self.out(states[:, :length]))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LLaMAAdapter(Method):
    """o ← o + tanh(γ) ⊙ softmax(q k_Pᵀ / √c) v_P in the self-attentions of the topmost layers, before W_o.

    Two softmaxes, where prefix tuning has one. k_P = W_k P, v_P = W_v P by the frozen projections, with their biases
    and without rotary positions; γ by head, 0 at the start. LLaMA as the authors' code; BART and T5, in encoder and
    decoder, are our own transfer (T5: no divisor, no position bias of prompts). Cross-attention is left alone.

    length: K = 10 prompts a layer, ~ N(0, 1). layers: so many of the topmost of each stack; by default all but the
    lowest 1/16, 30 of 32 (V2: 31). images: "tokens", the visual tokens stay in the sequence, the language form; else
    they do not, and I is added to every prompt: "mean", a linear layer of the mean feature, in the place of V1's
    network on CLIP's global features, which is not released; "queries", V2's, eight blocks over ten learned queries.
    gate: see the difference. lora: rank of V2's updates of every linear layer of the stacks, which do not reach
    the prompts; 0: none. bias: V2's new biases of query, out and the feed-forwards. new_gate: a further factor, 1
    at the start. V2 is `{images: queries, layers: 31, lora: 16, bias: true, new_gate: true}`. A single prompt has no
    softmax there, which is one. Where a family norms its keys, it norms the prompts' too.
    """

    name: ClassVar = "llama-adapter"
    source: ClassVar = "LLaMA-Adapter (Zhang et al., ICLR 2024), V2 (Gao et al., 2023); METHODS_A 5"
    reference: ClassVar = "OpenGVLab/LLaMA-Adapter 521a09da (GPL-3): from its mathematics alone"
    year: ClassVar = 2023
    size: ClassVar = "length"
    learning_rates: ClassVar = {"mini-bart": 2e-3, "mini-t5": 5e-3, "mini-llama": 2e-3}
    differences: ClassVar = (
        Difference(
            "llama-adapter-gate", "gate", "tanh", "itself", {},
            "The paper's gate is a factor g; the training code has tanh(g), and the repository's inference code g "
            "again, on weights that were trained with tanh.",
            "METHODS_A 5.1; followups/parity/llama_adapter_v1_attention",
        ),
    )  # fmt: skip

    length: Size = 10
    layers: Size | None = None
    images: Images = "tokens"
    gate: Literal["tanh", "itself"] = "tanh"
    lora: int = Field(default=0, ge=0, le=1_000_000)
    bias: bool = False
    new_gate: bool = False

    @property
    def identity_at_start(self):  # pyright: ignore[reportIncompatibleVariableOverride]  options decide
        return self.images == "tokens"

    def skip(self, anatomy):
        if self.images != "tokens" and "features" not in anatomy.offers:
            return "the backbone has no visual tokens that are made of stored features"
        if not stacks_of(anatomy):
            return "the backbone has no self-attention whose keys a projection makes"
        return no_words(anatomy)

    def design(self, anatomy):
        stacks = stacks_of(anatomy)
        prompts = GatedPrompts(
            length=self.length, layers=self.layers, stacks=stacks, images=self.images, tanh=self.gate == "tanh",
            factor=self.new_gate,
        )  # fmt: skip
        ffn = [f"{stack}.ffn.{name}" for stack in stacks for name in ("gate", "in", "out")]
        ffn = [site for site in ffn if site in anatomy.sites]
        inserts = []
        if self.lora:
            sites = [f"{stack}.self_attn.{name}" for stack in stacks for name in ("query", "key", "value", "out")]
            inserts.append(Insert((*sites, *ffn), LowRank(self.lora, float(self.lora)), reads="input"))
        if self.bias:
            sites = [f"{stack}.self_attn.{name}" for stack in stacks for name in ("query", "out")]
            inserts.append(Insert((*sites, *ffn), Offset(), reads="input"))
        return Design(tuple(inserts), doors=(prompts,))


def stacks_of(anatomy: Any) -> tuple[str, ...]:
    """Those that words pass through and whose self-attentions have a projection of keys."""
    return tuple(stack for stack in anatomy.words if f"{stack}.self_attn.key" in anatomy.sites)
