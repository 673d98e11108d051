"""An adapter behind a learned scalar: a method in one loose file.

pet-bench show gated-adapter --plugin examples/gated_adapter.py
pet-bench run --method gated-adapter --method vl-adapter --plugin examples/gated_adapter.py --out results/gated
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from pet_bench.pet import Bottleneck, Design, Insert, Method
from pet_bench.spec import STRICT, Size


@dataclass(frozen=True, config=STRICT)
class ScaledBottleneck(Bottleneck):
    """f(x) = tanh(a) (W_u gelu_new(W_d x + b_d) + b_u), a scalar for each site of each layer, 0 at the start."""

    kind: ClassVar = "scaled-bottleneck"

    @property
    def formula(self) -> str:
        return f"tanh(a) ({super().formula})"

    def build(self, place, d_in):
        return Scaled(super().build(place, d_in))


class Scaled(nn.Module):
    def __init__(self, module: nn.Module):
        super().__init__()
        self.module, self.a = module, nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.a) * self.module(x)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GatedAdapter(Method):
    """H' = H + tanh(a) (W_u gelu_new(W_d H + b_d) + b_u): VL-Adapter that each layer opens as far as it helps.

    bottleneck: r, d/8. a starts at 0, so that the model starts as the pre-trained one. The mini learning rates are
    VL-Adapter's.
    """

    name: ClassVar = "gated-adapter"
    source: ClassVar = "an example; the gate is Flamingo's (Alayrac et al., NeurIPS 2022, section 2.2)"
    year: ClassVar = 2026
    learning_rates: ClassVar = {"mini-bart": 5e-3, "mini-t5": 5e-3}
    identity_at_start: ClassVar = True

    bottleneck: Size

    @classmethod
    def defaults(cls, anatomy):
        return {"bottleneck": anatomy.d // 8}

    def design(self, anatomy):
        return Design((Insert(anatomy.sub_layers, ScaledBottleneck(self.bottleneck)),))
