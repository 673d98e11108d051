"""From a grid to its trials: every combination of its lists, resolved, those that a method cannot do left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from pet_bench.backbone.known import find_backbone
from pet_bench.data.reading import build_tasks
from pet_bench.data.suite import suite_by_name
from pet_bench.data.task import Task
from pet_bench.errors import Faults, UserError
from pet_bench.grid.plan.methods import methods_of
from pet_bench.grid.plan.overrides import Override, Overrides, Settings, check_protocol, check_recipes
from pet_bench.grid.plan.planned import Group, Plan, Planned, Skipped
from pet_bench.grid.plan.space import MOST, Search, Values, options_of, recipe_of
from pet_bench.pet.method import build_method, default_spec, why_skipped
from pet_bench.registry import ask
from pet_bench.spec import Control, Line, MethodSpec, TrialSpec, plain
from pet_bench.trial.resolve import check_selection, known, labelled, resolve

if TYPE_CHECKING:
    from pet_bench.grid.plan.spec import Grid


def expand(grid: Grid, lost: Faults | None = None) -> Plan:
    """Every trial of the grid and every pair that is left out; raises one UserError with all faults of the grid.

    lost: takes the failures of plug-ins' own code where there is nothing else, and other trials are left.
    """
    faults, plans = Faults(), []
    with faults:
        plans.append(_Product(grid).plan(lost))
    for index in range(len(grid.also)):
        with faults:
            plans.append(_Product(grid.part(index)).plan(lost))
    faults.check()
    plan = Plan.joined(plans)
    if not plan.planned:
        raise UserError.many([*(lost.found if lost else ()), *(f"{grid.name}: {one}" for one in plan.skipped)])
    return plan


@dataclass(frozen=True)
class _Place:
    """Where settings hold: a group, its method, and the seed that its trials are looked at with."""

    group: Group
    method: MethodSpec
    seed: int


class _Skips:
    """Which methods cannot be had on which backbones; each is asked once."""

    def __init__(self) -> None:
        self.asked: dict[tuple[str, str], Skipped | None] = {}

    def __call__(self, backbone: str, method: MethodSpec) -> bool:
        """Raises PluginError where the method fails when it is asked."""
        key = backbone, repr((method.name, method.options, method.scope))
        if key not in self.asked:
            self.asked[key] = _skipped(backbone, method)
        return self.asked[key] is not None

    @property
    def skipped(self) -> list[Skipped]:
        return [one for one in self.asked.values() if one]


def _skipped(backbone: str, method: MethodSpec) -> Skipped | None:
    """By the label that its trials would have; None where it can be had."""
    try:
        shape = known(backbone)[1].scoped(method.scope)
        built = build_method(method, shape)
    except UserError:  # which resolving the trial says
        return None
    reason = why_skipped(built, shape)
    if reason is None:
        return None
    defaults = default_spec(build_method(MethodSpec(method.name), shape)).options
    changed = {key: value for key, value in default_spec(built).options.items() if value != defaults.get(key)}
    return Skipped(backbone, labelled(ask(built, "label", changed, returns=Line), method), reason)


def held_out(settings: Settings, tasks: list[Task], search: Search) -> Settings:
    """The settings of a search's trial that is tested on its validation splits alone.

    Raises UserError where a task has none.
    """
    if lacking := [task.name for task in tasks if not task.valid]:
        raise UserError.many(f"search: test is false, but {name} has no validation split" for name in lacking)
    protocol = {task.name: settings.protocol.get(task.name, {}) | {"test": task.valid} for task in tasks}
    recipe = settings.recipe if search.early_stopping else settings.recipe | {"valid_every": 0}
    return replace(settings, protocol=settings.protocol | protocol, recipe=recipe)


class _Product:
    """A grid without its `also`, and what is wrong with it."""

    def __init__(self, grid: Grid):
        self.grid, self.faults = grid, Faults()
        self.methods = [method for entry in grid.methods for method in methods_of(entry, self.faults)]
        self.suites = self._known(grid.suites, suite_by_name)
        self.backbones = self._known(grid.backbones, find_backbone)
        self.tasks = {suite: set(suite_by_name(suite).tasks) for suite in self.suites}
        present: dict[str, set[str]] = {
            "method": {name for method in self.methods for name in (method.name, str(method))},
            "backbone": set(self.backbones), "suite": set(self.suites), "control": {*grid.controls},
        }  # fmt: skip
        self.overrides = Overrides(grid.overrides, present, self.faults)
        self.skips = _Skips()

    def _known(self, names: list[str], find: Callable[[str], Any]) -> list[str]:
        """The names that `find` finds."""
        there = []
        for name in names:
            with self.faults:
                find(name)
                there.append(name)
        return there

    def plan(self, lost: Faults | None) -> Plan:
        """Raises UserError for all faults; `lost` takes those of plug-ins' own code where there are no others."""
        self._check()
        planned = [one for control in self.grid.controls for one in self._seeded(control)]
        if planned:
            self.overrides.check_used(self.faults)
        self.faults.check(lost)
        return Plan(tuple(planned), tuple(self.skips.skipped))

    def _check(self) -> None:
        """What is wrong with the grid as a whole; raises UserError where it is too large to be looked at further."""
        grid, changes = self.grid, self.overrides.changes
        check_protocol("protocol", grid.protocol, self.tasks, self.faults)
        for place, override in changes.items():
            check_protocol(f"{place}: protocol", override.protocol, self.tasks, self.faults)
        check_recipes((grid.recipe, *(override.recipe for override in changes.values())), self.faults)
        if grid.search and not grid.tuning:
            with self.faults:
                grid.search.check_methods({method.name for method in self.methods})
        tried = sum(grid.search.most(method.name) if grid.search else 1 for method in self.methods)
        count = sum(map(len, map(grid.seeds_of, grid.controls))) * len(self.suites) * len(self.backbones) * tried
        if count > MOST:
            self.faults.add(f"{grid.name}: {count:,} trials (possible: {MOST:,})")
            self.faults.check()

    def _seeded(self, control: Control) -> Iterator[Planned]:
        """A control's trials, all of one seed before those of the next."""
        seeds = self.grid.seeds_of(control)
        alike: dict[str, Planned] = {}
        for planned in self._of_seed(control, seeds[0]):
            if planned.trial.id in alike:
                self.faults.add(f"trial {planned.trial} is listed twice")
            alike[planned.trial.id] = planned
        for seed in seeds:
            for planned in alike.values():
                yield replace(planned, trial=planned.trial.seeded(seed))

    def _of_seed(self, control: Control, seed: int) -> Iterator[Planned]:
        tuning = self.grid.tuning
        for suite, backbone, method in product(self.suites, self.backbones, self.methods):
            place = _Place(Group(backbone, str(method), suite, control), method, seed)
            settings = Settings(dict(self.grid.recipe), dict(method.options), dict(self.grid.protocol))
            settings = self.overrides.applied(settings, method, backbone=backbone, suite=suite, control=control)
            settings = replace(
                settings, protocol={task: it for task, it in settings.protocol.items() if task in self.tasks[suite]}
            )
            yield from self._tried(place, settings, tuning.values(place.group) if tuning else {})

    def _tried(self, place: _Place, settings: Settings, chosen: Values) -> Iterator[Planned]:
        """The trial of a place, or all that a search tries there, but for those that are left out.

        chosen: what tuning has chosen there, which the label of a trial of the table does not show.
        """
        search, own = self.grid.search, settings
        settings = settings.changed(Override({}, recipe_of(chosen), options_of(chosen)))
        tried = self._candidates(search, place, settings) if search else [{}]
        if search and tried and not search.test:
            settings = held_out(settings, self._tasks(place, settings), search)
        for values in tried:
            with self.faults:
                if trial := self._trial(place, settings, values):
                    if options_of(chosen) and not search and (untuned := self._trial(place, own, {})):
                        trial = replace(trial, label=untuned.label)
                    yield Planned(trial, place.group, values)

    def _candidates(self, search: Search, place: _Place, settings: Settings) -> list[Values]:
        """Nothing where what bounds the search's space has faults, lest every draw repeat them."""
        faults, name = Faults(), place.method.name
        given = {f"recipe.{key}" for key in settings.recipe} | settings.options.keys()
        for key in filter((given - search.is_scaled(name)).__contains__, search.of(name)):
            faults.add(f"search: {key} is both set and searched for method {place.group.method}")
        with faults:
            check_selection(self._tasks(place, settings), "search: the best is chosen by validation")
        scaled = None
        with faults:
            scaled = self._scaled(search, place, settings)
        if scaled is None:
            for fault in faults.found:
                self.faults.add(fault)
            return []
        search = scaled
        for values in search.ends(place.method.name):
            with faults:
                if trial := self._trial(place, settings, values):
                    search.check_recipe(trial.recipe)
        with faults:
            if not search.test:
                held_out(settings, self._tasks(place, settings), search)
        for fault in faults.found:
            self.faults.add(fault)
        return [] if faults.found else search.candidates(place.method.name, str(place.group))

    def _tasks(self, place: _Place, settings: Settings) -> list[Task]:
        return build_tasks(suite_by_name(place.group.suite).tasks, settings.protocol)

    def _scaled(self, search: Search, place: _Place, settings: Settings) -> Search | None:
        """The search with factors made into values; None where its method cannot be had."""
        if not search.is_scaled(place.method.name):
            return search
        if (trial := self._trial(place, settings, {})) is None:
            return None
        options = default_spec(build_method(trial.method, known(trial.backbone)[1])).options
        return search.scaled(place.method.name, options | {f"recipe.{k}": v for k, v in vars(trial.recipe).items()})

    def _trial(self, place: _Place, settings: Settings, values: Values) -> TrialSpec | None:
        """The trial with these values, which its label shows; None where its method cannot be had on its backbone."""
        method = place.method.changed(settings.options | options_of(values))
        if self.skips(place.group.backbone, method):
            return None
        changed = recipe_of(values)
        trial = resolve(
            place.group.backbone, method, place.group.suite, place.seed,
            control=place.group.control, recipe=settings.recipe | changed, protocol=settings.protocol,
        )  # fmt: skip
        if not changed:
            return trial
        shown = ", ".join(f"{key}={plain(value)}" for key, value in changed.items())
        name = trial.label
        return replace(trial, label=f"{name[:-1]}, {shown})" if name.endswith(")") else f"{name}({shown})")
