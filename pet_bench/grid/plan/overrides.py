"""What a grid changes of some of its trials: recipe values, options and protocol, and for which trials."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass as plain_dataclass
from dataclasses import field, fields
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic.dataclasses import dataclass

from pet_bench.errors import Faults, UserError, unknown
from pet_bench.spec import STRICT, Distinct, MethodSpec, Recipe, validate

Options = dict[str, Any]
Protocol = dict[str, Options]  # by task
Names = Annotated[list[str], Distinct, BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]


@dataclass(frozen=True, config=STRICT)
class When:
    """The trials an override is for: those that match every key given, by one of its names.

    A method that is listed with options can be named with them, as in "lora(rank=8)": not all of its kind then match.
    """

    method: Names | None = None
    backbone: Names | None = None
    suite: Names | None = None
    control: Names | None = None

    def names(self) -> dict[str, list[str]]:
        return {key: names for key, names in vars(self).items() if names is not None}

    def matches(self, method: MethodSpec, **trial: str) -> bool:
        own = {"method": {method.name, str(method)}, **{key: {name} for key, name in trial.items()}}
        return all(own[key].intersection(names) for key, names in self.names().items())


@dataclass(frozen=True, config=STRICT)
class Override:
    when: Options
    recipe: Options = field(default_factory=dict)
    options: Options = field(default_factory=dict)
    protocol: Protocol = field(default_factory=dict)


@plain_dataclass(frozen=True)
class Settings:
    """What a trial is given beside the defaults; `options` are the method's."""

    recipe: Options
    options: Options
    protocol: Protocol

    def changed(self, override: Override) -> Settings:
        protocol = dict(self.protocol)
        for task, changes in override.protocol.items():
            protocol[task] = protocol.get(task, {}) | changes
        return Settings(self.recipe | override.recipe, self.options | override.options, protocol)


class Overrides:
    """A grid's overrides by place, `overrides[0]`, those with faults left out, and which of them a trial has met."""

    def __init__(self, entries: Iterable[Options], present: dict[str, set[str]], faults: Faults):
        self.whens: dict[str, When] = {}
        self.changes: dict[str, Override] = {}
        self.used: set[str] = set()
        for index, entry in enumerate(entries):
            place = f"overrides[{index}]"
            with faults:
                override = validate(Override, entry, place)
                when = validate(When, override.when, f"{place}: when")
                _check_names(place, when, present)
                self.changes[place], self.whens[place] = override, when

    def applied(self, settings: Settings, method: MethodSpec, **trial: str) -> Settings:
        """The settings of a trial with what is changed for it, the later override winning."""
        for place, when in self.whens.items():
            if when.matches(method, **trial):
                self.used.add(place)
                settings = settings.changed(self.changes[place])
        return settings

    def check_used(self, faults: Faults) -> None:
        """An override that no trial has met is a fault."""
        for place in self.whens.keys() - self.used:
            faults.add(f"{place}: no trial matches when {self.changes[place].when}")


def _check_names(place: str, when: When, present: dict[str, set[str]]) -> None:
    """Raises UserError for names that the grid does not have."""
    foreign = [
        f"{place}: not in this grid: {unknown(kind, name, present[kind])}"
        for kind, names in when.names().items()
        for name in sorted(set(names) - present[kind])
    ]
    if foreign:
        raise UserError.many(foreign)


def check_protocol(where: str, protocol: Protocol, tasks: dict[str, set[str]], faults: Faults) -> None:
    """tasks: by suite; a task that none of them has is a fault."""
    possible: set[str] = set().union(*tasks.values())
    for task in protocol:
        if possible and task not in possible:
            faults.add(f"{where}: {unknown('task', task, possible)}")


def check_recipes(recipes: Iterable[Options], faults: Faults) -> None:
    """Unknown keys are faults, even where no trial can be resolved."""
    possible = [one.name for one in fields(Recipe)]
    for recipe in recipes:
        for key in recipe.keys() - set(possible):
            faults.add(unknown("recipe key", key, possible))
