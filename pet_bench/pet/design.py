"""A design: a PET method spelled out as data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pet_bench.backbone.families import FAMILY


@dataclass(frozen=True)
class Place:
    """Where an insert is built: the backbone family and the widths of X and H at the site."""

    family: str
    d_x: int
    d_h: int

    def linear(self, d_in: int, d_out: int, *, zero: bool = False) -> nn.Linear:
        """A new linear layer, initialised as the family's published runs do, or weight and bias 0."""
        linear = nn.Linear(d_in, d_out)
        if zero:
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        else:
            FAMILY[self.family].init_linear(linear)
        return linear

    def vector(self, width: int, *, zero: bool = False) -> nn.Parameter:
        """A new vector ~ N(0, 0.02²), or 0."""
        vector = nn.Parameter(torch.zeros(width))
        if not zero:
            nn.init.normal_(vector, std=0.02)
        return vector


class Delta(ABC):
    """ΔH: a frozen dataclass of sizes that builds a module f with f(x) (…, d_in) → (…, d_h)."""

    formula: str

    @abstractmethod
    def build(self, place: Place, d_in: int) -> nn.Module: ...


class Gate(ABC):
    """G: a frozen dataclass that builds a module g with g(X, H + ΔH) → a tensor that broadcasts over (B, T, d)."""

    formula: str

    @abstractmethod
    def build(self, place: Place) -> nn.Module: ...


@dataclass(frozen=True)
class Insert:
    """One modification at each of the named sites, in every layer.

    reads: "output" makes ΔH = f(H) (sequential), "input" ΔH = f(X) (parallel). scale: s, on the whole result.
    """

    sites: tuple[str, ...]
    delta: Delta | None = None
    reads: Literal["output", "input"] = "output"
    gate: Gate | None = None
    scale: float = 1.0

    @property
    def formula(self) -> str:
        """The equation of this insert, ΔH and G filled in."""
        scale = f"{self.scale:g} · " if self.scale != 1 else ""
        gate = "G ⊙ " if self.gate else ""
        total = "H + ΔH" if self.delta else "H"
        terms = [f"H' = {scale}{gate}({total})" if scale or gate else f"H' = {total}"]
        if self.delta:
            terms.append(f"ΔH = {self.delta.formula.format(x='X' if self.reads == 'input' else 'H')}")
        if self.gate:
            terms.append(f"G = {self.gate.formula}")
        return ",  ".join(terms)


@dataclass(frozen=True)
class Design:
    """What a method adds (`inserts`, always trained) and what else trains (`train`).

    A selector in `train` is one of `all`, `visual` (the visual embedding), `norms`, `biases`, the last two also as
    `encoder.norms`, `decoder.biases` …, or a pattern over parameter names (`lm.*.fc1.weight`). A site or a selector
    that matches nothing is an error.
    """

    inserts: tuple[Insert, ...] = ()
    train: tuple[str, ...] = ("visual",)


class Inserted(nn.Module):
    """An insert at one site of one layer."""

    def __init__(self, insert: Insert, place: Place):
        super().__init__()
        self.insert = insert
        d_in = place.d_x if insert.reads == "input" else place.d_h
        self.delta = insert.delta.build(place, d_in) if insert.delta else None
        self.gate = insert.gate.build(place) if insert.gate else None

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """X (B, T, d_x), H (B, T, d_h) → H' (B, T, d_h)."""
        if self.delta is not None:
            h = h + self.delta(x if self.insert.reads == "input" else h)
        if self.gate is not None:
            h = self.gate(x, h) * h
        return h if self.insert.scale == 1 else self.insert.scale * h
