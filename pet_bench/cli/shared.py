"""What the commands share. Heavy imports are inside the functions, so that `pet-bench --help` is instant."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import print_exception
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

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


TRACEBACK = "--traceback"
_author = typer.Typer(add_completion=False)


@_author.command()
def _(
    traceback: Annotated[
        bool, typer.Option(TRACEBACK, expose_value=False, help="Where a plug-in failed, for its author.")
    ] = False,
) -> None: ...


class Commands(TyperGroup):
    """Every command takes --traceback, which `say` heeds."""

    def get_command(self, *context):
        command = super().get_command(*context)
        if command is not None and not isinstance(command, TyperGroup):
            there = {param.name for param in command.params}
            command.params += [param for param in get_command(_author).params if param.name not in there]
        return command


def say(error: UserError, arguments: list[str]) -> None:
    """A line a fault on stderr; where the command's arguments or environment say so, also what plug-ins raised."""
    if TRACEBACK in arguments or os.environ.get("PET_BENCH_TRACEBACK"):
        for cause in dict.fromkeys(error.causes()):
            print_exception(cause)
    for fault in error.faults:
        print(f"pet-bench: error: {fault}", file=sys.stderr)


def load_plugins(plugins: list[str] | None, lost: Faults | None = None) -> None:
    """Load what --plugin names; raises UserError where that fails, unless `lost` takes it."""
    from pet_bench.registry import load_plugin

    faults = Faults() if lost is None else lost
    for plugin in plugins or []:
        with faults:
            load_plugin(plugin)
    if lost is None:
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
