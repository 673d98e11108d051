"""Granularity gates of VL-PET (Hu et al., ICCV 2023, section 3.2; METHODS.md 3.3).

Each reads the sub-layer's input X and the module's output Y = H + ΔH, both (B, T, d), and gives a G that multiplies Y.
`zero_init` sets the last linear layer (or the vector) to 0, as the published T5 runs do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pet_bench.pet.deltas import TwoLayer
from pet_bench.pet.design import Gate, Place


@dataclass(frozen=True)
class LargeGate(Gate):
    """G = σ(W_2 gelu_new(W_1 X + b_1) + b_2), one value per token and dimension: (B, T, d). width: r_g."""

    width: int
    zero_init: bool = False

    @property
    def formula(self) -> str:
        return f"σ(W_2 gelu_new(W_1 X + b_1) + b_2) ∈ (B, T, d) (r = {self.width})"

    def build(self, place):
        return Large(self, place)


class Large(nn.Module):
    def __init__(self, spec: LargeGate, place: Place):
        super().__init__()
        self.project = TwoLayer(place, place.d_x, spec.width, place.d_h, zero_init=spec.zero_init)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.sigmoid(self.project(x))


@dataclass(frozen=True)
class MiddleXGate(Gate):
    """G = σ(w (X + Y) + b), one value per token: (B, T, 1)."""

    zero_init: bool = False
    formula = "σ(w (X + Y) + b) ∈ (B, T, 1)"

    def build(self, place):
        return MiddleX(self, place)


class MiddleX(nn.Module):
    def __init__(self, spec: MiddleXGate, place: Place):
        super().__init__()
        self.project = place.linear(place.d_h, 1, zero=spec.zero_init)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.sigmoid(self.project(x + h))


@dataclass(frozen=True)
class MiddleYGate(Gate):
    """G = 1 + g, one value per dimension, no input and no sigmoid: (d,)."""

    zero_init: bool = False
    formula = "1 + g ∈ (d,)"

    def build(self, place):
        return MiddleY(self, place)


class MiddleY(nn.Module):
    def __init__(self, spec: MiddleYGate, place: Place):
        super().__init__()
        self.g = place.vector(place.d_h, zero=spec.zero_init)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return 1 + self.g


@dataclass(frozen=True)
class SmallGate(Gate):
    """G = mean over all T positions of σ(w [X; Y] + b), one value per example: (B, 1, 1).

    As published, padded positions count in the mean: an example's gate depends on how far its batch was padded.
    """

    zero_init: bool = False
    formula = "mean_T σ(w [X; Y] + b) ∈ (B, 1, 1)"

    def build(self, place):
        return Small(self, place)


class Small(nn.Module):
    def __init__(self, spec: SmallGate, place: Place):
        super().__init__()
        self.project = place.linear(place.d_x + place.d_h, 1, zero=spec.zero_init)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.sigmoid(self.project(torch.cat([x, h], dim=-1))).mean(dim=1, keepdim=True)
