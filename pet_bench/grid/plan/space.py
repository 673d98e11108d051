"""What a search varies: lists of values, every combination of which is tried, or ranges that values are drawn from.

A list of factors, `{times: [0.5, 1, 2]}`, is of the value that a trial has otherwise, its method's own rate say.

search:
  space:                            # recipe.KEY for every method, METHOD.OPTION and METHOD.recipe.KEY for one
    recipe.lr: [1e-4, 3e-4, 1e-3]
    prompt-tuning.recipe.lr: [3e-3, 3e-2]
    lora.rank: [4, 8, 16]
    lora.dropout: {uniform: [0, 0.3]}    # also log_uniform; int and log_int, their ends included
  samples: 8                        # random draws per method, backbone, suite and control; absent: every combination
  sample_seed: 0                    # of the draws
  seeds: [0]                        # of the trials; the grid's own seeds are for the final runs of what is best
  early_stopping: {grace_epochs: 2, reduction: 3}    # ASHA; absent: every trial trains to its end
  test: false                       # trials are tested on their validation splits: nothing of a test is seen
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from random import Random
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator
from pydantic.dataclasses import dataclass

from pet_bench.errors import Faults, UserError, shortened, unknown
from pet_bench.spec import STRICT, Count, Distinct, Recipe, Seed, distinct

MOST = 10_000  # trials of a grid
Seeds = Annotated[list[Seed], Field(min_length=1), Distinct]
Values = dict[str, Any]  # of what is searched: "recipe.lr" → 1e-3, and of the method's options "rank" → 8

# u in [0, 1) → a value between two ends
RANGES: dict[str, Callable[[float, Any, Any], float]] = {
    "uniform": lambda u, low, high: _rounded(low + u * (high - low), low, high),
    "log_uniform": lambda u, low, high: _rounded(low * (high / low) ** u, low, high),
    "int": lambda u, low, high: min(high, low + int(u * (high - low + 1))),
    "log_int": lambda u, low, high: min(high, int(low * ((high + 1) / low) ** u)),
}


def _rounded(value: float, low: float, high: float) -> float:
    """Four digits, so that labels stay readable."""
    return min(high, max(low, float(f"{value:.4g}")))


TIMES = "times"


def is_range(values: Any) -> bool:
    """Whether values are drawn; otherwise all that are listed are tried."""
    return isinstance(values, dict) and TIMES not in values


def _check_factors(values: dict[str, Any]) -> Any:
    factors = values[TIMES]
    if not isinstance(factors, list) or not factors or not all(type(f) in (int, float) and f > 0 for f in factors):
        raise ValueError(f"{TIMES} takes a list of factors above 0, found {shortened(repr(factors))}")
    distinct(factors)
    return values


def _check(values: Any) -> Any:
    """A list of values or a range, as a grid file has it."""
    if isinstance(values, list) and values:
        return distinct(values)
    if isinstance(values, dict) and [*values] == [TIMES]:
        return _check_factors(values)
    if not isinstance(values, dict) or len(values) != 1:
        given = shortened(repr(values))
        raise ValueError(f"expected a list of values or a range such as {{log_uniform: [1e-5, 1e-2]}}, found {given}")
    ((kind, ends),) = values.items()
    if kind not in RANGES:
        raise ValueError(str(unknown("range", kind, [*RANGES, TIMES])))
    whole, above = kind.endswith("int"), kind.startswith("log")
    pair = isinstance(ends, list) and [type(end) in (int, int if whole else float) for end in ends] == [True, True]
    if not pair or not ends[0] < ends[1] or (above and ends[0] <= 0):
        what = f"two {'whole ' if whole else ''}numbers{' above 0' if above else ''}, the smaller first"
        raise ValueError(f"{kind} takes {what}, found {shortened(repr(ends))}")
    return values


@dataclass(frozen=True, config=STRICT)
class EarlyStopping:
    """ASHA (Li et al., MLSys 2020): at the validations of epochs g, g·η, g·η², … a trial goes on only while its score
    is among the best 1/η of those that have got so far. grace_epochs g, reduction η."""

    grace_epochs: Count = 2
    reduction: Count = Field(default=3, ge=2)


@dataclass(frozen=True, config=STRICT)
class Search:
    """See the module's docstring."""

    space: dict[str, Annotated[Any, AfterValidator(_check)]] = Field(min_length=1)
    samples: Annotated[int, Field(ge=1, le=MOST)] | None = None
    sample_seed: Seed = 0
    seeds: Seeds = Field(default_factory=lambda: [0])
    early_stopping: EarlyStopping | None = None
    test: bool = True

    @model_validator(mode="after")
    def _consistent(self):
        ranges = [key for key, values in self.space.items() if is_range(values)]
        faults = [f'space key "{key}": expected recipe.KEY, METHOD.OPTION or METHOD.recipe.KEY'
                  for key in self.space if not all(key.partition("."))]  # fmt: skip
        if ranges and self.samples is None:
            faults.append(f"{', '.join(ranges)} is a range: say with samples how many draws there are")
        if self.early_stopping and len(self.seeds) > 1:
            faults.append(f"early_stopping compares trials of one seed, found seeds {self.seeds}")
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def check_methods(self, methods: set[str]) -> None:
        """Raises UserError for keys that are of none of these methods."""
        named = {key.partition(".")[0] for key in self.space} - {"recipe"}
        if foreign := sorted(named - methods):
            raise UserError.many(f"search: not in this grid: {unknown('method', name, methods)}" for name in foreign)

    def check_recipe(self, recipe: Recipe) -> None:
        """Raises UserError where a trial would never be validated, or never early enough to be stopped."""
        early, every = self.early_stopping, recipe.valid_every
        if not every and (self.test or early):
            raise UserError("search: recipe.valid_every is 0: nothing would be validated")
        if early and recipe.max_steps:
            raise UserError(f"search: early_stopping counts epochs, but recipe.max_steps is {recipe.max_steps}")
        if early and (first := -(-early.grace_epochs // every) * every) >= recipe.epochs:
            raise UserError(
                f"search: early_stopping could stop nothing: the first validation after grace_epochs "
                f"({early.grace_epochs}) is at epoch {first}, the last at epoch {recipe.epochs}"
            )

    def of(self, method: str) -> Values:
        """What is searched for a method; its own rate or other recipe value comes before that of all methods."""
        every = {key: values for key, values in self.space.items() if key.startswith("recipe.")}
        prefix = f"{method}."
        return every | {key.removeprefix(prefix): value for key, value in self.space.items() if key.startswith(prefix)}

    def ends(self, method: str) -> list[Values]:
        """Every listed value and both ends of every range, in as few combinations as hold them all."""
        space = {key: _listed(values) for key, values in self.of(method).items()}
        count = max(map(len, space.values()), default=1)
        return [{key: values[min(i, len(values) - 1)] for key, values in space.items()} for i in range(count)]

    def most(self, method: str) -> int:
        """Of how many candidates there are no more, without making them."""
        return self.samples or math.prod(len(_listed(values)) for values in self.of(method).values())

    def scaled(self, method: str, values: Values) -> Search:
        """This search for one method alone, its factors made into values. values: what a trial has otherwise, by key.

        Raises UserError for factors of what is no number.
        """
        space, faults = self.of(method), Faults()
        for key in filter(self.is_scaled(method).__contains__, space):
            if isinstance(base := values.get(key), int | float) and not isinstance(base, bool):
                space[key] = list(dict.fromkeys(_scaled(base, factor) for factor in space[key][TIMES]))
            else:
                faults.add(f"search: {key} has factors, but is no number of {method}: {shortened(repr(base))}")
        faults.check()
        return replace(self, space={f"{method}.{key}": values for key, values in space.items()})

    def is_scaled(self, method: str) -> set[str]:
        """What of a method has factors."""
        return {key for key, values in self.of(method).items() if isinstance(values, dict) and TIMES in values}

    def candidates(self, method: str, group: str) -> list[Values]:
        """All combinations or, of random ones, `samples` that differ, fewer where there are no more.

        Draws depend on sample_seed, `group` and the key alone: what else is searched, for what other methods, changes
        none of them, and more samples only add to them.
        """
        space = self.of(method)
        if self.samples is None:
            return [dict(zip(space, values, strict=True)) for values in product(*space.values())]
        streams = {key: Random(f"{self.sample_seed}/{group}/{key}") for key in space}
        drawn: dict[str, Values] = {}
        for _ in range(100 * self.samples):
            values = {key: _at(streams[key].random(), entry) for key, entry in space.items()}
            drawn.setdefault(repr(values), values)
            if len(drawn) == self.samples:
                break
        return list(drawn.values())


def _listed(values: list | dict[str, list]) -> list:
    """What is listed, or the ends of a range."""
    return next(iter(values.values())) if isinstance(values, dict) else values


def _scaled(value: float, factor: float) -> float:
    """Of whole numbers the nearest above 0; of others four digits."""
    return max(1, round(value * factor)) if isinstance(value, int) else float(f"{value * factor:.4g}")


def _at(u: float, values: list | dict[str, list]) -> Any:
    if isinstance(values, list):
        return values[int(u * len(values))]
    ((kind, (low, high)),) = values.items()
    return RANGES[kind](u, low, high)


def recipe_of(values: Values) -> dict[str, Any]:
    return {key.removeprefix("recipe."): value for key, value in values.items() if key.startswith("recipe.")}


def options_of(values: Values) -> dict[str, Any]:
    return {key: value for key, value in values.items() if not key.startswith("recipe.")}
