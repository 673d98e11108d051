"""`pet-bench results`: folders of results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pet_bench.cli.shared import App, examples
from pet_bench.errors import Faults, UserError

app = App(help="Check folders of results.", no_args_is_help=True)


@app.callback()
def results() -> None:
    """Check folders of results."""


@app.command(
    epilog=examples(
        "pet-bench results check",
        "pet-bench results check results/demo",
        "pet-bench results check --contribution results",
    )
)
def check(
    folder: Annotated[
        list[Path] | None, typer.Argument(metavar="FOLDER...", help="With the folders in it. Default: results.")
    ] = None,
    contribution: Annotated[
        bool,
        typer.Option(
            "--contribution", help="And for what results need to be kept with those of others (CONTRIBUTING.md)."
        ),
    ] = False,
) -> None:
    """Check that results are whole, consistent and free of paths and names of machines. Alters nothing.

    With --contribution also who ran them (about.yaml), that code and data are those of a commit and of the other
    folders, that outliers have been seen, and sizes. Exit code 2 if there are faults, each on a line.
    """
    from pet_bench.grid.plan.spec import load
    from pet_bench.results import contributed
    from pet_bench.results.check import check as check_folder
    from pet_bench.results.check import folders, remarks
    from pet_bench.results.store import ABSOLUTE

    faults, counts, said = Faults(), {}, []
    fingerprints: contributed.Fingerprints = {}
    for root in folder or [Path("results")]:
        if not root.is_dir():
            faults.add(f'results folder "{root}" does not exist')
            continue
        for path in folders(root):
            counts[path.resolve()] = len(list(path.glob("*.json")))
            for fault in check_folder(path):
                faults.add(fault)
            for fault in contributed.faults(path, fingerprints) if contribution else ():
                faults.add(fault)
            said += [f"{path}: {remark}" for remark in remarks(path)]
            if (grid := path / "grid.yaml").is_file():
                with faults:
                    load(grid)
                    if match := ABSOLUTE.search(text := grid.read_text(encoding="utf-8")):
                        line = text[match.start() :].splitlines()[0]
                        raise UserError(f'grid file "{grid}" has an absolute path: "{line}"')
    for remark in said:
        print(remark)
    faults.check()
    total, used = sum(counts.values()), sum(map(bool, counts.values()))
    s = "s" * (total != 1), "s" * (used != 1)
    print(f"{total} result{s[0]} in {used} folder{s[1]}: all valid" if total else "no results")


def merge(
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE...", help="Results folders.")],
    out: Annotated[Path, typer.Option(help="Results folder to copy to; what it has stays.")],
    prefer: Annotated[
        Literal["first", "newest"] | None,
        typer.Option(help="Of results of a trial that scored differently; those in --out come first."),
    ] = None,
) -> None:
    """Copy the results of several folders, from several machines say, into one. Repeat it if it is cut off.

    A done result goes before a suspect one, and that before a failed one. Where a trial scored differently in two
    folders, nothing is copied, unless --prefer says which to keep. The sources stay as they are.
    """
    from collections import Counter

    from pet_bench.results.merge import merge as merge_folders

    places = Counter(path.resolve() for path in (*sources, out))
    for path in (*sources, out):
        if places[path.resolve()] > 1:
            raise UserError(f'"{path}" is more than one of the sources and --out: it holds its own results')
    merged = merge_folders(sources, out, prefer)
    for source, count in Counter(merged.copied.values()).items():
        print(f"{count} result{'s' * (count != 1)} copied from {source}")
    if merged.present:
        print(f"{len(merged.present)} already in {out}")
    if not merged.grid:
        theirs = "grid.yaml is not that of all sources" if merged.grid is False else "no grid.yaml: the sources' differ"
        print(f"{out} has {theirs}; name the grid in `pet-bench report GRID --out {out}`")


def show_trial(name: str, out: Path | None) -> None:
    """Print a trial, found by its path or by its id in `out` or in the folders in results/."""
    from difflib import get_close_matches

    from rich.console import Console
    from rich.table import Table

    from pet_bench.cli.tables import print_tables
    from pet_bench.registry import METHODS
    from pet_bench.report.tables.trial import trial_view
    from pet_bench.results import store
    from pet_bench.results.provenance import commit

    folders = [out] if out else store.known_folders()
    if (path := store.find(name, folders)) is None:
        close = get_close_matches(name, METHODS.names(), n=1)
        hint = f'did you mean "{close[0]}"?' if close else "`pet-bench list methods` names them"
        raise UserError(
            f'"{name}" is no method ({hint}) and no trial (a result\'s path, or the first 4 digits or more of an id in '
            f"{out or 'results/*'}/)"
        )
    console = Console(highlight=False)
    for view in trial_view(path, commit()[0]):
        if isinstance(view, str):
            console.print(view, soft_wrap=True)
        else:
            assert isinstance(view, Table)  # the other kind of view
            print_tables([view], keep=3)
