"""Routing functions: what two down-projections, of hidden states and of a summary of the image, make of each other.

t = A x (B, T, r) and u = A v (B, V, r), with the same A; R(t, u) takes the place of t. No function adds a parameter.

Source: Introducing Routing Functions to Vision-Language Parameter-Efficient Fine-Tuning (Qu et al., ECCV 2024),
section 3; tingyu215/Routing_VLPEFT (no licence, from its mathematics alone); METHODS_B section 1. Deliberate
difference: where the code reshapes and a transpose is meant ("linear" of several visual tokens, "xt"), it is
transposed; for one token "linear" is the same.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from pet_bench.backbone.anatomy import Anatomy
from pet_bench.errors import UserError
from pet_bench.pet.build import Place
from pet_bench.pet.deltas import ACTIVATION
from pet_bench.pet.linears import uniform
from pet_bench.pet.parts import Delta
from pet_bench.spec import STRICT, Size

Routing = Literal["mul", "add", "expand", "linear", "linear-relu", "xt", "ones", "ones-relu", "none"]
Summary = Literal["visual", "encoder"]
FORMULA: dict[Routing, str] = {
    "mul": "t ⊙ u", "add": "t + u", "expand": "(Σ_j t_j) u", "linear": "t uᵀ u", "linear-relu": "relu(t) relu(u)ᵀ u",
    "xt": "t tᵀ u", "ones": "t uᵀ 1", "ones-relu": "relu(t) relu(u)ᵀ 1", "none": "t",
}  # fmt: skip


def route(how: Routing, t: Tensor, u: Tensor, mask: Tensor | None = None) -> Tensor:
    """R(t, u) of t (B, T, r) and u (B, V, r) → (B, T, r), by the formulas of `FORMULA`.

    Of "mul", "add", "expand" and "xt" V is 1 (of the first two also T), as the vector stands at every position. "xt"
    sums over the positions of t, of which mask (B, T) says which are there.
    """
    if how == "none":
        return t
    if how == "mul":
        return t * u
    if how == "add":
        return t + u
    if how == "expand":
        return t.sum(-1, keepdim=True) * u
    if how == "xt":
        there = t if mask is None else t * mask[..., None]
        return t @ (there.transpose(1, 2) @ u.expand_as(t))
    rectified = how.endswith("relu")
    scores = (F.relu(t) @ F.relu(u).transpose(1, 2)) if rectified else t @ u.transpose(1, 2)
    return scores @ u if how.startswith("linear") else scores.sum(-1, keepdim=True).expand_as(t)


class Routed(nn.Module):
    """A module that is told what its hidden states are routed by."""

    def __init__(self, routing: Routing, summary: Summary, place: Place, d_in: int):
        super().__init__()
        self.routing: Routing = routing
        self.context = place.context
        self.own = summary == "encoder" and place.stack == "encoder"  # the states that it reads itself
        self.encoded = summary == "encoder" and not self.own
        width = place.anatomy.stacks[place.anatomy.reading].width
        if d_in != width:
            raise UserError(f"{place.site}: reads a width of {d_in}, and the visual tokens have {width}")
        if routing == "xt" and place.stack != "encoder":
            raise UserError(f'{place.site}: the routing "xt" reads every position, which only an encoder may')

    def by(self, x: Tensor) -> Tensor:
        """v (B, 1, d) for x (B, T, d)."""
        if self.own or self.encoded:
            states, mask = (x, self.mask(x)) if self.own else (self.context.encoded, self.context.mask)
            if states is None or mask is None:
                raise UserError("there are no encoder's states to summarise: the model has not read any")
            there = mask[..., None].to(states.dtype)
            return (states * there).sum(1, keepdim=True) / there.sum(1, keepdim=True).clamp(min=1)
        return self.context.summary[:, None].to(x.dtype)

    def mask(self, x: Tensor) -> Tensor:
        """(B, T), which positions are there."""
        mask = self.context.mask
        return x.new_ones(x.shape[:2], dtype=torch.bool) if mask is None else mask

    def route(self, t: Tensor, u: Tensor) -> Tensor:
        return route(self.routing, t, u, self.mask(t) if self.routing == "xt" else None)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RoutedLowRank(Delta):
    """LoRA's update, routed: f(x) = (alpha/r) B R(A dropout(x), A dropout(v)), A (r, d) ~ U(-1/√d, 1/√d), B = 0.

    summary: v, the mean of the visual tokens, or of the "encoder"'s states (in the encoder of x itself, where there is
    no padding). coupled: query and value of a self-attention are routed as one 2r-wide vector, as in the authors' GPT
    code: "mul" and "add" are the same, "linear" takes the inner product, "expand" the sum, over both. after: R acts
    behind "A", or behind "B", on B A x and B A v, which the authors found not to work. down: A is one for x and v
    ("shared"), or each has its own of width r/4, widened again before R ("split") or behind it ("merge"; "merge-norm":
    W LN(R + t)).
    """

    kind: ClassVar = "routed-low-rank"
    rank: Size
    alpha: float = Field(gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    routing: Routing = "linear"
    summary: Summary = "visual"
    coupled: bool = False
    after: Literal["A", "B"] = "A"
    down: Literal["shared", "split", "merge", "merge-norm"] = "shared"

    @property
    def formula(self) -> str:
        t, u = ("B A {x}", "B A v") if self.after == "B" else ("A {x}", "A v")
        routed = f"R({t}, {u})" if self.after == "B" else f"B R({t}, {u})"
        both = ", query and value as one" if self.coupled else ""
        down = "" if self.down == "shared" else f", A {self.down}"
        by = "image" if self.summary == "visual" else "encoder"
        where = f"R(t, u) = {FORMULA[self.routing]}, v the {by}'s mean{both}{down}"
        return f"({self.alpha:g}/{self.rank}) {routed}, {where}"

    def build(self, place, d_in):
        attention, _, name = place.site.rpartition(".")
        if not (self.coupled and attention.endswith("self_attn") and name in PAIR):
            return RoutedLowRankModule(self, place, d_in)
        key = f"{attention.replace('.', '_')}_{place.layer}_routed"
        return Half(place.shared(key, lambda: RoutedLowRankModule(self, place, d_in, parts=2)), PAIR.index(name))


PAIR = ("query", "value")


class Downs(nn.Module):
    """What makes t of x and u of v, r-wide behind R, by `RoutedLowRank.down`."""

    def __init__(self, down: str, d_in: int, rank: int):
        super().__init__()
        self.down, narrow = down, rank if down == "shared" else max(1, rank // 4)
        self.A = nn.Parameter(uniform(torch.empty(narrow, d_in), d_in))
        if down != "shared":
            self.A_visual = nn.Parameter(uniform(torch.empty(narrow, d_in), d_in))
            self.widen = nn.Parameter(uniform(torch.empty(rank, narrow), narrow))
        if down == "split":
            self.widen_visual = nn.Parameter(uniform(torch.empty(rank, narrow), narrow))
        self.norm = nn.LayerNorm(narrow) if down == "merge-norm" else None

    def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        t, u = F.linear(x, self.A), F.linear(v, self.A if self.down == "shared" else self.A_visual)
        return (F.linear(t, self.widen), F.linear(u, self.widen_visual)) if self.down == "split" else (t, u)

    def behind(self, routed: Tensor, t: Tensor) -> Tensor:
        if self.down in ("shared", "split"):
            return routed
        return F.linear(routed if self.norm is None else self.norm(routed + t), self.widen)


class RoutedLowRankModule(Routed):
    """parts: projections that are routed as one; A is (parts · r, d), B (parts, d_out, r)."""

    def __init__(self, spec: RoutedLowRank, place: Place, d_in: int, parts: int = 1):
        super().__init__(spec.routing, spec.summary, place, d_in)
        self.spec = spec
        self.downs = Downs(spec.down, d_in, parts * spec.rank)
        self.B = nn.Parameter(torch.zeros(parts, place.d_h, spec.rank))

    def forward(self, x: Tensor, part: int = 0) -> Tensor:
        """x (B, T, d_in) → (B, T, d_out) of one of the parts."""
        spec, parts = self.spec, len(self.B)
        t, u = self.downs(*(F.dropout(states, spec.dropout, self.training) for states in (x, self.by(x))))
        if spec.after == "B":
            update = self.route(self._up(t), self._up(u)).chunk(parts, -1)[part]
        else:
            update = F.linear(self.downs.behind(self.route(t, u), t).chunk(parts, -1)[part], self.B[part])
        return update * (spec.alpha / spec.rank)

    def _up(self, t: Tensor) -> Tensor:
        """B t of every part, side by side."""
        return torch.cat([F.linear(*pair) for pair in zip(t.chunk(len(self.B), -1), self.B, strict=True)], -1)


class Half(nn.Module):
    """One of two projections that are routed as one."""

    def __init__(self, both: RoutedLowRankModule, part: int):
        super().__init__()
        self.both, self.part = (both,), part  # in a tuple: `pet.shared` has it

    def forward(self, x: Tensor) -> Tensor:
        return self.both[0](x, self.part)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RoutedBottleneck(Delta):
    """An adapter, routed: f(h) = W_u act(R(W_d h + b_d, W_d v + b_d)) + b_u, W_d (width, d).

    width: r. activation: the backbone's own in the authors' code. summary: as in `RoutedLowRank`. per_block: all places
    of a layer have one and the same adapter, as in the authors' GPT code.
    """

    kind: ClassVar = "routed-bottleneck"
    width: Size
    routing: Routing = "linear"
    summary: Summary = "visual"
    activation: Literal["gelu_new", "gelu", "relu"] = "gelu_new"
    per_block: bool = False

    @property
    def formula(self) -> str:
        t, u = "W_d {x} + b_d", "W_d v + b_d"
        by, one = "image" if self.summary == "visual" else "encoder", ", one a layer" if self.per_block else ""
        where = f"R(t, u) = {FORMULA[self.routing]}, v the {by}'s mean (r = {self.width}{one})"
        return f"W_u {self.activation}(R({t}, {u})) + b_u, {where}"

    def build(self, place, d_in):
        if not self.per_block:
            return RoutedBottleneckModule(self, place, d_in)
        key = f"{place.stack}_{place.layer}_routed"
        return Same(place.shared(key, lambda: RoutedBottleneckModule(self, place, d_in)))


class RoutedBottleneckModule(Routed):
    def __init__(self, spec: RoutedBottleneck, place: Place, d_in: int):
        super().__init__(spec.routing, spec.summary, place, d_in)
        self.activation = ACTIVATION[spec.activation]
        self.down, self.up = place.linear(d_in, spec.width), place.linear(spec.width, place.d_h)

    def forward(self, h: Tensor) -> Tensor:
        """h (B, T, d) → (B, T, d)."""
        t = self.down(h)
        return self.up(self.activation(t if self.routing == "none" else self.route(t, self.down(self.by(h)))))


class Same(nn.Module):
    """A module that stands at several places."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = (module,)  # in a tuple: `pet.shared` has it

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.module[0](*inputs)


def routed(sites: tuple[str, ...], routing: Routing) -> tuple[str, ...]:
    """Those of the sites where a routing may be: "xt" reads every position, which only an encoder does."""
    return tuple(site for site in sites if routing != "xt" or site.startswith("encoder."))


def unrouted(anatomy: Anatomy, routing: Routing, summary: Summary) -> str | None:
    """Why nothing can be routed on a backbone of that anatomy, in a few words."""
    if "encoder" not in anatomy.adapted and (routing == "xt" or summary == "encoder"):
        return f"the backbone has no encoder, which {'the routing xt' if routing == 'xt' else 'the summary'} reads"
    width = anatomy.stacks[anatomy.reading].width
    odd = [stack for stack in anatomy.adapted if stack == "vision" or anatomy.stacks[stack].width != width]
    if odd[:1] == ["vision"]:
        return "the backbone's tower runs before there are visual tokens to route by"
    return f"the backbone's {odd[0]} is of another width than the visual tokens" if odd else None
