"""DoRA (Liu et al., ICML 2024): LoRA on the direction of each weight, and a learned length."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from pet_bench.pet import Design, Insert, Method, WeightDecomposed
from pet_bench.spec import STRICT, Names, Size


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DoRA(Method):
    """y = g ⊙ (W + V) x + b,  V = (alpha/r) B A,  g = m / ‖W + V‖ (norm per row of W, a constant in the backward pass).

    m starts at ‖W‖, B at 0. rank: r; 128 at d = 768. projections: of every attention. biases: every bias of the
    backbone trains too, as the authors' vision-language runs (on VL-BART, with VL-Adapter's code) do on BART.
    """

    name: ClassVar = "dora"
    source: ClassVar = "DoRA (Liu et al., ICML 2024), sections 4 and 5.2"
    year: ClassVar = 2024
    learning_rates: ClassVar = {"bart": 1e-3, "t5": 3e-4, "mini-bart": 5e-3, "mini-t5": 5e-3}
    identity_at_start: ClassVar = True

    rank: Size
    biases: bool
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    projections: Names = ("query", "value")

    @classmethod
    def defaults(cls, anatomy):
        return {"rank": max(1, round(anatomy.d * 128 / 768)), "biases": anatomy.among({"bart": True, "*": False})}

    def design(self, anatomy):
        update = WeightDecomposed(self.rank, self.alpha, self.dropout)
        return Design(
            inserts=(Insert(anatomy.projections(self.projections), update, reads="input"),),
            train=("visual", "biases") if self.biases else ("visual",),
        )
