"""Linear layers of PET bottlenecks: hypercomplex, factorised, and in independent groups."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from pet_bench.pet.build import Builder


def uniform(tensor: Tensor, fan: int) -> Tensor:
    """U(-1/√fan, 1/√fan), PyTorch's own start of a linear layer that reads `fan` numbers."""
    return nn.init.uniform_(tensor, -1 / math.sqrt(fan), 1 / math.sqrt(fan))


class PHMLinear(nn.Module):
    """Hypercomplex linear layer: y = x M + b,  M = Σ_i A_i ⊗ W_i, (d_in, d_out).

    A (n, n, n) ~ N(0, init²); W (n, d_in/n, d_out/n), each W_i Glorot-uniform times √2; b = 0. With `rank` k each W_i
    is the product of two factors, (d_in/n, k) and (k, d_out/n), Glorot-uniform themselves, times `gain`. `rule` is an A
    that is shared with other layers.

    Source: Compacter (Karimi Mahabadi et al., NeurIPS 2021), sections 3.2-3.3; METHODS.md 3.5 and 7. Deliberate
    difference from the paper, by default: A is not shared and W_i not factorised, as the VL-PET runs had it.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        n: int,
        *,
        init: float = 0.01,
        rank: int | None = None,
        rule: PHMRule | None = None,
        gain: float = 1.0,
    ):
        super().__init__()
        self.rule = PHMRule(n, init) if rule is None else None
        # in a tuple, so that a shared one is a parameter of one module only
        self.own_or_shared: tuple[PHMRule] = (rule or cast(PHMRule, self.rule),)
        shapes = [(d_in // n, d_out // n)] if rank is None else [(d_in // n, rank), (rank, d_out // n)]
        self.W = nn.ParameterList(nn.Parameter(torch.empty(n, *shape)) for shape in shapes)
        for weight in self.W:
            for block in weight:
                nn.init.xavier_uniform_(block, gain=math.sqrt(2) if rank is None else gain)
        self.b = nn.Parameter(torch.zeros(d_out))

    def forward(self, x: Tensor) -> Tensor:
        """x (…, d_in) → (…, d_out)."""
        A = self.own_or_shared[0].A
        W = self.W[0] if len(self.W) == 1 else self.W[0] @ self.W[1]
        n, rows, columns = W.shape
        M = torch.einsum("iac,ikp->akcp", A, W).reshape(n * rows, n * columns)
        return x @ M + self.b


class PHMRule(nn.Module):
    """The A (n, n, n) of hypercomplex layers."""

    def __init__(self, n: int, init: float):
        super().__init__()
        self.A = nn.Parameter(torch.randn(n, n, n) * init)


class FactorLinear(nn.Module):
    """y = x U V + b, U (d_in, k), V (k, d_out) Glorot-uniform, b = 0: the low-rank adapter's layer.

    Source: the baseline "low-rank" of Compacter (Karimi Mahabadi et al., NeurIPS 2021), section 4.
    """

    def __init__(self, d_in: int, d_out: int, rank: int):
        super().__init__()
        self.U = nn.Parameter(nn.init.xavier_uniform_(torch.empty(d_in, rank)))
        self.V = nn.Parameter(nn.init.xavier_uniform_(torch.empty(rank, d_out)))
        self.b = nn.Parameter(torch.zeros(d_out))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.U @ self.V + self.b


class GroupedLinear(nn.Module):
    """h independent linear layers (d_in/h → d_out/h) on h slices of x, side by side: (…, d_in) → (…, d_out)."""

    def __init__(self, build: Builder, d_in: int, d_out: int, groups: int, *, zero: bool = False):
        super().__init__()
        self.groups = nn.ModuleList(build.linear(d_in // groups, d_out // groups, zero=zero) for _ in range(groups))

    def forward(self, x: Tensor) -> Tensor:
        slices = x.chunk(len(self.groups), dim=-1)
        return torch.cat([linear(part) for linear, part in zip(self.groups, slices, strict=True)], dim=-1)
