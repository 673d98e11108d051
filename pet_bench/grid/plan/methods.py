"""The methods that an entry of a grid's list stands for: one, or one for each combination of what it sweeps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

from pet_bench.errors import Faults, UserError, shortened
from pet_bench.grid.plan.space import MOST
from pet_bench.registry import METHODS
from pet_bench.spec import MethodSpec, distinct


def listed_method(entry: Any) -> Any:
    """An entry of the list of methods, as it is; raises ValueError where it is none."""
    try:
        _swept(entry)
    except UserError as error:
        raise ValueError(str(error)) from None
    return entry


def methods_of(entry: Any, faults: Faults) -> Iterator[MethodSpec]:
    """The methods that an entry stands for; `faults` takes what is wrong with it."""
    with faults:
        method, sweep = _swept(entry)
        if method.name not in METHODS:
            METHODS.get(method.name)  # what cannot be imported, each of its trials says
        if (count := math.prod(map(len, sweep.values()))) > MOST:
            raise UserError(f"method {method.name}: its sweep makes {count:,} methods (possible: {MOST:,})")
        for values in product(*sweep.values()):
            yield method.changed(dict(zip(sweep, values, strict=True)))


def _swept(entry: Any) -> tuple[MethodSpec, dict[str, list[Any]]]:
    """A method as a grid lists it: the options that are set, and those of which it stands for every combination.

    Raises UserError where it is neither a name nor a mapping, and where the two do not fit.
    """
    given = {"sweep": {}, **entry} if isinstance(entry, dict) else {"sweep": {}}
    sweep = given.pop("sweep")
    method = MethodSpec.parse(given if isinstance(entry, dict) else entry)
    lists = isinstance(sweep, dict) and all(isinstance(values, list) and values for values in sweep.values())
    if not lists or (not sweep and isinstance(entry, dict) and "sweep" in entry):
        raise UserError(f"method {method.name}: sweep maps options to lists of values, found {shortened(repr(sweep))}")
    for option, values in sweep.items():
        if option in method.options or (option == "scope" and method.scope):
            raise UserError(f"method {method.name}: {option} is both set and swept")
        try:
            distinct(values)
        except ValueError as error:
            raise UserError(f"method {method.name}: sweep of {option}: {error}") from None
    return method, sweep
