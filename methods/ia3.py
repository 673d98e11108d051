"""IA³ (Liu et al., NeurIPS 2022): learned vectors rescale keys, values and hidden units."""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from pet_bench.pet import Design, Insert, Method, VectorGate
from pet_bench.spec import STRICT, Names


@dataclass(frozen=True, kw_only=True, config=STRICT)
class IA3(Method):
    """K' = l_k ⊙ K,  V' = l_v ⊙ V in every attention,  hidden' = l_ff ⊙ act(W_1 X) in every feed-forward; all l = 1.

    projections: of the attentions; feed_forward: whether hidden units are rescaled too.
    """

    name: ClassVar = "ia3"
    source: ClassVar = "IA³ (Liu et al., NeurIPS 2022), section 3.3"
    year: ClassVar = 2022
    learning_rates: ClassVar = {"bart": 3e-3, "t5": 3e-3, "mini-bart": 1e-2, "mini-t5": 1e-2}
    identity_at_start: ClassVar = True

    projections: Names = ("key", "value")
    feed_forward: bool = True

    def design(self, anatomy):
        sites = anatomy.projections(self.projections) if anatomy.attentions else ()
        hidden = (f"{site}.hidden" for site in anatomy.sub_layers if site.endswith("ffn") and self.feed_forward)
        return Design((Insert((*sites, *hidden), gate=VectorGate(init="one")),))
