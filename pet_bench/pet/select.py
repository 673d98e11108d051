"""Selectors: which of the backbone's own parameters train."""

from __future__ import annotations

import fnmatch

from pet_bench.backbone.interface import Model
from pet_bench.errors import UserError

KINDS = ("norms", "biases")


def selectors(model: Model) -> list[str]:
    """The selectors that are words: `norms`, `encoder.norms` …"""
    return [
        "all",
        "visual",
        *(f"{stack}{kind}" for kind in KINDS for stack in ("", *(f"{stack}." for stack in model.anatomy.stacks))),
    ]


def select(model: Model, selector: str) -> set[str]:
    """Names of the backbone's and the visual embedding's parameters that a selector means (see `Design`).

    Raises UserError where it matches none.
    """
    names = {name for name, _ in model.named_parameters() if not name.startswith("pet.")}
    stacks = model.anatomy.stacks
    stack, _, kind = selector.rpartition(".")
    if selector == "all":
        chosen = names
    elif selector == "visual":
        chosen = _below(names, stacks["projector"].path) if "projector" in stacks else set()
    elif selector in selectors(model):
        inside = _below(names, stacks[stack].path if stack else "lm")
        if kind == "biases":
            chosen = {name for name in inside if name.endswith(".bias")}
        else:
            norms = {path for path, module in model.named_modules() if type(module).__name__.endswith("Norm")}
            chosen = {name for name in inside if name.rpartition(".")[0] in norms}
    else:
        chosen = set(fnmatch.filter(names, selector))
    if not chosen:
        raise UserError(
            f'selector "{selector}" matches no parameter of {model.anatomy.backbone} '
            f"(possible: {', '.join(selectors(model))}, or a pattern over parameter names)"
        )
    return chosen


def _below(names: set[str], path: str) -> set[str]:
    return {name for name in names if name.startswith(f"{path}.")}
