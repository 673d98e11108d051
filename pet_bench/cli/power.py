"""`pet-bench power`: which differences a grid's tables can show, and what it takes to see smaller ones."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from pet_bench.cli.shared import GridName, Out, Plugins, folder_of, load_plugins, uncollected, working
from pet_bench.errors import Faults, UserError, shortened, unknown

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

    from pet_bench.report.statistics import Column, Spread

PREVIEW = 5, 10, 20  # seeds
LARGEST = 10_000_000  # examples


def power(
    grid: GridName,
    out: Out = None,
    seeds: Annotated[
        list[int] | None,
        typer.Option(min=2, max=1000, help="With so many seeds; repeatable. Default: as it is, 5, 10, 20."),
    ] = None,
    examples: Annotated[
        list[str] | None,
        typer.Option(metavar="N|TASK=N", help="With so many test examples, of every task or of one; repeatable."),
    ] = None,
    difference: Annotated[
        float | None, typer.Option(min=0.001, max=1000, help="How many seeds a difference of so many points needs.")
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Say which differences can be seen: from finished trials, with 80 % power, by the tests that tables use.

    Of two figures the first is for a single comparison at 5 %, the second for one among all comparisons of the table:
    at 5 % over their number, with which Holm's correction begins. Both are of a typical pair of the grid's methods
    (root mean square over all pairs). Nothing is run.
    """
    load_plugins(plugin)
    from rich.console import Console

    from pet_bench.cli.tables import print_tables
    from pet_bench.grid.plan.spec import load

    plan = load(grid)
    folder = folder_of(plan, grid, out)
    with uncollected(), working("reading results"):
        found, left_out = _sections(plan.name, [trial.id for trial in plan.trials()], folder)
    given = _given(examples, {column.name for columns in found.values() for column in columns})
    tables = [_table(place, columns, seeds, given, difference) for place, columns in found.items()]
    print_tables(tables, keep=2)
    console = Console(highlight=False)
    for line in [*_notes(difference), *left_out]:
        console.print(line, soft_wrap=True)


def _sections(name: str, ids: list[str], folder: Path) -> tuple[dict[str, list[Column]], list[str]]:
    """The columns of each table, by its title, and of which of them nothing can be said; raises UserError if of all."""
    from pet_bench.report.statistics import check_comparable, columns, usual_seeds
    from pet_bench.report.summary import primary_scores
    from pet_bench.results import store

    stored = store.load_all(folder)
    rows = primary_scores(store.to_frame(stored[id] for id in ids if id in stored))
    rows = rows[rows.control == "none"]
    if rows.empty:
        raise UserError(f'no trial of grid "{name}" is finished in "{folder}": `pet-bench run` runs what is missing')
    found: dict[str, list[Column]] = {}
    faults = Faults()
    for place, section in rows.groupby(["suite", "backbone"], sort=False):
        title = " on ".join(map(str, place))
        with faults:
            check_comparable(section)
            own, _ = columns(section, folder)
            if len(own[-1].seeds) < 2:
                raise UserError(f"{title}: one method alone is compared with nothing")
            if usual_seeds(own[-1]) < 2:
                raise UserError(f"{title}: n = 1: how far seeds lie apart takes two of each method at least")
            found[title] = own
    if not found:
        faults.check()
    return found, [f"left out: {error}" for error in faults.found]


def _given(texts: list[str] | None, known: set[str]) -> dict[str, int]:
    """Numbers of examples by task, that for every other task under the empty name."""
    given: dict[str, int] = {}
    faults = Faults()
    for text in texts or []:
        with faults:
            task, _, number = text.rpartition("=")
            if not re.fullmatch(r"[0-9]{1,8}", number) or not 2 <= int(number) <= LARGEST:
                raise UserError(
                    f'--examples takes a number of 2 to {LARGEST:,}, or TASK=NUMBER, found "{shortened(text)}"'
                )
            if task not in known - {"average"} and ("=" in text):
                raise unknown("task", task, known - {"average"})
            if task in given:
                raise UserError(f"--examples {task or 'for every task'} is given twice")
            given[task] = int(number)
    faults.check()
    return given


def _table(
    title: str, columns: list[Column], seeds: list[int] | None, given: dict[str, int], difference: float | None
) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from pet_bench.report.statistics import comparisons, usual_seeds

    count, own = comparisons(columns), usual_seeds(columns[-1])
    shown = seeds or sorted({own, *PREVIEW})
    view = Table(title=f"{title}: {own} seeds, {count} comparisons", box=SIMPLE_HEAD, title_justify="left")
    view.add_column("", no_wrap=True)
    heads = ["examples", "± seeds,\npaired", "± seeds", "± examples", *(f"{k} seeds" for k in shown)]
    for head in [*heads, f"seeds for\n{difference:g} points"] if difference else heads:
        view.add_column(head, justify="right")
    for column in columns:
        view.add_row(*_cells(column, count, shown, given, difference))
    return view


def _cells(
    column: Column, comparisons: int, seeds: list[int], given: dict[str, int], difference: float | None
) -> list[str]:
    from math import sqrt

    from pet_bench.report.statistics import LEVEL, Design, spread

    of = spread(column)
    if of is None or (given and not of.parts):
        return [column.name, *["–"] * (4 + len(seeds) + (difference is not None))]
    wanted = [given.get(task, given.get("")) for task in column.examples]
    of = of.enlarged({place: n for place, n in enumerate(wanted) if n})
    levels = LEVEL, LEVEL / comparisons
    examples = f"{sum(part.n for part in of.parts):,}" if of.parts else "–"
    spreads = (f"{sqrt(variance):.1f}" for variance in (of.paired + of.residual, of.apart + of.residual))
    cells = [column.name, examples, *spreads, f"{sqrt(of.examples):.1f}" if of.parts else "–"]
    cells += [" / ".join(_points(Design(of, k, level).detectable()) for level in levels) for k in seeds]
    return cells + ([" / ".join(_needed(of, difference, level) for level in levels)] if difference else [])


def _points(difference: float) -> str:
    return f"{difference:.1f}" if difference < float("inf") else "–"


def _needed(of: Spread, difference: float, level: float) -> str:
    from pet_bench.report.statistics import LIMIT, examples_needed, seeds_needed

    if (times := examples_needed(of, difference, level)) >= 1:
        return f"{times:.2f} × examples"
    found = seeds_needed(of, difference, level)
    return str(found) if found else f"over {LIMIT}"


def _notes(difference: float | None) -> list[str]:
    lines = [
        "± standard deviation of a difference between two methods: of one seed in common (paired), of two seeds "
        "that have nothing in common, and of these examples if there were endless seeds",
        "k seeds: the least difference seen with 80 % power, in points: in a single comparison at 5 %, and / in this "
        "table, at 5 % over its comparisons (Holm's first step)",
    ]
    if difference:
        lines.append("seeds for it: so, too; × examples: that many times the examples are too few with any seeds")
    return lines
