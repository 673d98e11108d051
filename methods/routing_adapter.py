"""An adapter with a routing function (Qu et al., ECCV 2024): its bottleneck is aligned with the image."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass

from pet_bench.pet import Design, Insert, Method
from pet_bench.pet.routing import RoutedBottleneck, Routing, Summary, routed, unrouted
from pet_bench.spec import STRICT, Size


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RoutingAdapter(Method):
    """H' = H + W_u act(R(W_d H + b_d, W_d v + b_d)) + b_u after every sub-layer, v the mean of the visual tokens.

    routing: as of `routing-lora`; "none" is the plain adapter. bottleneck: r; d/8, and d/4 on T5, as VL-Adapter's.
    activation: "gelu_new" (authors on GPT-2) or "gelu". residual: without, ΔH stands alone, as in the authors' RoBERTa
    code unless it is told otherwise. per_block: all places of a layer share one adapter, as in their GPT code. Places
    and widths here are VL-Adapter's, our transfer; no initialisation is 0.
    """

    name: ClassVar = "routing-adapter"
    source: ClassVar = "Routing functions (Qu et al., ECCV 2024); METHODS_B section 1"
    reference: ClassVar = "tingyu215/Routing_VLPEFT e91d826 (no licence): from its mathematics alone"
    year: ClassVar = 2024
    size: ClassVar = "bottleneck"
    learning_rates: ClassVar = {"mini-bart": 2e-3, "mini-t5": 5e-3, "mini-llama": 5e-3}

    bottleneck: Size
    routing: Routing = "linear"
    activation: Literal["gelu_new", "gelu", "relu"] = "gelu_new"
    residual: bool = True
    per_block: bool = False
    summary: Summary = "visual"

    @classmethod
    def defaults(cls, anatomy):
        return {"bottleneck": anatomy.d // anatomy.among({"t5": 4, "*": 8})}

    def skip(self, anatomy):
        return super().skip(anatomy) or unrouted(anatomy, self.routing, self.summary)

    def design(self, anatomy):
        adapter = RoutedBottleneck(
            width=self.bottleneck, routing=self.routing, summary=self.summary, activation=self.activation,
            per_block=self.per_block,
        )  # fmt: skip
        sites = anatomy.sub_layers
        return Design((Insert(routed(sites, self.routing), adapter, base_scale=float(self.residual)),))
