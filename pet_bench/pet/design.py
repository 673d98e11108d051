"""A design: a PET method spelled out as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass as checked

from pet_bench.errors import UserError
from pet_bench.identity import Since
from pet_bench.pet.parts import ADelta, ADoor, AGate, Part, equation
from pet_bench.spec import STRICT, Distinct, Names

Layers = Annotated[tuple[int, ...], Distinct, Field(min_length=1)]


@checked(frozen=True, config=STRICT)
class Insert:
    """One modification at each of the named sites, in every layer:

        H' = s · G ⊙ (b · H + a · ΔH),    ΔH = f(H) or f(X)

    reads: "output" makes ΔH = f(H) (sequential), "input" ΔH = f(X) (parallel). adds_to: "input" puts X in the place
    of H, so that the stock module's own output is dropped. delta_scale, base_scale, scale: a, b and s. gating: what G
    does, "multiply" the sum, "add" to it, or multiply the "base" H alone. norm: a layer norm, or x / max(‖x‖, 1e-12)
    ("l2"), over d, after the gate. layers: those that have it, counted from 0, or from -1 at the top down; None: all.
    """

    sites: Names = Field(min_length=1)
    delta: ADelta | None = None
    reads: Literal["output", "input"] = "output"
    gate: AGate | None = None
    scale: float = 1.0
    gating: Literal["multiply", "add", "base"] = "multiply"
    delta_scale: float = 1.0
    base_scale: float = 1.0
    adds_to: Literal["output", "input"] = "output"
    norm: Literal["layer", "l2"] | None = None
    layers: Annotated[Layers | None, Since(2, neutral=None)] = None

    def layers_of(self, stack: str, count: int) -> list[int]:
        """Which of a stack's layers have it; raises UserError for one that there is not."""
        if odd := [layer for layer in self.layers or () if not -count <= layer < count]:
            raise UserError(f"layers: {stack} has no layer {odd[0]} (possible: {-count} to {count - 1})")
        return [i for i in range(count) if self.layers is None or i in self.layers or i - count in self.layers]

    @property
    def formula(self) -> str:
        """The equation of this insert, ΔH and G filled in."""
        base = _times(self.base_scale, "X" if self.adds_to == "input" else "H")
        delta = _times(self.delta_scale, "ΔH")
        if self.gate and self.gating == "base":
            base = f"G ⊙ {base}"
        total = f"{base} + {delta}" if self.delta else base
        if self.gate and self.gating == "add":
            total += " + G"
        many = " + " in total
        if self.gate and self.gating == "multiply":
            total = f"G ⊙ ({total})" if many else f"G ⊙ {total}"
        if self.norm:
            total = f"{'LayerNorm' if self.norm == 'layer' else 'L2'}({total})"
        elif self.scale != 1 and many and not total.startswith("G ⊙ ("):
            total = f"({total})"
        terms = [f"H' = {_times(self.scale, total)}"]
        if self.delta:
            terms.append(f"ΔH = {equation(self.delta, x='X' if self.reads == 'input' else 'H')}")
        if self.gate:
            terms.append(f"G = {equation(self.gate)}")
        if self.layers is not None:
            terms.append(f"in layers {', '.join(map(str, self.layers))}")
        return ",  ".join(terms)


def _times(factor: float, term: str) -> str:
    return term if factor == 1 else f"{factor:g} · {term}"


@checked(frozen=True, config=STRICT)
class Design:
    """What a method adds (`inserts` and `doors`, always trained) and what else trains (`train`).

    A selector in `train` is one of `all`, `visual` (the visual embedding), `norms`, `biases`, the last two also as
    `encoder.norms`, `decoder.biases` …, or a pattern over parameter names (`lm.*.fc1.weight`). A site or a selector
    that matches nothing is an error.
    """

    inserts: tuple[Insert, ...] = ()
    train: Names = ("visual",)
    doors: tuple[ADoor, ...] = field(default=())

    def parts(self) -> Iterator[Part]:
        """Every delta, gate and door."""
        yield from (part for insert in self.inserts for part in (insert.delta, insert.gate) if part)
        yield from self.doors
