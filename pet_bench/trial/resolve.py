"""From names and overrides to a trial with every value filled in."""

from __future__ import annotations

from dataclasses import fields
from functools import lru_cache
from typing import Any

from pet_bench.backbone.anatomy import Anatomy
from pet_bench.backbone.known import Backbone, find_backbone
from pet_bench.data.reading import build_tasks
from pet_bench.data.suite import suite_by_name
from pet_bench.data.task import Task, overlap
from pet_bench.errors import Faults, UserError, unknown
from pet_bench.identity import normal
from pet_bench.pet.method import Method, Rate, build_method, default_spec
from pet_bench.registry import METHODS, ask
from pet_bench.spec import Control, Line, MethodSpec, Recipe, TrialSpec, validate


@lru_cache
def known(backbone: str) -> tuple[Backbone, Anatomy]:
    """A backbone by name, and its anatomy; its configuration is read once."""
    source = find_backbone(backbone)
    return source, source.anatomy


def labelled(name: str, method: MethodSpec) -> str:
    """How tables call a method with the scope that was given to it: `lora [vision]`."""
    return f"{name} [{', '.join(method.scope)}]" if method.scope else name


def check_selection(tasks: list[Task], what: str = "recipe: selection is best") -> None:
    """Raises UserError where choosing the best model by validation would choose by what is tested or trained on.

    what: the part of the message that says who chooses.
    """
    faults = Faults()
    for task in tasks:
        shared = [(split, name) for split in ("train", "test") if (name := overlap(task.valid, getattr(task, split)))]
        last = task.names("train")[-1]
        remedy = f'hold something out, as with {task.name}.train="{last}[:95%]" and {task.name}.valid="{last}[95%:]"'
        for split, name in shared:
            where = f'{task.name} has "{name}" in its valid and in its {split} split'
            faults.add(f"{what}, but {where}: {remedy}, or {task.name}.valid=none")
    if not any(task.valid for task in tasks):
        faults.add(f"{what}, but no task has a validation split")
    faults.check()


def _recipe(backbone: Backbone, anatomy: Anatomy, method: Method, values: dict[str, Any]) -> Recipe:
    """Every recipe value, `values` winning; raises UserError for what is out of range, and for want of a rate."""
    rate = ask(method, "learning_rate", anatomy, returns=Rate | None)
    if rate is None and "lr" not in values:
        raise UserError(
            f'recipe: lr is missing: method "{method.name}" has no published learning rate for {backbone.name}; '
            "give one with --set recipe.lr=1e-3, or in a grid file as recipe: {lr: 1e-3}"
        )
    given = backbone.recipe_values | method.recipe | ({} if rate is None else {"lr": rate})
    return validate(Recipe, given | values, "recipe")


def resolve(
    backbone: str,
    method: MethodSpec,
    suite: str,
    seed: int,
    *,
    control: Control = "none",
    recipe: dict[str, Any] | None = None,
    protocol: dict[str, dict[str, Any]] | None = None,
) -> TrialSpec:
    """The resolved trial. Recipe values come, the later winning, from the published defaults, the backbone, the
    method, the suite and `recipe`; method options from the method's defaults on the backbone and the spec. Where the
    method has no task prompts in this suite, the prompt of every task for which `protocol` gives none is empty.

    Raises UserError, with all faults together, for unknown names, options and recipe keys, values out of range, and
    a learning rate that neither the method nor the recipe gives. Reads no weights and no data.
    """
    faults, recipe, protocol, scope = Faults(), recipe or {}, protocol or {}, method.scope
    source = anatomy = chosen = tasks = built = full = None
    with faults:
        source, anatomy = known(backbone)
    with faults:
        chosen = suite_by_name(suite)
        for task in protocol.keys() - set(chosen.tasks):
            faults.add(unknown("task in protocol", task, chosen.tasks))
        with faults:
            tasks = build_tasks(chosen.tasks, protocol)
            if recipe.get("selection") == "best":
                check_selection(tasks)
    with faults:
        METHODS.get(method.name)
        if anatomy:
            scope = None if scope == anatomy.scope else scope  # named or not, it is the same trial
            anatomy = anatomy.scoped(scope)
            built = build_method(method, anatomy, suite)
    if source and anatomy and built:
        with faults:
            full = _recipe(source, anatomy, built, (chosen.recipe if chosen else {}) | recipe)
    else:
        for key in recipe.keys() - {field.name for field in fields(Recipe)}:
            faults.add(unknown("recipe key", key, [field.name for field in fields(Recipe)]))
    faults.check()
    assert anatomy and chosen and tasks is not None and built and full  # else there was a fault

    if not ask(built, "has_prompts", suite, returns=bool):
        protocol = {task: {"prompt": ""} | protocol.get(task, {}) for task in chosen.tasks}
    by_name = {task.name: task for task in tasks}
    protocol = {task: normal(by_name[task], options) for task, options in protocol.items()}
    resolved = default_spec(built)
    defaults = default_spec(build_method(MethodSpec(method.name), anatomy, suite)) if method.options else resolved
    changed = {key: value for key, value in resolved.options.items() if value != defaults.options[key]}
    return TrialSpec(
        backbone=backbone,
        method=MethodSpec(resolved.name, normal(built, resolved.options), scope),
        suite=suite,
        tasks=chosen.tasks,
        visual=chosen.visual,
        seed=seed,
        recipe=full,
        control=control,
        protocol={task: options for task, options in protocol.items() if options},
        label=labelled(ask(built, "label", changed, returns=Line), method),
    )
