"""The grammar of PET: what a method adds to a backbone, and what it trains.

Every modification hosted here is, at a site that reads X (B, T, d) and writes H (B, T, d),

    H' = s · G(X, H + ΔH) ⊙ (H + ΔH)        ΔH = f(H)  (sequential)   or   f(X)  (parallel)

A method expands to a `Design`: inserts (sites, ΔH, gate, scale) and selectors for what else trains.
"""

from pet_bench.pet.attach import attach, count, load_trained, save_trained, trained_parameters
from pet_bench.pet.deltas import Bottleneck, Delta, LowRank
from pet_bench.pet.design import Design, Insert, Place
from pet_bench.pet.gates import Gate, LargeGate, MiddleXGate, MiddleYGate, SmallGate
from pet_bench.pet.method import Method, build_method, default_spec

__all__ = [
    "Bottleneck",
    "Delta",
    "Design",
    "Gate",
    "Insert",
    "LargeGate",
    "LowRank",
    "Method",
    "MiddleXGate",
    "MiddleYGate",
    "Place",
    "SmallGate",
    "attach",
    "build_method",
    "count",
    "default_spec",
    "load_trained",
    "save_trained",
    "trained_parameters",
]
