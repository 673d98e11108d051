"""DoRA (Liu et al., ICML 2024): LoRA on the direction of each weight, and a learned length."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pet_bench.identity import Since
from pet_bench.pet import Design, Difference, Insert, Method, WeightDecomposed
from pet_bench.spec import STRICT, Names, Size


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DoRA(Method):
    """y = g ⊙ (W + V) x + b,  V = (alpha/r) B A,  g = m / ‖W + V‖ (norm per row of W), as on VL-BART.

    m starts at ‖W‖, B at 0. rank: r; 128 at d = 768. alpha: r, so that V = B A. norm: whether the backward pass goes
    through it. projections: of every attention. biases, norms: every bias of the backbone, every layer norm's weight
    trains too; on BART the published image-text runs train both, the video-text ones biases alone. T5 has no published
    run. Before, `dora` was peft's: `{norm: constant, alpha: 32, dropout: 0.1, norms: false}`.
    """

    name: ClassVar = "dora"
    source: ClassVar = "DoRA (Liu et al., ICML 2024), sections 4 and 5.2, and its VL-BART code; METHODS_B section 3"
    reference: ClassVar = "NVlabs/DoRA 7e2f10a (NVIDIA, non-commercial): from its mathematics alone"
    year: ClassVar = 2024
    size: ClassVar = "rank"
    learning_rates: ClassVar = {"bart": 1e-3, "t5": 3e-4, "mini-bart": 5e-3, "mini-t5": 5e-3}
    identity_at_start: ClassVar = True
    on_suite: ClassVar = {"video-text": {"norms": False}}
    differences: ClassVar = (
        Difference(
            "dora-norm",
            "norm",
            "differentiated",
            "constant",
            {},
            "Section 4.3 of the paper treats the norm as a constant in the backward pass; the published "
            "vision-language runs differentiate through it, unless their switch dora_simple is on. Until the default "
            "was made the published one, `dora` was as peft has it: `{norm: constant, alpha: 32, dropout: 0.1, norms: "
            "false}`. What was measured then keeps its id.",
            "METHODS_B 3; followups/parity/dora_vlbart, dora_vlbart_simple",
        ),
    )

    rank: Size
    biases: bool
    alpha: float = Field(gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    projections: Names = ("query", "value")
    norm: Annotated[Literal["differentiated", "constant"], Since(2, neutral="constant")] = "differentiated"
    norms: Annotated[bool, Since(2, neutral=False)]

    @classmethod
    def defaults(cls, anatomy):
        rank, published = max(1, round(anatomy.d * 128 / 768)), anatomy.among({"bart": True, "*": False})
        return {"rank": rank, "alpha": float(rank), "biases": published, "norms": published}

    def design(self, anatomy):
        update = WeightDecomposed(self.rank, self.alpha, self.dropout, self.norm)
        trains = ("visual", *(("biases",) if self.biases else ()), *(("norms",) if self.norms else ()))
        return Design(inserts=(Insert(anatomy.projections(self.projections), update, reads="input"),), train=trains)
