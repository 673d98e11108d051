"""ΔH modules. Every bottleneck's activation is gelu_new(x) = 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pet_bench.pet.design import Delta, Place


def gelu_new(x: Tensor) -> Tensor:
    """The tanh approximation of gelu, the activation of every PET bottleneck and low-rank gate."""
    return F.gelu(x, approximate="tanh")


class TwoLayer(nn.Module):
    """W_u gelu_new(W_d x + b_d) + b_u, W_d (width, d_in), W_u (d_out, width): (…, d_in) → (…, d_out)."""

    def __init__(self, place: Place, d_in: int, width: int, d_out: int, *, zero_init: bool = False):
        super().__init__()
        self.down = place.linear(d_in, width)
        self.up = place.linear(width, d_out, zero=zero_init)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(gelu_new(self.down(x)))


@dataclass(frozen=True)
class Bottleneck(Delta):
    """An adapter: f(x) = W_u gelu_new(W_d x + b_d) + b_u (Houlsby et al. 2019; METHODS.md 3.1).

    width: r. zero_init: W_u and b_u start at 0, so that f does.
    """

    width: int
    zero_init: bool = False

    @property
    def formula(self) -> str:
        return f"W_u gelu_new(W_d {{x}} + b_d) + b_u (r = {self.width})"

    def build(self, place, d_in):
        return TwoLayer(place, d_in, self.width, place.d_h, zero_init=self.zero_init)


@dataclass(frozen=True)
class LowRank(Delta):
    """LoRA's update of a projection: f(x) = (alpha/r) B A dropout(x), A (r, d_in), B (d_out, r) (Hu et al. 2022).

    A ~ U(-1/√d_in, 1/√d_in), B = 0. dropout acts on the branch's input, in training only.
    """

    rank: int
    alpha: float
    dropout: float = 0.0

    @property
    def formula(self) -> str:
        return f"({self.alpha:g}/{self.rank}) B A dropout({{x}}, {self.dropout:g})"

    def build(self, place, d_in):
        return LowRankModule(self, d_in, place.d_h)


class LowRankModule(nn.Module):
    def __init__(self, spec: LowRank, d_in: int, d_out: int):
        super().__init__()
        self.spec = spec
        self.A = nn.Parameter(torch.empty(spec.rank, d_in))
        self.B = nn.Parameter(torch.zeros(d_out, spec.rank))
        nn.init.uniform_(self.A, -1 / math.sqrt(d_in), 1 / math.sqrt(d_in))

    def forward(self, x: Tensor) -> Tensor:
        """x (…, d_in) → (…, d_out)."""
        x = F.dropout(x, self.spec.dropout, self.training)
        return F.linear(F.linear(x, self.A), self.B) * (self.spec.alpha / self.spec.rank)
