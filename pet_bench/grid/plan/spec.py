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
tuning: tuned                                    # or its keys (`tuning.py`): tries before the table's trials
resources: {cpus: 1, gpus: 0, max_concurrent: 2} # cpus and gpus are per trial; also order, reuse_workers, retries
out: results/demo

With a `search` (see `space.py`), the trials are those of the search, and `seeds` are for later: for the
final runs of what it finds best.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, field_validator
from pydantic.dataclasses import dataclass

from pet_bench.errors import Faults, UserError, shortened, unknown
from pet_bench.files import dump_yaml, is_file, is_folder, nameable, read_yaml
from pet_bench.grid.plan.methods import listed_method
from pet_bench.grid.plan.overrides import Options, Protocol
from pet_bench.grid.plan.planned import Plan, Skipped
from pet_bench.grid.plan.space import MOST, Search, Seeds
from pet_bench.grid.plan.tuning import Tuning, joined, protocol
from pet_bench.results.schema import Status
from pet_bench.spec import STRICT, Control, Distinct, TrialSpec, distinct, validate

SHIPPED = Path(__file__).parents[1] / "grids"
ADHOC = "adhoc"  # the name of a grid that the command line's flags make
PART = {"suites", "backbones", "methods", "seeds", "controls", "recipe", "protocol", "overrides"}  # keys below `also`
Listed = Annotated[list[str], Field(min_length=1), Distinct]


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


def _listed(controls: Any) -> Any:
    """`[none, text-only]` as the mapping it stands for."""
    if not isinstance(controls, list | tuple) or not all(isinstance(name, str) for name in controls):
        return controls
    return dict.fromkeys(distinct(controls))


def _folder(name: str) -> str:
    if not name or not nameable(name):
        raise ValueError(f"no folder can be called {shortened(repr(name))}")
    return name


def _protocol(value: Any) -> Any:
    """The keys of a protocol that is named."""
    try:
        return protocol(value) if isinstance(value, str) else value
    except UserError as error:
        raise ValueError(str(error)) from None


@dataclass(frozen=True, config=STRICT)
class Grid:
    """The trials of a grid file, see the module's docstring; `load` and `parse` make one."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$", max_length=100)]
    suites: Listed
    backbones: Listed
    methods: Annotated[list[Annotated[Any, AfterValidator(listed_method)]], Field(min_length=1)]
    seeds: Seeds = Field(default_factory=lambda: [0])
    controls: Annotated[dict[Control, ControlSeeds | None], BeforeValidator(_listed)] = Field(
        default=("none",), validate_default=True, min_length=1
    )
    recipe: Options = field(default_factory=dict)
    protocol: Protocol = field(default_factory=dict)
    overrides: list[Options] = field(default_factory=list)
    also: list[Options] = field(default_factory=list)
    search: Search | None = None
    tuning: Annotated[Tuning | None, BeforeValidator(_protocol)] = None
    resources: Resources = field(default_factory=Resources)
    out: Annotated[str, AfterValidator(_folder)] | None = None

    @property
    def folder(self) -> Path:
        return Path(self.out or f"results/{self.name}")

    @property
    def also_finished(self) -> tuple[Status, ...]:
        """Statuses, other than those of finished trials, with which a trial of this grid need not run again."""
        return ("stopped_early",) if self.search and self.search.early_stopping else ()

    def dump(self) -> str:
        """The grid as YAML that `load` reads back."""
        return dump_yaml(self.to_dict(), width=100)

    def to_dict(self) -> dict[str, Any]:
        return TypeAdapter(Grid).dump_python(self, mode="json")

    def plan(self, lost: Faults | None = None, *, anew: bool = False) -> Plan:
        """Every trial, resolved, with what a search knows of it, and every pair that is left out, each once.

        It may have been made before (`remembered.py`); with `anew` it is made now. Raises one UserError with all faults
        of the grid. lost: takes the failures of plug-ins' own code where there is nothing else, and other trials are
        left.
        """
        from pet_bench.grid.plan.remembered import remembered

        return remembered(self, lost, anew=anew)

    def trials(self, lost: Faults | None = None) -> list[TrialSpec]:
        """Every trial; raises as `plan` does."""
        return self.plan(lost).trials

    def skipped(self) -> list[Skipped]:
        """The pairs of method and backbone that are left out because the method cannot be had there."""
        return list(self.plan().skipped)

    def part(self, index: int) -> Grid:
        """The grid below `also` of that index; raises UserError."""
        entry, where = self.also[index], f"{self.name}: also[{index}]"
        if odd := sorted(entry.keys() - PART):
            raise UserError.many(unknown(f"{where} key", key, PART) for key in odd)
        part = parse({"name": self.name, **entry}, where)
        return replace(part, tuning=self.tuning, search=self.search) if self.tuning else part

    def seeds_of(self, control: Control) -> list[int]:
        """The seeds of a control's trials."""
        if self.search:
            return self.search.seeds
        part = self.controls[control]
        return self.seeds if part is None or part.seeds is None else part.seeds

    def joined(self, plan: Grid) -> Grid:
        """This grid, which a folder of results is of, with the trials of another one that is run into it.

        A grid of the same name takes its place and keeps what else was run there. Raises UserError for a search, whose
        trials are ranked as one.
        """
        if plan.name == self.name and plan.name != ADHOC:
            also = [*plan.also, *(entry for entry in self.also if entry not in plan.also)]
            return replace(plan, also=also, tuning=joined(self.tuning, plan.tuning))
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


def load(source: str | Path, out: Path | None = None) -> Grid:
    """A grid from a YAML file, a shipped grid's name or a results folder (its `grid.yaml`).

    One that is tuned has what was chosen for it in its results folder, or in `out`.
    """
    grid = _load(source)
    return with_kept(grid, folder_of(grid, source, out)) if grid.tuning and not grid.tuning.chosen else grid


def with_kept(grid: Grid, folder: Path) -> Grid:
    """The grid with what was chosen in the folder, where that was by its own protocol."""
    there = _load(folder).tuning if (folder / "grid.yaml").is_file() else None
    return replace(grid, tuning=there) if there and there.as_protocol == grid.tuning else grid


def _load(source: str | Path) -> Grid:
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


def folder_of(grid: Grid, source: str | Path | None, out: Path | None = None) -> Path:
    """Where the results of a grid are: as told, the results folder it was loaded from, or the grid's own.

    Raises UserError where something else than a folder has that name.
    """
    folder = out or (Path(source) if source and is_folder(source) and str(source) != grid.name else grid.folder)
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UserError(f'results folder "{folder}" cannot be written to or read: {there} is no folder')
    return folder


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
