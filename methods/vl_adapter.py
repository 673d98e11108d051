"""VL-Adapter (Sung et al., CVPR 2022): one adapter after every sub-layer, shared by all tasks."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from pet_bench.pet import Bottleneck, Design, Insert, Method
from pet_bench.spec import STRICT

SITES = ("encoder.self_attn", "encoder.ffn", "decoder.self_attn", "decoder.cross_attn", "decoder.ffn")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VLAdapter(Method):
    """H' = H + W_u gelu_new(W_d H + b_d) + b_u after self-attention, cross-attention and feed-forward, everywhere.

    bottleneck: r; d/8 on BART (VL-PET repository), d/4 on T5 (Ladder-Side-Tuning repository). norms: layer norms of
    encoder and decoder train too. The published T5 runs ask for that as well, but their trainer looks for another
    norm class than their model uses, so on T5 none ever trained (METHODS.md section 10, 1): the default there is
    False, and `norms: true` is what was meant.
    """

    name: ClassVar = "vl-adapter"
    source: ClassVar = "VL-Adapter (Sung et al., CVPR 2022), single adapter; widths of VL-PET Table 2 and LST"
    year: ClassVar = 2022
    learning_rates: ClassVar = {"bart": 1e-3, "t5": 3e-4, "mini-bart": 5e-3, "mini-t5": 5e-3}

    bottleneck: int = Field(gt=0)
    norms: bool

    @classmethod
    def defaults(cls, shape):
        bart = shape.family == "bart"
        return {"bottleneck": shape.d // (8 if bart else 4), "norms": bart}

    def design(self, shape):
        return Design(
            inserts=(Insert(SITES, Bottleneck(self.bottleneck)),),
            train=("visual", "norms") if self.norms else ("visual",),
        )
