"""MAM adapter (He et al., ICLR 2022): prefixes in the attentions, scaled parallel adapters at the feed-forwards."""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from pet_bench.methods.parallel_adapter import ParallelAdapter
from pet_bench.methods.prefix_tuning import Attentions, Prefix, PrefixTuning
from pet_bench.pet import Design, Method
from pet_bench.spec import STRICT, Size


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MAM(Method):
    """Attn(Q, [P_k; K], [P_v; V]) in every attention, and H' = H + a (W_u relu(W_d X + b_d) + b_u) at every
    feed-forward: the "mix-and-match" of `prefix-tuning` and `parallel-adapter`.

    length: 30 and hidden: 800 of the prefixes' network at d = 1024, here d/2 as `prefix-tuning`'s; bottleneck: 512 at
    d = 1024, that is d/2; delta_scale: a, 4: section 4.6 of the paper, on BART-large. The deliberate differences are
    those of the two.
    """

    name: ClassVar = "mam"
    source: ClassVar = "MAM adapter (He et al., ICLR 2022), section 4.6"
    reference: ClassVar = "none was read: from the paper"
    year: ClassVar = 2022
    size: ClassVar = "bottleneck"
    learning_rates: ClassVar = {"mini-bart": 5e-3, "mini-t5": 2e-3, "mini-llama": 2e-3}

    length: Size = 30
    hidden: Size
    attentions: Attentions
    bottleneck: Size
    delta_scale: float = 4.0

    @classmethod
    def defaults(cls, anatomy):
        width = ParallelAdapter.defaults(anatomy)["bottleneck"]
        return PrefixTuning.defaults(anatomy) | {"bottleneck": width}

    def skip(self, anatomy):
        return PrefixTuning(length=self.length, hidden=self.hidden, attentions=self.attentions).skip(anatomy)

    def design(self, anatomy):
        sites = ParallelAdapter.defaults(anatomy)["sites"]
        adapters = ParallelAdapter(bottleneck=self.bottleneck, delta_scale=self.delta_scale, sites=tuple(sites))
        prefix = Prefix(self.length, self.hidden, self.attentions)
        return Design(adapters.design(anatomy).inserts, doors=(prefix,))
