"""What the commands share. Heavy imports are inside the functions, so that `pet-bench --help` is instant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pet_bench.errors import Faults, UserError

if TYPE_CHECKING:
    from pet_bench.grid.spec import Grid
    from pet_bench.spec import TrialSpec

GridName = Annotated[
    str, typer.Argument(metavar="GRID", help="A grid file, a shipped grid's name or a results folder.")
]
Out = Annotated[Path | None, typer.Option(help="Results folder; by default results/<grid name>.")]


def examples(*lines: str) -> str:
    return "\n\n".join(["**Examples**", *(f"`{line}`" for line in lines)])


Plugins = Annotated[
    list[str] | None,
    typer.Option("--plugin", metavar="FILE_OR_MODULE", help="Load a plug-in from a file or module; repeatable."),
]


def load_plugins(plugins: list[str] | None) -> None:
    from pet_bench.registry import load_plugin

    faults = Faults()
    for plugin in plugins or []:
        with faults:
            load_plugin(plugin)
    faults.check()


def folder_of(plan: Grid, source: str | None, out: Path | None) -> Path:
    """Where the results of a grid are: as told, the results folder it was loaded from, or the grid's own."""
    return out or (Path(source) if source and Path(source).is_dir() and source != plan.name else plan.folder)


def trials_of(source: str, out: Path | None) -> tuple[list[TrialSpec], Path]:
    """The trials of a grid, and the folder of its results."""
    from pet_bench.grid.spec import load

    plan = load(source)
    return plan.trials(), folder_of(plan, source, out)


def key_value(text: str) -> tuple[str, Any]:
    from pet_bench.files import parse_yaml

    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f'--set takes KEY=VALUE, found "{text}"')
    return key, parse_yaml(value, f"--set {key}")


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with an estimate on a terminal; a callback (done, total) that moves it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)


To = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Write there, where the folder of the results is read-only, say.")
]


@contextmanager
def writing(remedy: str) -> Iterator[None]:
    """What is written for the user under this is written, or it is said in one line what was not, and what helps."""
    try:
        yield
    except OSError as error:
        place = f'"{error.filename}"' if error.filename else "a file"
        raise UserError(f"{place} cannot be written: {error.strerror or error}; {remedy}") from error
