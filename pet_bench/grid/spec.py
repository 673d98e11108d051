"""A grid file: which trials there are.

name: demo
suites: [mini-image-text]
backbones: [mini-bart]
methods:
  - full
  - {name: lora, rank: 8}                        # an option; a list is one value, never a sweep
  - {name: lora, sweep: {rank: [4, 16]}}         # one method per value (per combination, of several options)
seeds: [0, 1]
controls: {none: {}, text-only: {seeds: [0]}}    # also noise; or a list; seeds default to the grid's
recipe: {epochs: 5}
protocol: {nlvr2: {test: dev}}                   # per task, what differs from the published set-up
overrides:                                       # later ones win
  - when: {method: [lora, vl-adapter], control: none}
    recipe: {lr: 1e-3}
    options: {rank: 4}
also:                                            # more trials, not of the product above: grids of the same keys
  - {suites: [mini-image-text], backbones: [mini-t5], methods: [lora]}
resources: {cpus: 1, gpus: 0, max_concurrent: 2} # cpus and gpus are per trial; also order, reuse_workers, retries
out: results/demo

With a `search` (see `pet_bench.grid.space`), the trials are those of the search, and `seeds` are for later: for the
final runs of what it finds best.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import field, fields, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, field_validator
from pydantic.dataclasses import dataclass

from pet_bench.backbone.known import find_backbone
from pet_bench.data.reading import build_tasks
from pet_bench.data.suite import suite_by_name
from pet_bench.errors import Faults, UserError, shortened, unknown
from pet_bench.files import dump_yaml, is_file, is_folder, nameable, read_yaml
from pet_bench.grid.space import MOST, Search, Seeds, Values, options_of, recipe_of
from pet_bench.registry import METHODS
from pet_bench.spec import STRICT, Control, Distinct, MethodSpec, Recipe, TrialSpec, distinct, plain, validate
from pet_bench.trial.resolve import check_selection, resolve

SHIPPED = Path(__file__).parent / "grids"
ADHOC = "adhoc"  # the name of a grid that the command line's flags make
PART = {"suites", "backbones", "methods", "seeds", "controls", "recipe", "protocol", "overrides"}  # keys below `also`
Options = dict[str, Any]
Names = Annotated[list[str], Distinct, BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
Listed = Annotated[list[str], Field(min_length=1), Distinct]


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
        found = {"method": {method.name, str(method)}, **{key: {name} for key, name in trial.items()}}
        return all(found[key].intersection(names) for key, names in self.names().items())


@dataclass(frozen=True, config=STRICT)
class Override:
    when: Options
    recipe: Options = field(default_factory=dict)
    options: Options = field(default_factory=dict)
    protocol: dict[str, Options] = field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class Resources:
    """cpus, gpus: of one trial, fractions allowed (gpus None: one if there are any). max_concurrent None: as many as
    fit. A trial gets as many torch threads as it has whole cpus, one at least.

    order: which trials start first, those of the first seed, so that a table fills evenly, the cheapest or as listed.
    reuse_workers: whether a process runs one trial after another; by default each trial has a fresh one. retries: how
    often a trial starts again whose process died.
    """

    cpus: float = Field(default=1.0, ge=0.01, le=10_000)
    gpus: Annotated[float, Field(ge=0, le=1_000)] | None = None
    max_concurrent: Annotated[int, Field(ge=1, le=MOST)] | None = None
    order: Literal["seed", "cheapest", "listed"] = "seed"
    reuse_workers: bool = False
    retries: int = Field(default=2, ge=0, le=1_000)

    @field_validator("gpus")
    @classmethod
    def _whole_or_shared(cls, gpus):
        if gpus and (gpus < 0.01 or (gpus > 1 and gpus != int(gpus))):
            raise ValueError(f"GPUs of a trial are a fraction of one, 0.01 at least, or a whole number; found {gpus:g}")
        return gpus


@dataclass(frozen=True, config=STRICT)
class ControlSeeds:
    seeds: Seeds | None = None


@dataclass(frozen=True)
class Group:
    """What a search chooses the best for, each by itself. method: as the grid lists it, with its options."""

    backbone: str
    method: str
    suite: str
    control: str

    def __str__(self) -> str:
        control = "" if self.control == "none" else f" [{self.control}]"
        return f"{self.backbone} × {self.method} × {self.suite}{control}"


@dataclass(frozen=True)
class Skipped:
    """A pair that a grid lists and leaves out. method: as tables call it. reason: the method's own, in a few words."""

    backbone: str
    method: str
    suite: str
    reason: str


