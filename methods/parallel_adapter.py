"""The scaled parallel adapter (He et al., ICLR 2022)."""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from pet_bench.pet import Bottleneck, Design, Insert, Method
from pet_bench.spec import STRICT, Names, Size


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ParallelAdapter(Method):
    """H' = H + a (W_u relu(W_d X + b_d) + b_u) at the feed-forward, X its input; W_u and b_u = 0 at the start.

    bottleneck: r; 512 at d = 1024 in the paper, that is d/2. delta_scale: a, 4 in the paper. sites: sub-layers.

    Deliberate difference: on T5, whose norm is inside the sub-layer, X is the residual stream before that norm, as
    everywhere in this grammar; the paper's models are post-norm, where X is normalised.
    """

    name: ClassVar = "parallel-adapter"
    source: ClassVar = "He et al., ICLR 2022, section 4.6 (scaled parallel adapter)"
    year: ClassVar = 2022
    size: ClassVar = "bottleneck"
    learning_rates: ClassVar = {"bart": 1e-3, "t5": 3e-4, "mini-bart": 2e-3, "mini-llama": 2e-3, "mini-t5": 2e-3}
    identity_at_start: ClassVar = True

    bottleneck: Size
    delta_scale: float = 4.0
    sites: Names

    @classmethod
    def defaults(cls, anatomy):
        sites = [site for site in anatomy.sub_layers if site.endswith("ffn")]
        return {"bottleneck": anatomy.d // 2, "sites": sites}

    def design(self, anatomy):
        adapter = Bottleneck(self.bottleneck, zero_init=True, activation="relu")
        return Design((Insert(self.sites, adapter, reads="input", delta_scale=self.delta_scale),))
