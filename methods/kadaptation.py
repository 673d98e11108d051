"""KAdaptation (He et al., AAAI 2023): a projection's update as a sum of Kronecker products."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from pet_bench.errors import UserError
from pet_bench.pet import Delta, Design, Insert, Method
from pet_bench.pet.linears import PHMRule
from pet_bench.spec import STRICT, Names, Size


@dataclass(frozen=True, config=STRICT)
class Kronecker(Delta):
    """f(x) = scale · ΔW x, ΔW = Σ_i A_i ⊗ (u_i v_iᵀ), A_i (n, n), u_i (d_h/n, rank), v_i (d_in/n, rank), i = 1 … n.

    A (n, n, n) ~ N(0, 0.01²) is one for all layers, the "slow" weights. v is Glorot-uniform, u = 0.
    """

    kind: ClassVar = "kronecker"
    n: Size
    rank: Size = 1
    scale: float = 1.0

    @property
    def formula(self) -> str:
        return f"{self.scale:g} · Σ_i A_i ⊗ (u_i v_iᵀ) {{x}} (n = {self.n}, rank {self.rank}, A shared)"

    def build(self, place, d_in):
        for size in (d_in, place.d_h):
            if size % self.n:
                raise UserError(f"{place.site}: {size} does not divide into n = {self.n} blocks")
        return KroneckerModule(self, place.shared("kronecker_rule", lambda: PHMRule(self.n, 0.01)), d_in, place.d_h)


class KroneckerModule(nn.Module):
    def __init__(self, spec: Kronecker, rule: PHMRule, d_in: int, d_h: int):
        super().__init__()
        self.rule, self.scale = (rule,), spec.scale  # in a tuple: it is a parameter of `pet.shared`
        self.u = nn.Parameter(torch.zeros(spec.n, d_h // spec.n, spec.rank))
        self.v = nn.Parameter(torch.empty(spec.n, d_in // spec.n, spec.rank))
        for block in self.v:
            nn.init.xavier_uniform_(block)

    def weight(self) -> Tensor:
        """(d_h, d_in)."""
        blocks = self.u @ self.v.transpose(1, 2)
        n, rows, columns = blocks.shape
        return torch.einsum("iac,ikp->akcp", self.rule[0].A, blocks).reshape(n * rows, n * columns) * self.scale

    def forward(self, x: Tensor) -> Tensor:
        """x (…, d_in) → (…, d_h)."""
        return nn.functional.linear(x, self.weight())


@dataclass(frozen=True, kw_only=True, config=STRICT)
class KAdaptation(Method):
    """y = (W + scale · Σ_i A_i ⊗ (u_i v_iᵀ)) x + b on query and value projections, A shared by all of them.

    n: blocks, the most up to 64, the paper's, that divide a head's width; rank: of u_i and v_i. u starts at 0, so that
    the model does as the backbone (ours; the paper says nothing of it). Deliberate difference: its models are
    vision transformers; here it is every attention of the scope.
    """

    name: ClassVar = "kadaptation"
    source: ClassVar = "KAdaptation (He et al., AAAI 2023), section 4"
    reference: ClassVar = "none was read: from the paper"
    year: ClassVar = 2023
    size: ClassVar = "rank"
    learning_rates: ClassVar = {"mini-bart": 1e-2, "mini-t5": 5e-3, "mini-llama": 1e-2}
    identity_at_start: ClassVar = True

    n: Size
    rank: Size = 1
    scale: float = Field(default=1.0, gt=0)
    projections: Names = ("query", "value")

    @classmethod
    def defaults(cls, anatomy):
        stacks = (stack for name, stack in anatomy.stacks.items() if name != "projector")
        divisor = math.gcd(
            *(width // (stack.heads or 1) for stack in stacks for width in stack.widths or (stack.width,))
        )
        return {"n": max(n for n in range(1, 65) if divisor % n == 0)}

    def design(self, anatomy):
        update = Kronecker(self.n, self.rank, self.scale)
        return Design((Insert(anatomy.projections(self.projections), update, reads="input"),))
