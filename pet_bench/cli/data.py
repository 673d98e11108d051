"""`pet-bench data`: check and prepare datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pet_bench.cli.shared import Plugins, bar, examples, key_value, load_plugins
from pet_bench.errors import UserError

if TYPE_CHECKING:
    from pet_bench.data.check import Report
    from pet_bench.data.suite import Suite
    from pet_bench.data.task import Task

app = typer.Typer(help="Check and prepare datasets.", no_args_is_help=True)

SuiteName = Annotated[
    str | None, typer.Option(help="Suite; by default every suite on user data of which the folder holds annotations.")
]
TaskNames = Annotated[list[str] | None, typer.Option(help="Only this task; repeatable.")]
Root = Annotated[Path, typer.Argument(metavar="ROOT", help="Root folder of the datasets.")]


@app.command(
    epilog=examples(
        "pet-bench data check ~/datasets",
        "pet-bench data check ~/datasets --suite image-text --all --packed",
        "pet-bench data check ~/datasets --task vqa --task nlvr2",
        "pet-bench data check ~/nlvr --suite nlvr-v1 --set nlvr-v1.train=dev",
    )
)
def check(
    root: Root,
    suite: SuiteName = None,
    task: TaskNames = None,
    all_: Annotated[bool, typer.Option("--all", help="Read the values of every feature, not of a sample.")] = False,
    packed: Annotated[bool, typer.Option("--packed", help="Compare packed features with their checksums too.")] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="TASK.KEY=VALUE", help="Change a protocol option; repeatable.")
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Say what is there, what is missing, what is broken and where it comes from. Alters nothing.

    Exit code 0 if a run would go through, 1 if there are faults.
    """
    load_plugins(plugin)
    from rich.console import Console

    from pet_bench.data.check import check as check_data

    console, faults = Console(highlight=False), 0
    for chosen, tasks in _suites(root, suite, task, set_):
        with bar(f"checking {chosen.name}") as progress:
            report = check_data(root, tasks, chosen.visual, whole=all_, packed=packed, progress=progress)
        for view in _check_views(root, chosen.name, report):
            console.print(view, soft_wrap=isinstance(view, str))
        faults += len(report.faults)
    raise typer.Exit(1 if faults else 0)


@app.command(
    epilog=examples(
        "pet-bench data pack ~/datasets", "pet-bench data pack ~/datasets --suite image-text --out /scratch/pet-bench"
    )
)
def pack(
    root: Root,
    suite: SuiteName = None,
    task: TaskNames = None,
    out: Annotated[
        Path | None, typer.Option(help="Cache folder; runs find it if PET_BENCH_CACHE names it. Default: theirs.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="TASK.KEY=VALUE", help="Change a protocol option; repeatable.")
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Pack the features of a suite ahead of training, as a run would. If interrupted, run it again to go on.

    A run finds the packed features if it has the same tasks and splits and the source files are unchanged.
    """
    load_plugins(plugin)
    from pet_bench.trial.data import read_and_pack

    for chosen, tasks in _suites(root, suite, task, set_):
        with bar(f"packing {chosen.name}") as progress:
            _, store = read_and_pack(root, tasks, chosen.visual, cache=out, progress=progress)
        size = f"{len(store.array):,} features, {store.array.nbytes / 1e9:.2f} GB"
        print(f"{chosen.name}: {size} in {store.folder}")
    if out:
        print(f"runs find it with PET_BENCH_CACHE={out}")


def _suites(
    root: Path, name: str | None, tasks: list[str] | None, changes: list[str] | None
) -> list[tuple[Suite, list[Task]]]:
    """The suites that a data command is about, each with its tasks as the protocol changes make them."""
    from pet_bench.data.check import suites_in
    from pet_bench.data.suite import suite_by_name
    from pet_bench.trial.data import build_tasks

    if not root.is_dir():
        raise UserError(f"data folder {root} does not exist" if not root.exists() else f"{root} is no folder")
    if name:
        suites = [suite_by_name(f"{name}/{'+'.join(tasks)}" if tasks else name)]
    else:
        suites = [suite_by_name(task) for task in tasks or []] or suites_in(root)
    if not suites:
        raise UserError(f"{root} holds annotations of no suite; name one with --suite to see what it needs")
    protocol: dict[str, dict[str, Any]] = {}
    for change in changes or []:
        key, value = key_value(change)
        target, _, option = key.partition(".")
        if not option or target not in {task for suite in suites for task in suite.tasks}:
            possible = sorted(task for suite in suites for task in suite.tasks)
            raise UserError(f'--set takes TASK.KEY=VALUE, found "{key}" (tasks: {", ".join(possible)})')
        protocol.setdefault(target, {})[option] = value
    return [(suite, build_tasks(suite.tasks, protocol)) for suite in suites]


def _check_views(root: Path, suite: str, report: Report) -> list[Any]:
    """A table of tasks and splits, the faults, where to get what is at fault, and the verdict."""
    from collections import Counter

    from rich.markup import escape
    from rich.table import Table

    table = Table("task", "split", "named", "files", box=None, pad_edge=False)
    for name in ("examples", "images", "features", "faults"):
        table.add_column(name, justify="right")
    for part in report.parts:
        states = Counter(part.files.values())
        files = ", ".join(f"{states[state]} {state}" for state in ("found", "missing", "broken") if states[state])
        numbers = [f"{number:,}" for number in (part.examples, part.images, part.ready, part.faults)]
        style = "red" if part.faults else ""
        table.add_row(part.task, part.split, escape(part.name), files, *numbers, style=style)
    views: list[Any] = [table, ""]
    views += [escape(f"✗ {fault.replace(f'{root}/', '')}") for fault in report.faults]
    if report.origins:
        origins = Table("from where", "", box=None, pad_edge=False)
        for pattern, origin in report.origins.items():
            origins.add_row(escape(pattern), escape(origin))
        views += ["", origins]
    values = f"all {report.features:,}" if report.sampled == report.features else f"{report.sampled:,}"
    looked = f"values of {values} features read" if report.features else "no features looked for"
    there = f"packed in {report.packed}" if report.packed else "not packed yet"
    there += ", but damaged: a run packs anew" if report.packed and not report.whole else ""
    verdict = f"{len(report.faults)} faults" if report.faults else "a run would go through"
    return [*views, *([""] if len(views) > 2 else []), escape(f"{suite}: {verdict}; {looked}; {there}")]


@app.command(epilog=examples("pet-bench data mini mini-data"))
def mini(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Folder to write the mini datasets to.")],
    seed: Annotated[int, typer.Option(help="Seed of the world.")] = 0,
) -> None:
    """Write the mini datasets, in the real datasets' file formats."""
    from pet_bench.mini.write import write_image_text

    try:
        write_image_text(root, seed=seed)
    except OSError as error:
        raise UserError(f"mini datasets cannot be written: {error}") from error
    print(f"wrote {root}")