@dataclass(frozen=True)
class Planned:
    """A trial of the grid. values: what a search sets in it."""

    trial: TrialSpec
    group: Group
    values: Values


def _listed(controls: Any) -> Any:
    """`[none, text-only]` as the mapping it stands for."""
    if not isinstance(controls, list | tuple) or not all(isinstance(name, str) for name in controls):
        return controls
    return dict.fromkeys(distinct(controls))


def _swept(entry: Any) -> tuple[MethodSpec, dict[str, list]]:
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
        if option in method.options:
            raise UserError(f"method {method.name}: {option} is both set and swept")
        try:
            distinct(values)
        except ValueError as error:
            raise UserError(f"method {method.name}: sweep of {option}: {error}") from None
    return method, sweep


def _method(entry: Any) -> Any:
    """An entry of the list of methods, as it is; raises ValueError where it is none."""
    try:
        _swept(entry)
    except UserError as error:
        raise ValueError(str(error)) from None
    return entry


def _folder(name: str) -> str:
    if not name or not nameable(name):
        raise ValueError(f"no folder can be called {shortened(repr(name))}")
    return name


@dataclass(frozen=True, config=STRICT)
class Grid:
    """The trials of a grid file, see the module's docstring; `load` and `parse` make one."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$", max_length=100)]
    suites: Listed
    backbones: Listed
    methods: Annotated[list[Annotated[Any, AfterValidator(_method)]], Field(min_length=1)]
    seeds: Seeds = Field(default_factory=lambda: [0])
    controls: Annotated[dict[Control, ControlSeeds | None], BeforeValidator(_listed)] = Field(
        default=("none",), validate_default=True, min_length=1
    )
    recipe: Options = field(default_factory=dict)
    protocol: dict[str, Options] = field(default_factory=dict)
    overrides: list[Options] = field(default_factory=list)
    also: list[Options] = field(default_factory=list)
    search: Search | None = None
    resources: Resources = field(default_factory=Resources)
    out: Annotated[str, AfterValidator(_folder)] | None = None

    @property
    def folder(self) -> Path:
        return Path(self.out or f"results/{self.name}")

    @property
    def also_finished(self) -> tuple[str, ...]:
        """Statuses, other than those of finished trials, with which a trial of this grid need not run again."""
        return ("stopped_early",) if self.search and self.search.early_stopping else ()

    def dump(self) -> str:
        """The grid as YAML that `load` reads back."""
        return dump_yaml(self.to_dict(), width=100)

    def to_dict(self) -> dict[str, Any]:
        return TypeAdapter(Grid).dump_python(self, mode="json")

    def trials(self, lost: Faults | None = None) -> list[TrialSpec]:
        """Every trial, resolved; raises one UserError with all faults of the grid.

        lost: takes the failures of plug-ins' own code where there is nothing else, and other trials are left.
        """
        return [planned.trial for planned in self.expand(lost)]

    def skipped(self) -> list[Skipped]:
        """The pairs of method and backbone that are left out because the method cannot be had there."""
        return []

    def expand(self, lost: Faults | None = None) -> list[Planned]:
        """Every trial with what a search knows of it, each once; raises as `trials` does."""
        faults, found = Faults(), {}
        with faults:
            found = {planned.trial.id: planned for planned in self._product(lost)}
        for index, entry in enumerate(self.also):
            with faults:
                where = f"{self.name}: also[{index}]"
                if odd := sorted(entry.keys() - PART):
                    raise UserError.many(unknown(f"{where} key", key, PART) for key in odd)
                part = parse({"name": self.name, **entry}, where)
                for planned in part._product(lost):
                    found.setdefault(planned.trial.id, planned)
        faults.check()
        if lost and not found:
            lost.check()
        return list(found.values())

    def joined(self, plan: Grid) -> Grid:
        """This grid, which a folder of results is of, with the trials of another one that is run into it.

        A grid of the same name takes its place and keeps what else was run there. Raises UserError for a search, whose
        trials are ranked as one.
        """
        if plan.name == self.name and plan.name != ADHOC:
            return replace(plan, also=[*plan.also, *(entry for entry in self.also if entry not in plan.also)])
        with suppress(UserError):  # where a plug-in of this grid is not loaded, nobody can tell
            if {trial.id for trial in plan.trials()} <= {trial.id for trial in self.trials()}:
                return self
        for grid in (self, plan):
            if grid.search:
                raise UserError(
                    f'the results folder is of grid "{self.name}" and cannot take "{plan.name}" too: "{grid.name}" is '
                    "a search; choose another --out"
                )
        parts = [{key: value for key, value in plan.to_dict().items() if key in PART and value}, *plan.also]
        return replace(self, also=[*self.also, *(part for part in parts if part not in self.also)])

    def _product(self, lost: Faults | None) -> list[Planned]:
        """The trials but for `also`."""
        faults = Faults()
        methods = [method for entry in self.methods for method in _methods(entry, faults)]
        suites = _known(faults, self.suites, suite_by_name)
        backbones = _known(faults, self.backbones, find_backbone)
        tasks = {suite: set(suite_by_name(suite).tasks) for suite in suites}
        present = {
            "method": {name for method in methods for name in (method.name, str(method))},
            "backbone": set(backbones), "suite": set(suites), "control": set(self.controls),
        }  # fmt: skip
        overrides = {
            f"overrides[{index}]": _override(f"overrides[{index}]", entry, present, faults)
            for index, entry in enumerate(self.overrides)
        }
        overrides = {place: found for place, found in overrides.items() if found}
        _check_protocol("protocol", self.protocol, tasks, faults)
        for place, (_, override) in overrides.items():
            _check_protocol(f"{place}: protocol", override.protocol, tasks, faults)

        for recipe in (self.recipe, *(override.recipe for _, override in overrides.values())):
            for key in recipe.keys() - {f.name for f in fields(Recipe)}:  # even where no trial can be resolved
                faults.add(unknown("recipe key", key, [f.name for f in fields(Recipe)]))

        if self.search:
            with faults:
                self.search.check_methods({method.name for method in methods})
        tried = sum(self.search.most(method.name) if self.search else 1 for method in methods)
        count = sum(map(len, map(self._seeds, self.controls))) * len(suites) * len(backbones) * tried
        if count > MOST:
            faults.add(f"{self.name}: {count:,} trials (possible: {MOST:,})")
            faults.check()
        used, found = set(), {}
        for control in self.controls:
            seeds, alike = self._seeds(control), {}
            for suite, backbone, method in product(suites, backbones, methods):
                recipe, protocol, options = dict(self.recipe), dict(self.protocol), dict(method.options)
                for place, (when, override) in overrides.items():
                    if when.matches(method=method, backbone=backbone, suite=suite, control=control):
                        used.add(place)
                        recipe |= override.recipe
                        options |= override.options
                        for task, changes in override.protocol.items():
                            protocol[task] = protocol.get(task, {}) | changes
                protocol = {task: changes for task, changes in protocol.items() if task in tasks[suite]}
                group = Group(backbone, str(method), suite, control)
                base = MethodSpec(method.name, options)
                for values in _candidates(self.search, group, base, recipe, protocol, faults):
                    with faults:
                        trial = _trial(group, base, seeds[0], recipe, protocol, values)
                        if trial.id in alike:
                            faults.add(f"trial {trial} is listed twice")
                        alike[trial.id] = Planned(trial, group, values)
            for seed in seeds:
                for planned in alike.values():
                    trial = replace(planned.trial, seed=seed)
                    found[trial.id] = replace(planned, trial=trial)
        if found:
            for place in overrides.keys() - used:
                faults.add(f"{place}: no trial matches when {overrides[place][1].when}")
        faults.check(lost)
        return list(found.values())

    def _seeds(self, control: Control) -> list[int]:
        """The seeds of a control's trials."""
        part = self.controls[control]
        return self.search.seeds if self.search else self.seeds if part is None or part.seeds is None else part.seeds


