"""The bottleneck adapter (Houlsby et al., ICML 2019), and where Pfeiffer et al. put it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pet_bench.errors import UserError
from pet_bench.identity import Since
from pet_bench.pet import Anatomy, Bottleneck, Design, Insert, Method
from pet_bench.spec import STRICT, Size


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Adapter(Method):
    """H' = H + W_u gelu_new(W_d H + b_d) + b_u, W_u and b_u = 0 at the start.

    placement: "houlsby" after every sub-layer, "pfeiffer" after the feed-forward alone (Pfeiffer et al., EACL 2021).
    norms: layer norms train too, as Houlsby et al. do; Pfeiffer et al. leave them. bottleneck: r, d/8. dropped: so many
    of the lowest layers of each stack have none, AdapterDrop's "specialised" form (Rücklé et al., EMNLP 2021).

    Deliberate differences: Houlsby et al. start close to 0, not at it; both papers' cross-attention is ours to place,
    their models being encoders: "houlsby" treats it as any sub-layer.
    """

    name: ClassVar = "adapter"
    source: ClassVar = "Houlsby et al., ICML 2019; placement of Pfeiffer et al., EACL 2021"
    year: ClassVar = 2019
    size: ClassVar = "bottleneck"
    learning_rates: ClassVar = {"bart": 1e-3, "t5": 3e-4, "mini-bart": 1e-2, "mini-t5": 1e-2} | {
        "mini-llama": 1e-2, "mini-llava": 5e-3,
    }  # fmt: skip
    identity_at_start: ClassVar = True

    placement: Literal["houlsby", "pfeiffer"] = "houlsby"
    bottleneck: Size
    norms: bool = True
    dropped: Annotated[int, Field(ge=0), Since(2, neutral=0)] = 0

    @classmethod
    def defaults(cls, anatomy):
        return {"bottleneck": anatomy.d // 8}

    def design(self, anatomy):
        everywhere = self.placement == "houlsby"
        sites = tuple(site for site in anatomy.sub_layers if everywhere or site.endswith("ffn"))
        return Design(
            inserts=tuple(above(anatomy, Insert(sites, Bottleneck(self.bottleneck, zero_init=True)), self.dropped)),
            train=("visual", "norms") if self.norms else ("visual",),
        )


def above(anatomy: Anatomy, insert: Insert, dropped: int) -> Iterator[Insert]:
    """The insert without the lowest layers of each stack; raises UserError where none is left."""
    if not dropped:
        yield insert
        return
    for stack in anatomy.adapted:
        if sites := tuple(site for site in insert.sites if site.startswith(f"{stack}.")):
            layers = anatomy.stacks[stack].layers
            if dropped >= layers:
                raise UserError(
                    f"dropped: {dropped} of the {layers} layers of the {stack} (possible: 0 to {layers - 1})"
                )
            yield replace(insert, sites=sites, layers=tuple(range(dropped, layers)))
