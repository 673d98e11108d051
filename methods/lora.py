"""LoRA (Hu et al., ICLR 2022) on the query and value projections of every attention."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from pet_bench.pet import Design, Insert, LowRank, Method
from pet_bench.spec import STRICT, Names, Size


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LoRA(Method):
    """y = W x + b + (alpha/r) B A dropout(x), A (r, d) ~ U(-1/√d, 1/√d), B (d, r) = 0.

    rank: r; 128 on BART and 150 on T5 at d = 768, in proportion elsewhere. projections: of self- and
    cross-attention alike. biases: every bias of the backbone trains too, layer norms' included; the published BART
    runs do so, T5 has none. Among BART's are those of the key projections, whose gradient is zero in exact
    arithmetic (METHODS.md section 10, 11). per_task: every task has an A and a B of its own.
    """

    name: ClassVar = "lora"
    source: ClassVar = "LoRA (Hu et al., ICLR 2022); settings of VL-PET Table 2 and Ladder-Side-Tuning"
    year: ClassVar = 2022
    learning_rates: ClassVar = {"bart": 1e-3, "t5": 3e-4, "mini-bart": 2e-3, "mini-llava": 2e-3, "mini-t5": 3e-3}
    identity_at_start: ClassVar = True

    rank: Size
    biases: bool
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    projections: Names = ("query", "value")
    per_task: bool = False

    @classmethod
    def defaults(cls, anatomy):
        at_768 = anatomy.among({"bart": 128, "t5": 150, "*": 128})
        return {"rank": max(1, round(anatomy.d * at_768 / 768)), "biases": anatomy.among({"bart": True, "*": False})}

    def design(self, anatomy):
        update = LowRank(self.rank, self.alpha, self.dropout, self.per_task)
        return Design(
            inserts=(Insert(anatomy.projections(self.projections), update, reads="input"),),
            train=("visual", "biases") if self.biases else ("visual",),
        )
