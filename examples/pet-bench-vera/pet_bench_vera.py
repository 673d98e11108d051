"""VeRA (Kopiczko et al., ICLR 2024): LoRA of frozen random matrices, of which only two vectors train."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from pet_bench.pet import Delta, Design, Insert, Method, Place
from pet_bench.spec import STRICT, Names, Size


@dataclass(frozen=True, config=STRICT)
class VectorLowRank(Delta):
    """f(x) = b ⊙ B (d ⊙ A x), A (r, d_in) and B (d_out, r) random, frozen and shared by all layers.

    rank: r. start: of d (r,); b (d_out,) starts at 0, so that f does. seed: of A and B, which therefore need not be
    saved: the same design has the same matrices wherever it is built.
    """

    kind: ClassVar = "vector-low-rank"
    rank: Size
    start: float = 0.1
    seed: int = 0

    @property
    def formula(self) -> str:
        return f"b ⊙ B (d ⊙ A {{x}}), A and B frozen and shared (r = {self.rank})"

    def build(self, place: Place, d_in: int) -> nn.Module:
        key = f"vera_{self.rank}_{d_in}_{place.d_h}_{self.seed}"
        matrices = place.shared(key, lambda: FrozenMatrices(self, place, d_in))
        return VectorLowRankModule(self, matrices, place.d_h)


class FrozenMatrices(nn.Module):
    """A and B, Kaiming-uniform. They are buffers: all parameters below `pet` train, and are counted and saved."""

    def __init__(self, spec: VectorLowRank, place: Place, d_in: int):
        super().__init__()
        generator, device = torch.Generator().manual_seed(spec.seed), next(place.model.parameters()).device
        for name, shape in {"A": (spec.rank, d_in), "B": (place.d_h, spec.rank)}.items():
            drawn = nn.init.kaiming_uniform_(torch.empty(shape, device="cpu"), a=5**0.5, generator=generator)
            self.register_buffer(name, drawn.to(device), persistent=False)


class VectorLowRankModule(nn.Module):
    def __init__(self, spec: VectorLowRank, matrices: FrozenMatrices, d_out: int):
        super().__init__()
        self.matrices = (matrices,)  # in a tuple: they belong to `pet.shared`
        self.d = nn.Parameter(torch.full((spec.rank,), spec.start))
        self.b = nn.Parameter(torch.zeros(d_out))

    def weight(self) -> Tensor:
        """diag(b) B diag(d) A, (d_out, d_in): what `merge` adds to the projection."""
        (frozen,) = self.matrices
        return self.b[:, None] * (frozen.B * self.d) @ frozen.A

    def forward(self, x: Tensor) -> Tensor:
        """x (…, d_in) → (…, d_out)."""
        (frozen,) = self.matrices
        return self.b * F.linear(self.d * F.linear(x, frozen.A), frozen.B)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VeRA(Method):
    """y = W x + b ⊙ B (d ⊙ A x): only d (r,), from 0.1, and b (d_out,), from 0, train.

    rank: r; 1024 at d = 768, as in the paper's RoBERTa-base. projections: of every attention; query and value in the
    paper. seed: of A and B, apart from the trial's. There is no published run on these tasks, hence no learning rate.

    Deliberate difference: the percentage of trained parameters leaves A and B out of the total, as nobody stores them.
    """

    name: ClassVar = "vera"
    source: ClassVar = "VeRA (Kopiczko et al., ICLR 2024), section 3.1"
    year: ClassVar = 2024
    learning_rates: ClassVar = {}
    identity_at_start: ClassVar = True

    rank: Size
    start: float = 0.1
    seed: int = 0
    projections: Names = ("query", "value")

    @classmethod
    def defaults(cls, anatomy):
        return {"rank": anatomy.d * 4 // 3}

    def design(self, anatomy):
        sites = anatomy.projections(self.projections)
        return Design((Insert(sites, VectorLowRank(self.rank, self.start, self.seed), reads="input"),))
