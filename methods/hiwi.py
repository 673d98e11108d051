"""HiWi (Liao et al., ACL 2023): an adapter that reads pre-trained weights instead of hidden states."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from pet_bench.errors import UserError
from pet_bench.pet import Delta, Design, Insert, Method, Place
from pet_bench.spec import STRICT, Size


@dataclass(frozen=True, config=STRICT)
class WeightAdapter(Delta):
    """f(x) = ΔW x with ΔW = relu(W D) U, D (d_in, width), U (width, d_in) = 0, row by row of W (d_h, d_in); or, `of`
    biases, f(x) = relu(b D) U with D (d_h, width), U (width, d_h)."""

    kind: ClassVar = "weight-adapter"
    width: Size
    of: Literal["weights", "biases"] = "weights"

    @property
    def formula(self) -> str:
        read, times = ("W", " {x}") if self.of == "weights" else ("b", "")
        return f"relu({read} D) U{times} (r = {self.width})"

    @property
    def reads_weights(self) -> bool:
        return True

    def build(self, place, d_in):
        linear = place.writer
        if not isinstance(linear, nn.Linear) or linear.in_features != d_in:
            raise UserError(f'site "{place.site}" is no projection whose weight an adapter could read')
        if self.of == "biases" and linear.bias is None:
            raise UserError(f'site "{place.site}" has no bias for an adapter to read')
        return (OfWeight if self.of == "weights" else OfBias)(self, place, linear)


class _Adapter(nn.Module):
    def __init__(self, spec: WeightAdapter, place: Place, linear: nn.Linear, width: int):
        super().__init__()
        self.linear, self.part = (linear,), place.part or (0, 1)  # in a tuple: it is the backbone's
        self.down = place.linear(width, spec.width).weight
        self.up = nn.Parameter(torch.zeros(width, spec.width))

    def adapted(self, stock: Tensor) -> Tensor:
        k, n = self.part
        return F.linear(F.relu(F.linear(stock.detach().chunk(n)[k], self.down)), self.up)


class OfWeight(_Adapter):
    def __init__(self, spec: WeightAdapter, place: Place, linear: nn.Linear):
        super().__init__(spec, place, linear, linear.in_features)

    def weight(self) -> Tensor:
        return self.adapted(self.linear[0].weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight())


class OfBias(_Adapter):
    def __init__(self, spec: WeightAdapter, place: Place, linear: nn.Linear):
        super().__init__(spec, place, linear, place.d_h)

    def bias(self) -> Tensor:
        return self.adapted(self.linear[0].bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.bias().expand(*x.shape[:-1], -1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class HiWi(Method):
    """W' = W + relu(W D) U on the projections of every feed-forward, D (d, r), U (r, d) = 0: no latency once folded.

    of: "weights", or "biases", b' = b + relu(b D) U, of which a trained model needs to keep no more than BitFit does.
    bottleneck: r; d/16, ours, as are one adapter for each projection and no scale: the formula is the paper's, whose
    settings could not be read at their source.
    """

    name: ClassVar = "hiwi"
    source: ClassVar = "HiWi (Liao et al., ACL 2023), abstract and section 3.2"
    reference: ClassVar = "none was read: from the paper"
    year: ClassVar = 2023
    size: ClassVar = "bottleneck"
    learning_rates: ClassVar = {"mini-bart": 5e-3, "mini-t5": 1e-2, "mini-llama": 5e-3}
    identity_at_start: ClassVar = True

    bottleneck: Size
    of: Literal["weights", "biases"] = "weights"

    @classmethod
    def defaults(cls, anatomy):
        return {"bottleneck": max(1, anatomy.d // 16)}

    def design(self, anatomy):
        adapter = WeightAdapter(self.bottleneck, self.of)
        places = (f"{site}.{name}" for site in anatomy.sub_layers for name in ("gate", "in", "out"))
        sites = tuple(site for site in places if ".ffn." in site and site in anatomy.sites)
        return Design((Insert(sites, adapter, reads="input"),))
