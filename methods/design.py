"""Any design of the grammar, spelled out in the spec itself."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from pet_bench.pet import Design, Door, Insert, Method, SmallGate, part
from pet_bench.spec import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WrittenOut(Method):
    """H' = s · G ⊙ (b · H + a · ΔH) wherever the spec says, for what no named method has an option for.

    inserts: the fields of `Insert`, with `delta` and `gate` as mappings of a `kind` and that part's own fields.
    doors: likewise; train: selectors. Without options: the visual embedding alone trains.
    """

    name: ClassVar = "design"
    source: ClassVar = "pet-bench: the grammar itself"
    year: ClassVar = 2026
    learning_rates: ClassVar = {"bart": 1e-3, "t5": 3e-4, "mini-bart": 5e-3, "mini-t5": 5e-3}

    inserts: tuple[Insert, ...] = ()
    train: tuple[str, ...] = ("visual",)
    doors: tuple[part(Door), ...] = Field(default=())

    @property
    def identity_at_start(self):
        """What is inserted may start as an identity, but this is not known."""
        return not self.inserts and not self.doors

    @property
    def batch_invariant(self):
        return not any(isinstance(insert.gate, SmallGate) for insert in self.inserts)

    def design(self, shape):
        return Design(self.inserts, self.train, self.doors)
