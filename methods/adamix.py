"""AdaMix (Wang et al., EMNLP 2022): dense adapter experts, one drawn a step, averaged afterwards."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass
from torch import nn
from torch.nn import functional as F

from pet_bench.pet import Delta, Design, Insert, Method
from pet_bench.pet.experts import DrawnExperts, ExpertBottleneck, Inference
from pet_bench.spec import STRICT, Size


@dataclass(frozen=True, config=STRICT)
class DenseExperts(Delta):
    """f(x) = U_j gelu(D_i x + c_i) + k_j, i and j drawn each training pass; see `AdaMix`."""

    kind: ClassVar = "dense-experts"
    width: Size
    experts: Size
    shared: Literal["down", "up", "both", "none"] = "none"
    inference: Inference = "factors"

    @property
    def formula(self) -> str:
        counts = [1 if self.shared in (layer, "both") else self.experts for layer in ("down", "up")]
        return f"U_j gelu(D_i {{x}} + c_i) + k_j, i of {counts[0]} and j of {counts[1]} drawn a step (r = {self.width})"

    def build(self, place, d_in):
        def layer(name: str, a: int, b: int) -> nn.Module:
            count = 1 if self.shared in (name, "both") else self.experts
            return DrawnExperts(lambda: place.linear(a, b), count, self.inference)

        return ExpertBottleneck(layer("down", d_in, self.width), layer("up", self.width, place.d_h), F.gelu)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AdaMix(Method):
    """H' = H + U_j gelu(D_i H + c_i) + k_j after every feed-forward, i and j drawn for each batch, in each layer.

    bottleneck: r, d/12. experts: of each layer, equal at the start. shared: which of the two layers has only one.
    inference: see `DrawnExperts`; published are mean weights and biases.

    Deliberate differences: places are those of `mixphm`, as in the code that both were compared with. The optional
    consistency loss, a symmetric KL between this pass and a second one with another draw, which is off as published, is
    left out: the loss of a trial is of one pass. On BART and decoder-only models it is our transfer.
    """

    name: ClassVar = "adamix"
    source: ClassVar = "AdaMix (Wang et al., EMNLP 2022), as in the code of MixPHM; METHODS_B section 5.4"
    reference: ClassVar = "jingjing12110/MixPHM 3f2f62d (MIT)"
    year: ClassVar = 2022
    size: ClassVar = "bottleneck"
    learning_rates: ClassVar = {"mini-bart": 2e-2, "mini-t5": 5e-3}

    bottleneck: Size
    experts: Size = 4
    shared: Literal["down", "up", "both", "none"] = "none"
    inference: Inference = "factors"

    @classmethod
    def defaults(cls, anatomy):
        return {"bottleneck": max(1, round(anatomy.d / 12))}

    def design(self, anatomy):
        sites = tuple(site for site in anatomy.sub_layers if site.endswith("ffn"))
        return Design((Insert(sites, DenseExperts(self.bottleneck, self.experts, self.shared, self.inference)),))