def _candidates(
    search: Search | None, group: Group, method: MethodSpec, recipe: Options, protocol: dict, faults: Faults
) -> list[Values]:
    """What a search tries in a group: nothing where what bounds its space has faults, lest every draw repeat them."""
    if search is None:
        return [{}]
    found, space = Faults(), search.of(method.name)
    given = {f"recipe.{key}" for key in recipe} | method.options.keys()
    for key in filter(given.__contains__, space):
        found.add(f"search: {key} is both set and searched for method {group.method}")
    with found:
        tasks = build_tasks(suite_by_name(group.suite).tasks, protocol)
        check_selection(tasks, "search: the best is chosen by validation")
    for values in search.ends(method.name):
        with found:
            search.check_recipe(_trial(group, method, search.seeds[0], recipe, protocol, values).recipe)
    for fault in found.found:
        faults.add(fault)
    return [] if found.found else search.candidates(method.name, str(group))


def _trial(group: Group, method: MethodSpec, seed: int, recipe: Options, protocol: dict, values: Values) -> TrialSpec:
    """The trial with these values, which its label shows."""
    changed = recipe_of(values)
    trial = resolve(
        group.backbone, MethodSpec(method.name, method.options | options_of(values)), group.suite, seed,
        control=group.control, recipe=recipe | changed, protocol=protocol,
    )  # fmt: skip
    if not changed:
        return trial
    shown = ", ".join(f"{key}={plain(value)}" for key, value in changed.items())
    name = trial.label
    return replace(trial, label=f"{name[:-1]}, {shown})" if name.endswith(")") else f"{name}({shown})")


