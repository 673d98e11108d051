"""What the commands share. Heavy imports are inside the functions, so that `pet-bench --help` is instant."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from traceback import print_exception
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from pet_bench.cli.output import say
from pet_bench.errors import Faults, UserError, shortened
from pet_bench.files import nameable, parse_yaml

if TYPE_CHECKING:
    from pet_bench.grid.plan.spec import Grid
    from pet_bench.spec import TrialSpec


class Range(TypedDict):
    min: int
    max: int


SEEDS: Range = {"min": 0, "max": 2**32 - 1}  # as `spec.Seed`, which is not imported for --help


class Command(TyperCommand):
    """A command that is told nothing twice, and no path that no file can have."""

    def parse_args(self, ctx, args):
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        try:
            rest = super().parse_args(ctx, args)
        except typer.BadParameter as error:
            raise UserError(error.format_message()) from None
        faults = Faults()
        for param in self.params:
            value, option = ctx.params.get(param.name), param.param_type_name == "option"
            name = param.opts[0] if option else param.metavar or param.name
            values = list(value) if isinstance(value, list | tuple) else [value]
            if option and given.count(param) > 1 and not isinstance(value, list | tuple):
                faults.add(f"{name} is given {given.count(param)} times")
            for one in dict.fromkeys(values):
                if option and values.count(one) > 1:
                    faults.add(f"{name} {shortened(str(one))} is given twice")
                if isinstance(one, Path) and not nameable(one):
                    faults.add(f"{name}: no file can be called {shortened(repr(str(one)))}")
        faults.check()
        return rest


class App(typer.Typer):
    """A Typer of such commands."""

    def command(self, *args, **options):
        return super().command(*args, cls=Command, **options)


GridName = Annotated[
    str, typer.Argument(metavar="GRID", help="A grid file, a shipped grid's name or a results folder.")
]
Out = Annotated[Path | None, typer.Option(help="Results folder; by default results/<grid name>.")]


def examples(*lines: str) -> str:
    return "\n\n".join(["**Examples**", *(f"`{line}`" for line in lines)])


Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        "--task-file",
        metavar="FILE_OR_MODULE",
        envvar="PET_BENCH_PLUGINS",
        help="Load a plug-in from a file or module, or a task described in a YAML file; repeatable.",
    ),
]


ScopeOption = Annotated[
    str | None,
    typer.Option(
        metavar="PART,...",
        help="Of a method: which parts of the model it touches, of language, projector and vision; by default as the "
        "backbone's family has it.",
    ),
]


def scoped(options: dict[str, Any], scope: str | None) -> dict[str, Any]:
    """A method's options with the scope that `--scope` gives."""
    return options if scope is None else options | {"scope": [part.strip() for part in scope.split(",")]}


def only_with(what: str, chosen: bool, **options: Any) -> None:
    """Raises UserError for options that were given although what they are for was not chosen."""
    if not chosen and (given := [name for name, value in options.items() if value is not None]):
        raise UserError.many(f"--{name.replace('_', '-')} is for {what}" for name in given)


TRACEBACK = "--traceback"
_author = typer.Typer(add_completion=False)


@_author.command()
def _(
    traceback: Annotated[
        bool, typer.Option(TRACEBACK, expose_value=False, help="Where a plug-in failed, for its author.")
    ] = False,
) -> None: ...


class Commands(TyperGroup):
    """Every command takes --traceback, which `report_error` heeds."""

    def get_command(self, ctx, cmd_name):
        command = super().get_command(ctx, cmd_name)
        if command is not None and not isinstance(command, TyperGroup):
            there = {param.name for param in command.params}
            command.params += [param for param in get_command(_author).params if param.name not in there]
        return command


def report_error(error: UserError, arguments: list[str]) -> None:
    """A line a fault on stderr; where the command's arguments or environment say so, also what plug-ins raised."""
    if TRACEBACK in arguments or os.environ.get("PET_BENCH_TRACEBACK"):
        for cause in dict.fromkeys(error.causes()):
            print_exception(cause)
    for fault in error.faults:
        say(fault)


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
    """Where the results of a grid are: as told, the results folder it was loaded from, or the grid's own.

    Raises UserError where something else than a folder has that name.
    """
    from pet_bench.grid.plan.spec import folder_of

    return folder_of(plan, source, out)


def trials_of(source: str, out: Path | None) -> tuple[list[TrialSpec], Path]:
    """The trials of a grid, and the folder of its results."""
    from pet_bench.grid.plan.spec import load

    plan = load(source, out)
    return plan.trials(), folder_of(plan, source, out)


def changes(texts: list[str] | None, form: str = "KEY=VALUE", *, raw: bool = False) -> dict[str, Any]:
    """What `--set` changes, by key; raises UserError for all that is not of that form and for keys given twice.

    raw: values are text, not YAML.
    """
    changed: dict[str, Any] = {}
    faults = Faults()
    for text in texts or []:
        with faults:
            key, equals, value = text.partition("=")
            if not equals or not key:
                raise UserError(f'--set takes {form}, found "{shortened(text)}"')
            if key in changed:
                raise UserError(f"--set {shortened(key)} is given twice")
            changed[key] = None
            changed[key] = value if raw else parse_yaml(value, f"--set {shortened(key)}")
    faults.check()
    return changed


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with an estimate on a terminal; a callback (done, total) that moves it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    console.quiet = not console.is_terminal  # Rich before 14.3 ends a disabled bar with an empty line
    columns = TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as bars:
        bar = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)


@contextmanager
def working(what: str) -> Iterator[None]:
    """On a terminal it is said meanwhile what the command is at; nothing may be printed under this."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    with console.status(escape(what)) if console.is_terminal else nullcontext():
        yield


@contextmanager
def uncollected() -> Iterator[None]:
    """Without looking for garbage: among thousands of results, all of them in use, that takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


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
