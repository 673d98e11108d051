"""The grammar of PET: what a method adds to a backbone, and what it trains.

Every modification hosted here is, at a site that reads X (B, T, d) and writes H (B, T, d),

    H' = s · G ⊙ (b · H + a · ΔH)        ΔH = f(H)  (sequential)   or   f(X)  (parallel),  G = g(X, Y, ΔH)

A method expands to a `Design`: inserts (sites, ΔH, gate, scale), doors for what does not fit the equation, and
selectors for what else trains.
"""

from pet_bench.backbone.anatomy import Anatomy
from pet_bench.backbone.interface import Model
from pet_bench.backbone.ties import tied_modules
from pet_bench.pet.attach import attach
from pet_bench.pet.attention import Attend, Call, edit_attention
from pet_bench.pet.build import Builder, Place
from pet_bench.pet.deltas import (
    Bottleneck,
    FactorBottleneck,
    Identity,
    LowRank,
    Offset,
    PHMBottleneck,
    WeightDecomposed,
)
from pet_bench.pet.design import Design, Insert
from pet_bench.pet.doors import LowRankProjector, NoVision
from pet_bench.pet.frozen import FROZEN, frozen_tensors, load_frozen, save_frozen
from pet_bench.pet.gates import DeltaGate, LargeGate, MiddleXGate, SmallGate, VectorGate
from pet_bench.pet.large import attach_frozen, autocast
from pet_bench.pet.merge import merge
from pet_bench.pet.method import (
    Difference,
    Method,
    attach_method,
    build_method,
    default_spec,
    design_of,
    why_skipped,
)
from pet_bench.pet.parts import ADelta, ADoor, AGate, Delta, Door, Gate, Part, ask_part, equation
from pet_bench.pet.trained import count, load_trained, save_trained, trained_parameters

__all__ = [
    "FROZEN",
    "ADelta",
    "ADoor",
    "AGate",
    "Anatomy",
    "Attend",
    "Bottleneck",
    "Builder",
    "Call",
    "Delta",
    "DeltaGate",
    "Design",
    "Difference",
    "Door",
    "FactorBottleneck",
    "Gate",
    "Identity",
    "Insert",
    "LargeGate",
    "LowRank",
    "LowRankProjector",
    "Method",
    "MiddleXGate",
    "Model",
    "NoVision",
    "Offset",
    "PHMBottleneck",
    "Part",
    "Place",
    "SmallGate",
    "VectorGate",
    "WeightDecomposed",
    "ask_part",
    "attach",
    "attach_frozen",
    "attach_method",
    "autocast",
    "build_method",
    "count",
    "default_spec",
    "design_of",
    "edit_attention",
    "equation",
    "frozen_tensors",
    "load_frozen",
    "load_trained",
    "merge",
    "save_frozen",
    "save_trained",
    "tied_modules",
    "trained_parameters",
    "why_skipped",
]
