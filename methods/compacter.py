"""Compacter (Karimi Mahabadi et al., NeurIPS 2021): adapters of hypercomplex layers."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pet_bench.pet import Design, Difference, Insert, Method, PHMBottleneck
from pet_bench.spec import STRICT, Size


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Compacter(Method):
    """H' = H + PHM_u(gelu_new(PHM_d(H))) after self-attention, cross-attention and feed-forward, everywhere.

        PHM(x) = x M + b,  M = Σ_i A_i ⊗ W_i,  A (n, n, n), W (n, d_in/n, d_out/n)

    bottleneck: r, d/8. n: hypercomplex division, 2 in the VL-PET runs. rank: of the two factors of each W_i, 1 in the
    paper; None, as in those runs: not factorised. shared_rule: one A for all adapters, as in the paper; in those runs
    every layer has its own. per_task as in `vl-adapter`. norms: layer norms of encoder and decoder train too. On T5
    there was no published run: norms stay frozen there, as VL-Adapter's do.
    """

    name: ClassVar = "compacter"
    source: ClassVar = "Compacter (Karimi Mahabadi et al., NeurIPS 2021); settings of VL-PET Table 2"
    year: ClassVar = 2021
    size: ClassVar = "bottleneck"
    learning_rates: ClassVar = {"mini-bart": 1e-2, "mini-t5": 1e-2}
    differences: ClassVar = (
        Difference(
            "compacter-shared-rule", "shared_rule", False, True, {},
            "The paper shares A among all adapters; every layer of the VL-PET runs has its own.",
            "METHODS.md 3.5; parity/bart_compacter",
        ),
        Difference(
            "compacter-factors", "rank", None, 1, {},
            "The paper factorises each W_i into rank one; the VL-PET runs keep it whole.",
            "METHODS.md 3.5; parity/bart_compacter",
        ),
    )  # fmt: skip

    bottleneck: Size
    norms: bool
    n: Size = 2
    rank: Size | None = None
    shared_rule: bool = False
    init_range: float = Field(default=0.01, gt=0)
    per_task: Literal["none", "both", "down", "up"] = "none"

    @classmethod
    def defaults(cls, anatomy):
        return {"bottleneck": anatomy.d // 8, "norms": anatomy.among({"bart": True, "*": False})}

    def design(self, anatomy):
        adapter = PHMBottleneck(self.bottleneck, self.n, self.rank, self.shared_rule, self.init_range, self.per_task)
        return Design(
            inserts=(Insert(anatomy.sub_layers, adapter),),
            train=("visual", "norms") if self.norms else ("visual",),
        )