def _known(faults: Faults, names: list[str], find: Callable[[str], Any]) -> list[str]:
    """The names that `find` finds."""
    known = []
    for name in names:
        with faults:
            find(name)
            known.append(name)
    return known


def _methods(entry: Any, faults: Faults) -> Iterator[MethodSpec]:
    """The methods that an entry stands for: one, or one per combination of its `sweep`."""
    with faults:
        method, sweep = _swept(entry)
        if method.name not in METHODS:
            METHODS.get(method.name)  # what cannot be imported, each of its trials says
        if (count := math.prod(map(len, sweep.values()))) > MOST:
            raise UserError(f"method {method.name}: its sweep makes {count:,} methods (possible: {MOST:,})")
        for values in product(*sweep.values()):
            yield MethodSpec(method.name, method.options | dict(zip(sweep, values, strict=True)))


def _override(what: str, entry: Options, present: dict[str, set[str]], faults: Faults) -> tuple[When, Override] | None:
    """An override and what it is for, or None where it has faults."""
    with faults:
        override = validate(Override, entry, what)
        when = validate(When, override.when, f"{what}: when")
        foreign = [
            f"{what}: not in this grid: {unknown(kind, name, present[kind])}"
            for kind, names in when.names().items()
            for name in sorted(set(names) - present[kind])
        ]
        if foreign:
            raise UserError.many(foreign)
        return when, override
    return None


def _check_protocol(what: str, protocol: dict, tasks: dict[str, set[str]], faults: Faults) -> None:
    possible = set().union(*tasks.values())
    for task in protocol:
        if possible and task not in possible:
            faults.add(f"{what}: {unknown('task', task, possible)}")


def parse(data: Any, where: str = "grid") -> Grid:
    """A grid from plain data; raises UserError with every unknown key and wrong type."""
    if not isinstance(data, dict):
        raise UserError(
            f"{where}: a grid is a mapping with the keys {', '.join(f.name for f in fields(Grid))}, "
            f"found {shortened(repr(data))}"
        )
    return validate(Grid, data, where)


def shipped() -> list[str]:
    """Names of the grids that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load(source: str | Path) -> Grid:
    """A grid from a YAML file, a shipped grid's name or a results folder (its `grid.yaml`)."""
    path = Path(source)
    if str(source) in shipped():
        path = SHIPPED / f"{source}.yaml"
    elif is_folder(path):
        path = path / "grid.yaml"
        if not path.is_file():
            raise UserError(f'results folder "{source}" has no grid.yaml')
    elif not is_file(path):
        if path.suffix in (".yaml", ".yml"):
            raise UserError(f'grid file "{shortened(str(source))}" does not exist')
        raise unknown("grid", str(source), shipped())
    return parse(read_yaml(path, f'grid file "{path}"'), str(source))


def select(trials: list[TrialSpec], **names: Iterable[Any]) -> list[TrialSpec]:
    """The trials whose suite, backbone, method, seed or control is among those named; none named selects all.

    Raises UserError for a name that no trial has, and where nothing is left.
    """
    keys = {
        "suite": lambda trial: trial.suite,
        "backbone": lambda trial: trial.backbone,
        "method": lambda trial: trial.method.name,
        "seed": lambda trial: trial.seed,
        "control": lambda trial: trial.control,
    }
    faults = Faults()
    for kind, wanted in names.items():
        possible = {keys[kind](trial) for trial in trials}
        for name in set(wanted) - possible:
            faults.add(f"not in this grid: {unknown(kind, str(name), map(str, possible))}")
    faults.check()
    left = [
        trial for trial in trials if all(not wanted or keys[kind](trial) in wanted for kind, wanted in names.items())
    ]
    if not left:
        chosen = (f"{kind} {' or '.join(map(str, wanted))}" for kind, wanted in names.items() if wanted)
        raise UserError(f"no trial of this grid has all of {', '.join(chosen)}")
    return left
