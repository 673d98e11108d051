"""The grammar of PET: what a method adds to a backbone, and what it trains.

Every modification hosted here is, at a site that reads X (B, T, d) and writes H (B, T, d),

    H' = s · G ⊙ (b · H + a · ΔH)        ΔH = f(H)  (sequential)   or   f(X)  (parallel),  G = g(X, Y, ΔH)

A method expands to a `Design`: inserts (sites, ΔH, gate, scale), doors for what does not fit the equation, and
selectors for what else trains.
"""

from pet_bench.backbone.model import Encoded, VisionLanguageModel
from pet_bench.backbone.ties import tied_modules
from pet_bench.pet.attach import attach, count, load_trained, merge, save_trained, trained_parameters
from pet_bench.pet.deltas import Bottleneck, FactorBottleneck, Identity, LowRank, PHMBottleneck, WeightDecomposed
from pet_bench.pet.design import Builder, Delta, Design, Door, Gate, Insert, Part, Place, ask_part, equation, part
from pet_bench.pet.doors import LowRankProjector, NoVision
from pet_bench.pet.frozen import FROZEN, frozen_tensors, load_frozen, save_frozen
from pet_bench.pet.gates import DeltaGate, LargeGate, MiddleXGate, SmallGate, VectorGate
from pet_bench.pet.method import Difference, Method, attach_method, build_method, default_spec, design_of

__all__ = [
    "FROZEN",
    "Bottleneck",
    "Builder",
    "Delta",
    "DeltaGate",
    "Design",
    "Difference",
    "Door",
    "Encoded",
    "FactorBottleneck",
    "Gate",
    "Identity",
    "Insert",
    "LargeGate",
    "LowRank",
    "LowRankProjector",
    "Method",
    "MiddleXGate",
    "NoVision",
    "PHMBottleneck",
    "Part",
    "Place",
    "SmallGate",
    "VectorGate",
    "VisionLanguageModel",
    "WeightDecomposed",
    "ask_part",
    "attach",
    "attach_method",
    "build_method",
    "count",
    "default_spec",
    "design_of",
    "equation",
    "frozen_tensors",
    "load_frozen",
    "load_trained",
    "merge",
    "part",
    "save_frozen",
    "save_trained",
    "tied_modules",
    "trained_parameters",
]
