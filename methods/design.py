"""Any design of the grammar, spelled out in the spec itself."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from pet_bench.pet import ADoor, Design, Insert, Method, Part, SmallGate
from pet_bench.spec import STRICT, Names, plain


def _told(part: Any, *left_out: str) -> str:
    """`bottleneck(width=4), reads=input`: a part's fields that are not their defaults."""
    told = []
    for option in fields(part):
        value, default = getattr(part, option.name), getattr(option.default, "default", option.default)
        if isinstance(value, Part):
            inner = _told(value)
            told.append(f"{value.kind}({inner})" if inner else value.kind)
        elif option.name not in left_out and value != default:
            told.append(f"{option.name}={plain(value)}")
    return ", ".join(told)


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
    train: Names = ("visual",)
    doors: tuple[ADoor, ...] = Field(default=())

    @property
    def identity_at_start(self):  # pyright: ignore[reportIncompatibleVariableOverride]  options decide
        """What is inserted may start as an identity, but this is not known."""
        return not self.inserts and not self.doors

    @property
    def batch_invariant(self):  # pyright: ignore[reportIncompatibleVariableOverride]  options decide
        return not any(isinstance(insert.gate, SmallGate) for insert in self.inserts)

    def label(self, changed):
        """Every insert as its sites and what is not the default there."""
        inserts = [f"{'+'.join(insert.sites)}: {_told(insert, 'sites')}" for insert in self.inserts]
        doors = [f"{door.kind}({_told(door)})" for door in self.doors]
        train = [f"train={plain(self.train)}"] if "train" in changed else []
        return f"{self.name}({'; '.join(inserts + doors + train)})" if changed else self.name

    def design(self, anatomy):
        return Design(self.inserts, self.train, self.doors)
