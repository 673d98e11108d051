"""ΔH modules. Every bottleneck's activation is gelu_new(x) = 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))), by default."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from pet_bench.errors import UserError
from pet_bench.identity import Since
from pet_bench.pet.build import Builder, Place
from pet_bench.pet.linears import FactorLinear, GroupedLinear, PHMLinear, PHMRule, uniform
from pet_bench.pet.parts import Delta
from pet_bench.spec import STRICT, Size


def gelu_new(x: Tensor) -> Tensor:
    """The tanh approximation of gelu, the activation of every PET bottleneck and low-rank gate."""
    return F.gelu(x, approximate="tanh")


ACTIVATION: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_new": gelu_new,
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
    "identity": lambda x: x,
}


class TwoLayer(nn.Module):
    """W_u act(W_d x + b_d) + b_u: (…, d_in) → (…, d_out)."""

    def __init__(self, down: nn.Module, up: nn.Module, activation: str = "gelu_new"):
        super().__init__()
        self.down, self.up, self.activation = down, up, activation

    @classmethod
    def dense(cls, build: Builder, d_in: int, width: int, d_out: int, *, zero_init: bool = False) -> TwoLayer:
        """W_d (width, d_in), W_u (d_out, width); zero_init: W_u and b_u start at 0."""
        return cls(build.linear(d_in, width), build.linear(width, d_out, zero=zero_init))

    def forward(self, x: Tensor) -> Tensor:
        return self.up(ACTIVATION[self.activation](self.down(x)))


@dataclass(frozen=True, config=STRICT)
class Bottleneck(Delta):
    """An adapter: f(x) = W_u gelu_new(W_d x + b_d) + b_u (Houlsby et al. 2019; METHODS.md 3.1).

    width: r. zero_init: W_u and b_u start at 0, so that f does. per_task: which of the two layers every task has for
    itself ("down" or "up": half-shared). heads: VL-PET's multi-head layouts. In "down", "up" and "down-up" every head
    reads the whole of its input, so that the heads side by side are this very module, in function, count and
    initialisation, and only "pair", heads independent bottlenecks d → r/h → d/h, is another one (METHODS.md 3.2).
    norm_before, norm_after: a layer norm of x, of f(x). bias: whether there are b_d and b_u.
    """

    kind: ClassVar = "bottleneck"
    width: Size
    zero_init: bool = False
    per_task: Literal["none", "both", "down", "up"] = "none"
    heads: Size = 1
    layout: Literal["down", "up", "down-up", "pair"] = "down"
    activation: Literal["gelu_new", "gelu", "relu"] = "gelu_new"
    norm_before: bool = False
    norm_after: bool = False
    bias: Annotated[bool, Since(2, neutral=True)] = True

    @property
    def formula(self) -> str:
        own = {"none": "", "both": ", one per task", "down": ", W_d per task", "up": ", W_u per task"}[self.per_task]
        heads = f", {self.heads} independent pairs" if self.heads > 1 and self.layout == "pair" else ""
        x = "LN({x})" if self.norm_before else "{x}"
        b_d, b_u = (" + b_d", " + b_u") if self.bias else ("", "")
        f = f"W_u {self.activation}(W_d {x}{b_d}){b_u}"
        return f"{f'LN({f})' if self.norm_after else f} (r = {self.width}{heads}{own})"

    def build(self, place, d_in):
        for size, what in ((self.width, "bottleneck"), (place.d_h, "site's width")):
            if size % self.heads:
                raise UserError(f"{place.site}: the {what} {size} does not divide into {self.heads} heads")

        def up():
            if self.heads > 1 and self.layout == "pair":
                return GroupedLinear(place, self.width, place.d_h, self.heads, zero=self.zero_init)
            return place.linear(self.width, place.d_h, zero=self.zero_init)

        def down():
            return place.linear(d_in, self.width)

        module = _two_layer(place, self.per_task, down, up, self.activation)
        for layer in module.modules():
            if isinstance(layer, nn.Linear) and not self.bias:
                layer.register_parameter("bias", None)
        return _norms(self, d_in, place.d_h, module)


def _two_layer(place: Place, per_task: str, down: Callable, up: Callable, activation: str = "gelu_new") -> TwoLayer:
    """Layers made by `down` and `up`, one for each task where `per_task` says so."""
    return TwoLayer(
        place.by_task(down) if per_task in ("both", "down") else down(),
        place.by_task(up) if per_task in ("both", "up") else up(),
        activation,
    )


def _norms(spec: Bottleneck, d_in: int, d_out: int, module: nn.Module) -> nn.Module:
    before = [nn.LayerNorm(d_in)] if spec.norm_before else []
    after = [nn.LayerNorm(d_out)] if spec.norm_after else []
    return nn.Sequential(*before, module, *after) if before or after else module


@dataclass(frozen=True, config=STRICT)
class PHMBottleneck(Delta):
    """Compacter's adapter: both layers of `Bottleneck` are `PHMLinear` (METHODS.md 3.5).

    width: r. n: hypercomplex division. rank: of each factorised W_i; None: not factorised. shared_rule: one A for all
    adapters. per_task as in `Bottleneck`.
    """

    kind: ClassVar = "phm"
    width: Size
    n: Size = 2
    rank: Size | None = None
    shared_rule: bool = False
    init_range: float = Field(default=0.01, gt=0)
    per_task: Literal["none", "both", "down", "up"] = "none"

    @property
    def formula(self) -> str:
        factors = f", W_i of rank {self.rank}" if self.rank else ""
        return f"PHM(gelu_new(PHM({{x}}))), PHM(x) = x Σ_i A_i ⊗ W_i + b (r = {self.width}, n = {self.n}{factors})"

    def build(self, place, d_in):
        check_division(place, self.n, d_in, self.width, place.d_h)
        rule = place.shared("phm_rule", lambda: PHMRule(self.n, self.init_range)) if self.shared_rule else None

        def layer(a, b):
            return lambda: PHMLinear(a, b, self.n, init=self.init_range, rank=self.rank, rule=rule)

        return _two_layer(place, self.per_task, layer(d_in, self.width), layer(self.width, place.d_h))


def check_division(place: Place, n: int, *sizes: int) -> None:
    """Raises UserError where a size does not divide into n blocks."""
    for size in sizes:
        if size % n:
            raise UserError(f"{place.site}: {size} does not divide by the hypercomplex division n = {n}")


@dataclass(frozen=True, config=STRICT)
class FactorBottleneck(Delta):
    """The low-rank adapter: both layers of `Bottleneck` are `FactorLinear` of that rank."""

    kind: ClassVar = "factor"
    width: Size
    rank: Size = 1

    @property
    def formula(self) -> str:
        return f"L(gelu_new(L({{x}}))), L(x) = x U V + b (r = {self.width}, rank {self.rank})"

    def build(self, place, d_in):
        return TwoLayer(FactorLinear(d_in, self.width, self.rank), FactorLinear(self.width, place.d_h, self.rank))


@dataclass(frozen=True, config=STRICT)
class Identity(Delta):
    """f(x) = x: adds the sub-layer's input once more, where the widths agree."""

    kind: ClassVar = "identity"

    @property
    def formula(self) -> str:
        return "{x}"

    def build(self, place, d_in):
        if d_in != place.d_h:
            raise UserError(f"{place.site}: an identity from width {d_in} to {place.d_h}")
        return nn.Identity()


