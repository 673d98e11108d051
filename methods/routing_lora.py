"""LoRA with a routing function (Qu et al., ECCV 2024): its bottleneck is aligned with the image."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pet_bench.pet import Design, Insert, Method
from pet_bench.pet.routing import RoutedLowRank, Routing, Summary, routed, unrouted
from pet_bench.spec import STRICT, Names, Size


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RoutingLoRA(Method):
    """y = W x + b + (alpha/r) B R(A x, A v), A (r, d) ~ U(-1/√d, 1/√d), B = 0, v the mean of the visual tokens.

    The routed term takes the place of B A x: there is no unrouted part, and no parameter more. routing: R(t, u), "mul"
    t ⊙ u, "add" t + u, "expand" (Σ_j t_j) u, "linear" t uᵀ u, "linear-relu" relu(t) relu(u)ᵀ u, "xt" t tᵀ u (encoders
    alone may, as it reads every position; the authors found it not to work), "ones" t uᵀ 1, a control. rank: 128 at
    d = 768. alpha: r. projections: of every attention. summary, coupled, after, down: see `RoutedLowRank`.

    The authors' runs are on RoBERTa and GPT-2 with one visual token; v is what that is here, one and the same for all
    layers, and gradients reach the projector through it: our transfer, as is the visual embedding that trains. With one
    visual token, t uᵀ u is a multiple of u at every position: the default lets mini-bart learn little (seed 0: an
    average of 71, `lora` has 129, "mul" and "add" 140).
    """

    name: ClassVar = "routing-lora"
    source: ClassVar = "Routing functions (Qu et al., ECCV 2024); METHODS_B section 1"
    reference: ClassVar = "tingyu215/Routing_VLPEFT e91d826 (no licence): from its mathematics alone"
    year: ClassVar = 2024
    size: ClassVar = "rank"
    learning_rates: ClassVar = {"mini-bart": 5e-3, "mini-t5": 5e-3, "mini-llama": 5e-3}
    identity_at_start: ClassVar = True

    rank: Size
    alpha: float = Field(gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    routing: Routing = "linear"
    projections: Names = ("query", "value")
    summary: Summary = "visual"
    coupled: bool = False
    after: Literal["A", "B"] = "A"
    down: Literal["shared", "split", "merge", "merge-norm"] = "shared"

    @classmethod
    def defaults(cls, anatomy):
        rank = max(1, round(anatomy.d * 128 / 768))
        return {"rank": rank, "alpha": float(rank)}

    def skip(self, anatomy):
        return super().skip(anatomy) or unrouted(anatomy, self.routing, self.summary)

    def design(self, anatomy):
        update = RoutedLowRank(
            rank=self.rank, alpha=self.alpha, dropout=self.dropout, routing=self.routing, summary=self.summary,
            coupled=self.coupled, after=self.after, down=self.down,
        )  # fmt: skip
        sites = anatomy.projections(self.projections)
        return Design((Insert(routed(sites, self.routing), update, reads="input"),))
