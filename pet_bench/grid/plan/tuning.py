"""Equal tuning: every method of a grid has the same number of tries on every backbone before its table is made.

tuning: tuned                      # a shipped protocol (`protocols/tuned.yaml`), or its keys:
tuning: {rates: [0.5, 1, 2], sizes: [0.5, 2], nearer: [0.7, 1.4], seeds: [1000]}

The tries are two searches, one after the other (`space.py`): of a method's learning rate, then at the best rate of its
size (`Method.size`) or, where it has none, of rates nearer to the best. They train as the table's trials do, but are
tested on the validation splits: no test split is read, and none of their seeds may be one of the table's. A control has
what its method has without it. What was chosen stands in the grid itself (`chosen`), so that a results folder says all
of it, and does not count as changed options in labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from pet_bench.errors import UserError, unknown
from pet_bench.files import is_file, read_yaml
from pet_bench.grid.plan.planned import Group
from pet_bench.grid.plan.space import TIMES, Search, Seeds, Values
from pet_bench.registry import METHODS
from pet_bench.spec import STRICT, validate

if TYPE_CHECKING:
    from pet_bench.grid.plan.search import Candidate
    from pet_bench.grid.plan.spec import Grid

PROTOCOLS = Path(__file__).parents[1] / "protocols"
RATE = "recipe.lr"
FOLDER = "tuning"  # in a grid's results folder: of its tries
Factors = list[Annotated[float, Field(gt=0)]]


@dataclass(frozen=True, config=STRICT)
class Chosen:
    """What one method has on one backbone in one suite.

    values: what was chosen, by key (`recipe.lr`, an option). tried: all tries, in order, each with its values and
    `validation`, the mean over tasks of the primary metric on their validation splits (None: it did not finish).
    """

    backbone: str
    method: str
    suite: str
    values: Values
    tried: list[Values]

    def of(self, group: Group) -> bool:
        return (self.backbone, self.method, self.suite) == (group.backbone, group.method, group.suite)

    @property
    def edges(self) -> Iterator[str]:
        """Keys whose chosen value is the least or the largest that was tried of several."""
        for key, value in self.values.items():
            tried = sorted({one[key] for one in self.tried if key in one})
            if len(tried) > 1 and value in (tried[0], tried[-1]):
                yield key


@dataclass(frozen=True, config=STRICT)
class Tuning:
    """See the module's docstring and the shipped protocol's header."""

    rates: Factors = Field(min_length=1)
    sizes: Factors = Field(default_factory=list)
    nearer: Factors = Field(default_factory=list)
    seeds: Seeds = Field(default_factory=lambda: [1000])
    chosen: list[Chosen] = Field(default_factory=list)

    @property
    def tries(self) -> int:
        """Of every method."""
        return len(self.rates) + max(len(self.sizes), len(self.nearer))

    def values(self, group: Group) -> Values:
        """What was chosen for a method, on a backbone, in a suite; nothing where nothing was."""
        return next((one.values for one in self.chosen if one.of(group)), {})

    def with_chosen(self, more: Sequence[Chosen]) -> Tuning:
        """The later ones win."""
        key = {(one.backbone, one.method, one.suite): one for one in (*self.chosen, *more)}
        return replace(self, chosen=list(key.values()))

    @property
    def as_protocol(self) -> Tuning:
        return replace(self, chosen=[])


def joined(kept: Tuning | None, new: Tuning | None) -> Tuning | None:
    """The new one with what was chosen by the same protocol before, by another process say.

    Raises UserError where something was chosen by another protocol, which would be lost.
    """
    if kept is None or not kept.chosen:
        return new
    if new is None or new.as_protocol != kept.as_protocol:
        how = "untuned" if new is None else "tuned by another protocol"
        raise UserError(f"the results folder is tuned, and this run is {how}: choose another --out")
    return kept.with_chosen(new.chosen)


def protocol(name: str) -> dict[str, Any]:
    """A protocol as plain data, of its shipped name or of a YAML file; raises UserError where there is none."""
    shipped = sorted(path.stem for path in PROTOCOLS.glob("*.yaml"))
    path = PROTOCOLS / f"{name}.yaml" if name in shipped else Path(name)
    if not is_file(path):
        raise unknown("protocol", name, [*shipped, "a YAML file"])
    data = read_yaml(path, f'protocol "{name}"')
    validate(Tuning, data, f'protocol "{name}"')
    return data


def stages(grid: Grid) -> Iterator[Search]:
    """The searches that a tuned grid's tries are, in their order."""
    tuning = grid.tuning
    assert tuning is not None
    names = {one.trial.method.name for one in grid.plan().planned}
    yield Search(space={RATE: {TIMES: [*tuning.rates]}}, seeds=tuning.seeds, test=False)
    sized = {name: METHODS.get(name).size for name in sorted(names) if tuning.sizes and METHODS.get(name).size}
    space = {f"{name}.{size}": {TIMES: [1, *tuning.sizes]} for name, size in sized.items()}
    if tuning.nearer:
        space |= {f"{name}.{RATE}": {TIMES: [1, *tuning.nearer]} for name in sorted(names - sized.keys())}
    if space:
        yield Search(space=space, seeds=tuning.seeds, test=False)


def searching(grid: Grid, search: Search) -> Grid:
    """The grid of one stage's tries: with what the stage before has chosen, without controls.

    Raises UserError where a seed of the tries is one of the table's.
    """
    assert grid.tuning is not None
    if both := sorted({*grid.tuning.seeds} & {trial.seed for trial in grid.trials()}):
        raise UserError(f"tuning: seed {both[0]} is one of the table's: its tries take others")
    uncontrolled = [{**entry, "controls": ["none"]} for entry in grid.also if "none" in entry.get("controls", ["none"])]
    return replace(
        grid, name=f"{grid.name}-tuning", search=search, controls={"none": None}, also=uncontrolled, out=None
    )


def choose(grid: Grid, ranked: Mapping[Group, list[Candidate]]) -> Grid:
    """The grid with what a stage has found best; raises UserError where nothing of a method finished."""
    tuning = grid.tuning
    assert tuning is not None
    if without := [group for group, candidates in ranked.items() if not candidates[0].finished]:
        raise UserError.many(f"tuning: no try of {group} finished: nothing can be chosen" for group in without)
    chosen = []
    for group, candidates in ranked.items():
        before = [one for one in tuning.chosen if one.of(group)]
        tried = [one for past in before for one in past.tried]
        tried += [one for one in map(_tried, _in_order(candidates)) if one not in tried]
        values = (before[0].values if before else {}) | candidates[0].values
        chosen.append(Chosen(group.backbone, group.method, group.suite, values, tried))
    return replace(grid, tuning=tuning.with_chosen(chosen))


def _in_order(candidates: Sequence[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=lambda one: [float(value) for value in one.values.values()])


def _tried(candidate: Candidate) -> Values:
    """A try with all that tells it from others of its method: its rate, and the size where that is searched."""
    validation = candidate.validation if candidate.finished else None
    trial = candidate.trials[0]
    size = METHODS.get(trial.method.name).size
    own = {key: trial.method.options[key] for key in (size,) if key in trial.method.options}
    score = None if validation is None else round(validation.score, 4)
    return {RATE: trial.recipe.lr} | own | candidate.values | {"validation": score}
