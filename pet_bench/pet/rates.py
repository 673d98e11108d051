"""Learning rates of their own: factors of the recipe's, by patterns over names of trained parameters."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping

from pet_bench.backbone.interface import Model
from pet_bench.errors import Faults
from pet_bench.pet.trained import trained_parameters


def factors(model: Model, rates: Mapping[str, float]) -> dict[str, float]:
    """Trained parameter → factor of its rate, 1 where no pattern matches.

    Raises UserError, with all faults together, for a pattern that matches nothing, for two that match the same
    parameter, and where nothing would train.
    """
    names, faults = list(trained_parameters(model)), Faults()
    chosen: dict[str, str] = {}
    for pattern in rates:
        matching = fnmatch.filter(names, pattern)
        if not matching:
            possible = ", ".join(dict.fromkeys(f"*.{name.rpartition('.')[2]}" for name in names))
            faults.add(f'recipe: rates: "{pattern}" matches no parameter that trains (possible: {possible})')
        for name in matching:
            if name in chosen:
                faults.add(f'recipe: rates: "{chosen[name]}" and "{pattern}" match the same parameter, {name}')
                break
            chosen[name] = pattern
    by_name = {name: rates[chosen[name]] if name in chosen else 1.0 for name in names}
    if names and not any(by_name.values()):
        faults.add("recipe: rates: nothing would train")
    faults.check()
    return by_name


def hold(model: Model, rates: Mapping[str, float]) -> None:
    """Let what has a rate of 0 stay as it starts; raises UserError as `factors` does."""
    for name, factor in factors(model, rates).items() if rates else ():
        if not factor:
            model.get_parameter(name).requires_grad_(False)
