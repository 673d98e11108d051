"""SSF (Lian et al., NeurIPS 2022): scale and shift what every operation gives."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass

from pet_bench.pet import Design, Insert, Method, Offset, VectorGate
from pet_bench.spec import STRICT, Names

OPERATIONS = ("query", "key", "value", "out", "in", "gate")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SSF(Method):
    """H' = γ ⊙ H + β, γ and β (d,), behind every linear layer of attentions and feed-forwards; layer norms train.

    A norm's own scale and shift stand for γ and β behind it: they are of the same function. start: γ ~ N(1, 0.02²) and
    β ~ N(0, 0.02²), "normal", as published, or 1 and 0, "identity". operations: those linear layers that there are.
    Everything folds into the layers where they have a bias; there is no latency. Deliberate differences: the paper's
    models are vision transformers, whose patch embedding is scaled too; cross-attention is ours to place.
    """

    name: ClassVar = "ssf"
    source: ClassVar = "SSF (Lian et al., NeurIPS 2022), sections 3.2 and 3.3"
    reference: ClassVar = "none was read: from the paper"
    year: ClassVar = 2022
    learning_rates: ClassVar = {"mini-bart": 1e-2, "mini-t5": 1e-2, "mini-llama": 1e-2}

    start: Literal["normal", "identity"] = "normal"
    operations: Names = OPERATIONS
    norms: bool = True

    @property
    def identity_at_start(self):  # pyright: ignore[reportIncompatibleVariableOverride]  options decide
        return self.start == "identity"

    def design(self, anatomy):
        names = (f"{site}.{name}" for site in anatomy.sub_layers for name in self.operations)
        gate = VectorGate(offset=1.0, init="default") if self.start == "normal" else VectorGate(init="one")
        shift = Offset("normal" if self.start == "normal" else "zero")
        return Design(
            (Insert(tuple(site for site in names if site in anatomy.sites), shift, gate=gate, gating="base"),),
            ("visual", "norms") if self.norms else ("visual",),
        )
