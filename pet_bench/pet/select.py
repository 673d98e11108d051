"""Selectors: which of the backbone's own parameters train."""

from __future__ import annotations

import fnmatch

from pet_bench.backbone.anatomy import Anatomy
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


def beyond(selector: str, anatomy: Anatomy) -> bool:
    """Whether a selector means nothing since the projector, which alone it means, is not in the scope."""
    return selector == "visual" and "projector" in anatomy.stacks and "projector" not in anatomy.scope


def no_layers(anatomy: Anatomy) -> str | None:
    """Why a door at the layers of every adapted stack cannot be had in a scope, in a few words; None where it can."""
    return None if anatomy.adapted else f"the scope {', '.join(anatomy.scope)} has no layers"


def no_words(anatomy: Anatomy) -> str | None:
    """Likewise of a door at the layers that words pass through."""
    return None if "language" in anatomy.scope else f"the scope {', '.join(anatomy.scope)} has no layers of words"


def select(model: Model, selector: str) -> set[str]:
    """Names of the backbone's and the visual embedding's parameters that a selector means (see `Design`).

    Only those in the scope; where the projector is not in it, `visual` means none. Raises UserError where a selector
    matches none.
    """
    anatomy, every = model.anatomy, {name for name, _ in model.named_parameters() if not name.startswith("pet.")}
    names = {name for name in every if anatomy.part_of(name) in anatomy.scope}
    stacks = model.anatomy.stacks
    stack, _, kind = selector.rpartition(".")
    if selector == "all":
        chosen = names
    elif beyond(selector, anatomy):
        return set()
    elif selector == "visual":
        chosen = {name for name in names if "projector" in stacks and stacks["projector"].holds(name)}
    elif selector in selectors(model):
        inside = {name for name in names if (anatomy.stack_of(name) == stack if stack else name.startswith("lm."))}
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
