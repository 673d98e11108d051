"""`pet-bench list`: what there is, from what is registered. Only counting the parameters of methods needs torch."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from pet_bench.errors import Faults, foreign

if TYPE_CHECKING:
    from rich.table import Table

    from pet_bench.data.suite import Suite
    from pet_bench.data.task import Task

Entry = tuple[str, dict[str, str]]  # a name, and what there is to say of it


class Kind(StrEnum):
    METHODS, TASKS, SUITES, BACKBONES, FAMILIES = "methods", "tasks", "suites", "backbones", "families"
    METRICS, STYLES, GRIDS = "metrics", "styles", "grids"


def table(kind: Kind | None, lost: Faults) -> Table:
    """What there is of a kind, by default of all; of what fails, `lost` says why."""
    match kind:
        case Kind.SUITES | Kind.TASKS:
            return _told(kind, lost)
        case Kind.METHODS:
            return _methods(lost)
        case Kind.GRIDS:
            return _grids(lost)
        case _:
            return _names(kind)


def _names(kind: Kind | None) -> Table:
    """Names and where they come from; nothing is imported for them."""
    from pet_bench.registry import REGISTRIES

    names = _columns("kind", "name", "from", no_wrap=("kind", "name", "from"))
    for registry in REGISTRIES.values():
        if kind is None or registry.group == f"pet_bench.{kind}":
            for name in registry.names():
                names.add_row(registry.kind, name, registry.origin(name))
            for family in registry.families():
                names.add_row(registry.kind, f"{family}<type>", registry.origin(family))
    for path in _grid_files() if kind is None else ():
        names.add_row("grid", path.stem, f"pet_bench.grid:grids/{path.name}")
    return names


def _columns(*names: str, no_wrap: tuple[str, ...] = (), right: tuple[str, ...] = ()) -> Table:
    from rich.table import Table

    view = Table(box=None, pad_edge=False)
    for name in names:
        view.add_column(name, no_wrap=name in no_wrap, justify="right" if name in right else "left")
    return view


def _grid_files() -> list[Path]:
    """The shipped grids, without importing what runs them."""
    return sorted((Path(__file__).parents[1] / "grid" / "grids").glob("*.yaml"))


def _grids(lost: Faults) -> Table:
    """Name, number of trials and the first line of the header of every shipped grid."""
    from pet_bench.grid.plan.spec import load

    grids = _columns("name", "trials", no_wrap=("name",), right=("trials",))
    grids.add_column("what", overflow="fold")
    for path in _grid_files():
        head = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        with lost:
            grids.add_row(path.stem, str(len(load(path.stem).trials())), head)
    return grids


def _methods(lost: Faults) -> Table:
    """Year, source and trainable parameters of every method, on bart-base for image-text."""
    from pet_bench.registry import METHODS
    from pet_bench.spec import MethodSpec
    from pet_bench.trial.count import count_parameters

    methods = _columns("name", "year", "trainable", "%", "source", no_wrap=("name",), right=("trainable", "%"))
    for name in METHODS.names():
        with lost:
            method, counts = METHODS.get(name), count_parameters("bart-base", MethodSpec(name), "image-text")
            numbers = f"{counts['trainable']:,}", f"{counts['percent']:.2f}"
            methods.add_row(method.name, str(method.year), *numbers, method.source)
    for family in METHODS.families():
        methods.add_row(f"{family}<type>", "", "", "", METHODS.origin(family))
    methods.caption = "trainable parameters on bart-base for image-text, and their share of all"
    return methods


def _told(kind: Kind, lost: Faults) -> Table:
    """Suites or tasks, with a line for all that there is to say of each."""
    from rich.table import Table

    from pet_bench.registry import REGISTRIES

    told = Table(box=None, pad_edge=False, show_header=False)
    told.add_column(no_wrap=True, style="bold")
    told.add_column(no_wrap=True, style="dim")
    told.add_column(overflow="fold")
    registry = REGISTRIES[kind.removesuffix("s")]
    origins = {name: registry.origin(name) for name in registry.names()}  # as entry points say, before they load
    for name, about in suites(lost) if kind == Kind.SUITES else tasks(lost):
        for place, (what, text) in enumerate({**about, "from": origins[name]}.items()):
            told.add_row("" if place else name, what, text)
    return told


def suites(lost: Faults) -> Iterator[Entry]:
    """Every suite with its tasks, the shape of its features and where its data come from; `lost` takes what fails."""
    from pet_bench.registry import SUITES

    lost.found += SUITES.load()
    for suite in SUITES:
        yield suite.name, {"tasks": ", ".join(suite.tasks), "features": features(suite), "data": data(suite)}


def features(suite: Suite) -> str:
    """`49 vectors of 2048 an image, pooled to 36; up to 2 images`"""
    visual = suite.visual
    pooled = "" if visual.pooled == visual.tokens else f", pooled to {visual.pooled}"
    return f"{visual.tokens} vectors of {visual.width} an image or clip{pooled}; up to {visual.images} an example"


def data(suite: Suite) -> str:
    return "comes with the package" if suite.embedded else "yours: --data FOLDER"


def tasks(lost: Faults) -> Iterator[Entry]:
    """Every task with its metrics, its answers, its splits, the suites it is in, and the files that it reads.

    `lost` takes what fails.
    """
    from pet_bench.registry import TASKS, title

    lost.found += TASKS.load()
    for cls in TASKS:
        about = None
        with lost, foreign(f"{title(cls)}: it raised"):
            about = about_task(cls())
        if about:
            yield cls.name, about


def about_task(task: Task) -> dict[str, str]:
    from pet_bench.registry import SUITES

    homes = [suite.name for suite in SUITES if task.name in suite.tasks]
    splits = (f"{split} {getattr(task, split) or 'none'}" for split in ("train", "valid", "test"))
    return {
        "suites": ", ".join(homes) or "none",
        "answers": answers(task),
        "metric": ", ".join((task.metric, *task.also)),
        "splits": ", ".join(splits),
        "reads": ", ".join(dict.fromkeys(sources(task))),
    }


def answers(task: Task) -> str:
    from pet_bench.data.task import Choose

    decoding = task.decoding
    if isinstance(decoding, Choose):
        return f"one of {', '.join(decoding.choices)}"
    beams = f", {decoding.num_beams} beams" if decoding.num_beams > 1 else ""
    return f"written, up to {decoding.max_length} tokens{beams}"


def sources(task: Task) -> Iterator[str]:
    """The annotation files below the root, and the places of what else it reads."""
    from pet_bench.data.task import SPLITS, annotation_files

    for split in SPLITS:
        if getattr(task, split):
            yield from (path.as_posix() for path in annotation_files(task, Path(), split))
    yield from (place for place in task.origins if "features" in place)
