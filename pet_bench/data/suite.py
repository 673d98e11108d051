"""Suites: sets of tasks that are trained jointly on the same kind of features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pet_bench.errors import UserError, unknown
from pet_bench.registry import SUITES, TASKS, attribute_faults
from pet_bench.spec import Recipe, Visual


@dataclass(frozen=True)
class Suite:
    """tasks: names, in the order that joint training lists them. visual: shape of the features.

    recipe: what the suite changes of the backbone's recipe. embedded: makes data that comes with the package, if need
    be, and returns its root; None where the user has to have the data. extractor: makes the features of a picture,
    (tokens, width), of its file, for questions of people's own; None where they have to give features.
    """

    plugin_kind: ClassVar[str] = "suite"
    name: str
    tasks: tuple[str, ...]
    visual: Visual
    recipe: dict[str, Any] = field(default_factory=dict)
    embedded: Callable[[], Path] | None = None
    extractor: Callable[[Path], np.ndarray] | None = None


ATTRIBUTES = {
    "tasks": tuple[str, ...],
    "visual": Visual,
    "recipe": dict[str, Any],
    "embedded": Callable[[], Path] | None,
    "extractor": Callable[[Path], np.ndarray] | None,
}


def faults(plugin: Any) -> Iterator[str]:
    """What keeps an object from being a suite, a line each."""
    if not isinstance(plugin, Suite):
        yield "it is no pet_bench.data.suite.Suite"
        return
    yield from (odd := list(attribute_faults(plugin, ATTRIBUTES)))
    if not odd and (not plugin.tasks or len(set(plugin.tasks)) < len(plugin.tasks)):
        yield f"its tasks are {', '.join(plugin.tasks) or 'none'}, expected one at least, each once"
    if not odd and (unknown_keys := plugin.recipe.keys() - {f.name for f in fields(Recipe)}):
        yield f"recipe has no {', '.join(unknown_keys)}"


def suite_by_name(name: str) -> Suite:
    """`image-text`; `image-text/vqa+gqa` for some of its tasks, in any order; `vqa` for a suite of one.

    A lone task takes visual features, recipe and data from the first suite, in the alphabet, that has user data and
    lists it, or else from any that lists it. Raises UserError for an unknown suite, task or combination.
    """
    base, slash, part = name.partition("/")
    if slash and not part:
        raise UserError(f'suite "{name}" names no task after its slash')
    if base in SUITES:
        suite = SUITES.get(base)
        if not part:
            return suite
        chosen = part.split("+")
        foreign = [task for task in chosen if task not in suite.tasks]
        if twice := {task for task in chosen if chosen.count(task) > 1}:
            raise UserError(f'suite "{name}": {", ".join(sorted(twice))} is listed twice')
        if foreign:
            raise UserError.many(unknown(f"task of suite {base}", task, suite.tasks) for task in foreign)
        tasks = tuple(task for task in suite.tasks if task in chosen)
        return suite if tasks == suite.tasks else replace(suite, name=f"{base}/{'+'.join(tasks)}", tasks=tasks)
    if base in TASKS and not part:
        homes = sorted((suite for suite in SUITES if base in suite.tasks), key=lambda suite: suite.embedded is not None)
        if not homes:
            raise UserError(f'task "{base}" is in no suite, so the shape of its features is unknown')
        return replace(homes[0], name=name, tasks=(base,))
    raise unknown("suite or task", base, {*SUITES.names(), *TASKS.names()})
