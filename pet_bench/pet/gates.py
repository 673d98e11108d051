"""Gates: the granularities of VL-PET (Hu et al., ICCV 2023, section 3.2; METHODS.md 3.3), and a few besides.

Each reads the sub-layer's input X, the module's output Y = H + ΔH and ΔH, all (B, T, d), and gives a G that
broadcasts over Y. `zero_init` sets the last linear layer (or the vector) to 0, as the published T5 runs do.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from pet_bench.errors import UserError
from pet_bench.pet.build import Place
from pet_bench.pet.deltas import TwoLayer
from pet_bench.pet.parts import Gate
from pet_bench.spec import STRICT, Size


@dataclass(frozen=True, config=STRICT)
class LargeGate(Gate):
    """One value per token and dimension, (B, T, d): G = σ(W_2 gelu_new(W_1 X + b_1) + b_2), or σ(W X + b).

    width: r_g; None is the full matrix W (d, d).
    """

    kind: ClassVar = "large"
    width: Size | None
    zero_init: bool = False

    @property
    def formula(self) -> str:
        if self.width is None:
            return "σ(W X + b) ∈ (B, T, d)"
        return f"σ(W_2 gelu_new(W_1 X + b_1) + b_2) ∈ (B, T, d) (r = {self.width})"

    def build(self, place):
        return Large(self, place)


class Large(nn.Module):
    def __init__(self, spec: LargeGate, place: Place):
        super().__init__()
        self.project: nn.Module
        if spec.width is None:
            self.project = place.linear(place.d_x, place.d_h, zero=spec.zero_init)
        else:
            self.project = TwoLayer.dense(place, place.d_x, spec.width, place.d_h, zero_init=spec.zero_init)

    def forward(self, x: Tensor, y: Tensor, delta: Tensor) -> Tensor:
        return torch.sigmoid(self.project(x))


@dataclass(frozen=True, config=STRICT)
class MiddleXGate(Gate):
    """One value per token: G = σ(w (X + Y) + b), (B, T, 1)."""

    kind: ClassVar = "middle-x"
    zero_init: bool = False

    @property
    def formula(self) -> str:
        return "σ(w (X + Y) + b) ∈ (B, T, 1)"

    def build(self, place):
        if place.d_x != place.d_h:
            raise UserError(f"{place.site}: the gate reads X + Y, of widths {place.d_x} and {place.d_h}")
        return MiddleX(self, place)


class MiddleX(nn.Module):
    def __init__(self, spec: MiddleXGate, place: Place):
        super().__init__()
        self.project = place.linear(place.d_h, 1, zero=spec.zero_init)

    def forward(self, x: Tensor, y: Tensor, delta: Tensor) -> Tensor:
        return torch.sigmoid(self.project(x + y))


@dataclass(frozen=True, config=STRICT)
class VectorGate(Gate):
    """One value per dimension, (d,), that reads nothing: G = offset + g, or σ(g).

    offset 0 is IA³ (Liu et al., NeurIPS 2022), offset 1 VL-PET's middle Y as published. init: how g starts; "default"
    is N(0, 0.02²). sigmoid: G = σ(g), what the paper's equation for middle Y has.
    """

    kind: ClassVar = "vector"
    offset: float = 0.0
    init: Literal["default", "zero", "one"] = "default"
    sigmoid: bool = False

    @property
    def formula(self) -> str:
        return f"{'σ(g)' if self.sigmoid else f'{self.offset:g} + g' if self.offset else 'g'} ∈ (d,)"

    def build(self, place):
        return Vector(self, place)


class Vector(nn.Module):
    def __init__(self, spec: VectorGate, place: Place):
        super().__init__()
        self.spec = spec
        self.g = nn.Parameter(torch.full((place.d_h,), float(spec.init == "one")))
        if spec.init == "default":
            nn.init.normal_(self.g, std=0.02)

    def vector(self) -> Tensor:
        return torch.sigmoid(self.g) if self.spec.sigmoid else self.spec.offset + self.g

    def forward(self, x: Tensor, y: Tensor, delta: Tensor) -> Tensor:
        return self.vector()


@dataclass(frozen=True, config=STRICT)
class SmallGate(Gate):
    """One value per example: G = mean_T σ(w [X; Y] + b), (B, 1, 1).

    padding: whether padded positions count in the mean. As published they do, so that an example's gate depends on how
    far its batch was padded; "masked" leaves them out. Only the mask of the stack that reads is known: elsewhere all
    count. A stack that reads and writes, as of a decoder-only model, has no place for it: the mean would hold words yet
    to come.
    """

    kind: ClassVar = "small"
    zero_init: bool = False
    padding: Literal["counted", "masked"] = "counted"

    @property
    def formula(self) -> str:
        return f"mean_T σ(w [X; Y] + b) ∈ (B, 1, 1), padding {self.padding}"

    def build(self, place):
        if place.stack == place.anatomy.reading == place.anatomy.writing:
            raise UserError(f"{place.site}: a gate that averages over positions would read words yet to come")
        return Small(self, place)


class Small(nn.Module):
    def __init__(self, spec: SmallGate, place: Place):
        super().__init__()
        if place.anatomy.stacks[place.stack].flat:
            raise UserError(f"{place.site}: the gate is a mean of each example, and states there have no such axis")
        self.project = place.linear(place.d_x + place.d_h, 1, zero=spec.zero_init)
        self.context = place.context if spec.padding == "masked" and place.stack == place.anatomy.reading else None

    def forward(self, x: Tensor, y: Tensor, delta: Tensor) -> Tensor:
        gates = torch.sigmoid(self.project(torch.cat([x, y], dim=-1)))  # (B, T, 1)
        if self.context is None:
            return gates.mean(dim=1, keepdim=True)
        assert self.context.mask is not None  # the stack that reads has one
        mask = self.context.mask[..., None]
        return (gates * mask).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True)


@dataclass(frozen=True, config=STRICT)
class DeltaGate(Gate):
    """The module gates itself: G = σ(ΔH), (B, T, d)."""

    kind: ClassVar = "delta"
    reads_delta: ClassVar = True

    @property
    def formula(self) -> str:
        return "σ(ΔH) ∈ (B, T, d)"

    def build(self, place):
        return SigmoidOfDelta()


class SigmoidOfDelta(nn.Module):
    def forward(self, x: Tensor, y: Tensor, delta: Tensor) -> Tensor:
        return torch.sigmoid(delta)