@dataclass(frozen=True, config=STRICT)
class Offset(Delta):
    """f(x) = β, a vector (d_h,). start: N(0, 0.02²), as SSF's, or 0."""

    kind: ClassVar = "offset"
    start: Literal["normal", "zero"] = "zero"

    @property
    def formula(self) -> str:
        return "β ∈ (d,)"

    def build(self, place, d_in):
        return OffsetModule(self, place.d_h)


class OffsetModule(nn.Module):
    def __init__(self, spec: Offset, width: int):
        super().__init__()
        self.beta = nn.Parameter(torch.zeros(width))
        if spec.start == "normal":
            nn.init.normal_(self.beta, std=0.02)

    def bias(self) -> Tensor:
        return self.beta

    def forward(self, x: Tensor) -> Tensor:
        return self.beta.expand(*x.shape[:-1], -1)


@dataclass(frozen=True, config=STRICT)
class LowRank(Delta):
    """LoRA's update of a projection: f(x) = (alpha/r) B A dropout(x), A (r, d_in), B (d_out, r) (Hu et al. 2022).

    A ~ U(-1/√d_in, 1/√d_in), B = 0. dropout acts on the branch's input, in training only. per_task: every task has an
    A and a B of its own.
    """

    kind: ClassVar = "low-rank"
    rank: Size
    alpha: float = Field(gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    per_task: bool = False

    @property
    def formula(self) -> str:
        own = ", A and B per task" if self.per_task else ""
        return f"({self.alpha:g}/{self.rank}) B A dropout({{x}}, {self.dropout:g}){own}"

    def build(self, place, d_in):
        def make():
            return LowRankModule(self, d_in, place.d_h)

        return place.by_task(make) if self.per_task else make()


class LowRankModule(nn.Module):
    def __init__(self, spec: LowRank | WeightDecomposed, d_in: int, d_out: int):
        super().__init__()
        self.spec = spec
        self.A = nn.Parameter(uniform(torch.empty(spec.rank, d_in), d_in))
        self.B = nn.Parameter(torch.zeros(d_out, spec.rank))

    def weight(self) -> Tensor:
        """(alpha/r) B A, (d_out, d_in)."""
        return (self.B @ self.A) * (self.spec.alpha / self.spec.rank)

    def forward(self, x: Tensor) -> Tensor:
        """x (…, d_in) → (…, d_out)."""
        x = F.dropout(x, self.spec.dropout, self.training)
        return F.linear(F.linear(x, self.A), self.B) * (self.spec.alpha / self.spec.rank)


@dataclass(frozen=True, config=STRICT)
class WeightDecomposed(Delta):
    """DoRA's update of a projection W (d_out, d_in), bias left alone (Liu et al., ICML 2024, section 4):

        y = g ⊙ (W + V) x + b,  V = (alpha/r) B A,  g = m / ‖W + V‖, m and the norm per row of W

    as f(x) = (g - 1) ⊙ W x + g ⊙ V x. m (d_out,) starts at ‖W‖, A and B as in `LowRank`, so that f starts at 0.
    norm: in the backward pass the norm is a "constant" (section 4.3, and peft) or "differentiated" through (the
    authors' vision-language runs). dropout acts on x in both terms, in training.
    """

    kind: ClassVar = "weight-decomposed"
    rank: Size
    alpha: float = Field(gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    norm: Annotated[Literal["differentiated", "constant"], Since(2, neutral="constant")] = "constant"

    @property
    def formula(self) -> str:
        norm = "‖W + V‖" if self.norm == "differentiated" else "sg(‖W + V‖)"
        return f"(g - 1) ⊙ W {{x}} + g ⊙ V {{x}}, V = ({self.alpha:g}/{self.rank}) B A, g = m / {norm}"

    @property
    def reads_weights(self) -> bool:
        return True

    def build(self, place, d_in):
        if not isinstance(place.writer, nn.Linear) or place.writer.in_features != d_in:
            raise UserError(
                f'site "{place.site}" has no weight to decompose that reads a width of {d_in} '
                '(possible: a projection, with reads = "input")'
            )
        return WeightDecomposedModule(self, place, place.writer, d_in)


class WeightDecomposedModule(LowRankModule):
    def __init__(self, spec: WeightDecomposed, place: Place, linear: nn.Linear, d_in: int):
        super().__init__(spec, d_in, place.d_h)
        self.linear = (linear,)  # in a tuple: its weight is the backbone's, not this module's
        self.part = place.part or (0, 1)
        self.constant = spec.norm == "constant"
        self.m = nn.Parameter(self._stock().detach().norm(dim=1))

    def _stock(self) -> Tensor:
        """W, of a fused layer the rows of its part."""
        k, n = self.part
        return self.linear[0].weight.chunk(n)[k]

    def _factors(self) -> tuple[Tensor, Tensor]:
        weight = self._stock()
        norm = (weight + self.weight_update()).norm(dim=1)
        return weight, self.m / (norm.detach() if self.constant else norm)

    def weight_update(self) -> Tensor:
        return super().weight()

    def weight(self) -> Tensor:
        weight, g = self._factors()
        return g[:, None] * (weight + self.weight_update()) - weight

    def forward(self, x: Tensor) -> Tensor:
        weight, g = self._factors()
        x = F.dropout(x, self.spec.dropout, self.training)
        update = F.linear(F.linear(x, self.A), self.B) * (self.spec.alpha / self.spec.rank)
        return (g - 1) * F.linear(x, weight) + g * update
