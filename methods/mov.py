"""MoV (Zadouri et al., ICLR 2024): mixtures of IA³ vectors, merged for each token by a router."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from pet_bench.pet import Design, Gate, Insert, Method, Place
from pet_bench.spec import STRICT, Names, Size


@dataclass(frozen=True, config=STRICT)
class VectorsGate(Gate):
    """One value per token and dimension, (B, T, d): G = Σ_e s_e l_e, s = softmax(W_r Y), l (experts, d) = 1.

    W_r (experts, d) ~ N(0, 0.02²), without a bias.
    """

    kind: ClassVar = "vectors"
    experts: Size

    @property
    def formula(self) -> str:
        return f"Σ_e s_e l_e ∈ (B, T, d), s = softmax(W_r Y) of {self.experts}"

    def build(self, place):
        return Vectors(self, place)


class Vectors(nn.Module):
    def __init__(self, spec: VectorsGate, place: Place):
        super().__init__()
        self.router = nn.Linear(place.d_h, spec.experts, bias=False)
        nn.init.normal_(self.router.weight, std=0.02)
        self.vectors = nn.Parameter(torch.ones(spec.experts, place.d_h))

    def forward(self, x: Tensor, y: Tensor, delta: Tensor) -> Tensor:
        return 1 + self.router(y).softmax(dim=-1) @ (self.vectors - 1)  # Σ s_e = 1, and so it is 1 at the start


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MoV(Method):
    """K' = G_k ⊙ K,  V' = G_v ⊙ V in every attention,  hidden' = G_ff ⊙ act(W_1 X) in every feed-forward:

        G = Σ_e s_e l_e,  s = softmax(W_r Y),  Y what G rescales

    experts: vectors l_e at each place, which start at 1; the released configuration has 30. All are merged for every
    token ("soft"). projections, feed_forward: as in `ia3`.

    Deliberate differences: a router reads the keys of all heads together, where the authors' gives every head a mixture
    of its own. The published rate, 3e-4 constant, is of another optimiser (Adafactor) and of instruction tuning; none
    is published for this set-up.
    """

    name: ClassVar = "mov"
    source: ClassVar = "Pushing Mixture of Experts to the Limit (Zadouri et al., ICLR 2024) and its code"
    reference: ClassVar = "for-ai/parameter-efficient-moe (T5X; no licence seen): read, not run"
    year: ClassVar = 2023
    size: ClassVar = "experts"
    learning_rates: ClassVar = {"mini-bart": 2e-2, "mini-t5": 1e-2}
    identity_at_start: ClassVar = True

    experts: Size = 30
    projections: Names = ("key", "value")
    feed_forward: bool = True

    def design(self, anatomy):
        sites = anatomy.projections(self.projections) if anatomy.attentions else ()
        hidden = (f"{site}.hidden" for site in anatomy.sub_layers if site.endswith("ffn") and self.feed_forward)
        return Design((Insert((*sites, *hidden), gate=VectorsGate(self.experts)),))
