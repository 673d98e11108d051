"""`pet-bench compare`: is the difference of two methods real, and where is it?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pet_bench.cli.shared import Plugins, load_plugins
from pet_bench.errors import UserError, shortened, unknown

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

LEAST = (  # of what is printed, where it does not fit
    "95 % over seeds", "p over seeds", "p over examples", "n", "95 % over examples", "equal", "seed", "95 % interval",
    "neither", "both", "larger p, Holm", "A − B",
)  # fmt: skip
LEVEL = 0.05  # as in report.statistics
Side = Annotated[
    str,
    typer.Argument(
        metavar="METHOD|TRIAL",
        help="A method as tables name it (lora, 'lora, text-only'); a trial's path or the first 4 digits of its id.",
    ),
]


def compare(
    a: Side,
    b: Side,
    out: Annotated[
        list[str] | None, typer.Option(metavar="FOLDER|GRID", help="Results; repeatable. Default: all in results/.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Only this task.")] = None,
    examples: Annotated[
        int,
        typer.Option(
            min=0, max=1_000_000, help="List so many examples on which A is better by most, and as many for B."
        ),
    ] = 0,
    plugin: Plugins = None,
) -> None:
    """Compare two methods, or two trials, on what both were tested on: differences, how sure they are, how large.

    The interval is a paired bootstrap's over examples; p is the larger of that over examples and that of a t-test over
    seeds, or that over both at once (with n = 1 of the first alone), and is corrected by Holm over the rows. d is
    Cohen's, of paired examples.
    """
    load_plugins(plugin)
    if a == b:
        raise UserError(f'"{shortened(a)}" is compared with itself: give two methods or trials')
    from rich.console import Console
    from rich.markup import escape

    from pet_bench.cli.tables import print_tables
    from pet_bench.report.statistics import compare as compared
    from pet_bench.report.statistics import disagreements, right_and_wrong

    frame, folders = _results(out, (a, b))
    console = Console(highlight=False)
    for place, one, other in _sections(a, b, frame):
        if task:
            known = {task for rows in (one, other) for task in rows.task.dropna()}
            one, other = (rows[rows.task == task] for rows in (one, other))
            if one.empty or other.empty:
                raise unknown("task", task, known)
        table, lines = compared(one, other, folders)
        views = [_differences(table), _effects(table), _right(right_and_wrong(one, other, folders))]
        if examples:
            tasks = table.task[table.task != "average"]
            views += [_examples(name, disagreements(one, other, folders, name, examples)) for name in tasks]
        console.print(f"[bold]A[/bold] {escape(a)}, [bold]B[/bold] {escape(b)}: {escape(place)}")
        for view in views:
            if view.row_count:
                console.print()
                print_tables([view], least=LEAST)
        for line in [*_notes(table), *lines]:
            console.print(escape(line), soft_wrap=True)
        console.print()


def _results(out: list[str] | None, names: tuple[str, str]) -> tuple[pd.DataFrame, list[Path]]:
    """All results of the folders and of trials given by path, with the columns name (of the method) and folder."""
    from pet_bench.files import is_folder
    from pet_bench.results import store

    folders = [Path(one) if is_folder(one) else _folder(one) for one in out or ()] or store.known_folders()
    paths = [store.find(name, []) for name in names if "/" in name or name.endswith(".json")]
    collected = store.collect(folders)
    for path in filter(None, paths):
        collected[path.stem] = store.load(path), path.parent
    if not collected:
        raise UserError(f"no results in {', '.join(map(str, folders)) or 'results/*'}: name a folder or grid by --out")
    frame = store.to_frame(result for result, _ in collected.values())
    frame["name"] = frame.id.map({id: result.spec["method"]["name"] for id, (result, _) in collected.items()})
    frame["folder"] = frame.id.map({id: str(folder) for id, (_, folder) in collected.items()})
    return frame, list(dict.fromkeys([*(path.parent for path in filter(None, paths)), *folders]))


def _folder(grid: str) -> Path:
    from pet_bench.grid.plan.spec import load

    return load(grid).folder


def _sections(a: str, b: str, frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """(where, rows of A, rows of B) for each suite and backbone on which both are found; two trials are one section."""
    sides, trials = zip(*(_side(name, frame) for name in (a, b)), strict=True)
    for name, rows in zip((a, b), sides, strict=True):
        if rows[rows.task.notna() & rows.status.isin(["done", "suspect"])].empty:
            raise UserError(f'"{name}" has no scores: {", ".join(rows.status.unique())}')
    if set(sides[0].id) & set(sides[1].id):
        raise UserError(f'"{a}" and "{b}" are the same, or one is a part of the other: give two methods or trials')
    if all(trials):
        return [(" and ".join(dict.fromkeys(_place(rows) for rows in sides)), *sides)]
    groups = [dict(list(rows.groupby(["suite", "backbone"], sort=False))) for rows in sides]
    places = [place for place in groups[0] if place in groups[1]]
    if not places:
        where = (" and ".join(f"{' on '.join(place)}" for place in group) for group in groups)
        raise UserError(f'nothing in common: "{a}" is of {next(where)}, "{b}" of {next(where)}')
    for place in places:
        for name, group in zip((a, b), groups, strict=True):
            if (count := group[place].setup.nunique()) > 1:
                folders = ", ".join(dict.fromkeys(group[place].folder))
                raise UserError(
                    f'"{name}" on {place[1]} is {count} different recipes or protocols (in {folders}): name one folder '
                    "by --out, or two trials"
                )
    return [(" on ".join(place), *(group[place] for group in groups)) for place in places]


def _side(name: str, frame: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """The rows of a method or trial, and whether it is a trial."""
    shown = frame.method.where(frame.control == "none", frame.method + ", " + frame.control)
    if (shown == name).any():
        return frame[shown == name], False
    named = frame[(frame["name"] == name) & (frame.control == "none")]
    if len(labels := list(dict.fromkeys(named.method))) == 1:
        return named, False
    if labels:
        raise UserError(f'"{name}" may be {", ".join(labels)}: give one of these')
    id = Path(name).stem if "/" in name or name.endswith(".json") else name
    ids = [one for one in dict.fromkeys(frame.id) if len(id) >= 4 and one.startswith(id)]
    if len(ids) > 1:
        raise UserError(f'"{name}" may be {", ".join(ids)}: give more digits')
    if not ids:
        raise unknown("method or trial", name, set(shown))
    return frame[frame.id == ids[0]], True


def _place(rows: pd.DataFrame) -> str:
    return f"{rows.suite.iloc[0]} on {rows.backbone.iloc[0]}"


def _differences(table: pd.DataFrame) -> Table:
    intervals = "95 % over\nexamples", "95 % over\nseeds"
    p_values = "p over\nexamples", "p over\nseeds", "larger p,\nHolm"
    view = _table("difference", "task", "A", "B", "n", "A − B", *intervals, *p_values, "better")
    for row in table.to_dict("records"):
        count = dict.fromkeys((row["a n"], row["b n"]))
        p = (_p(row[name]) for name in ("p examples", "p seeds", "p holm"))
        better = "open" if row["p holm"] > LEVEL else "[bold]A[/bold]" if row["difference"] > 0 else "[bold]B[/bold]"
        view.add_row(
            row["task"], _mean(row["a"], row["a std"]), _mean(row["b"], row["b std"]), " and ".join(map(str, count)),
            f"{row['difference']:+.2f}", _range(row["low"], row["high"]), _range(row["seeds low"], row["seeds high"]),
            *p, better,
        )  # fmt: skip
    return view


def _effects(table: pd.DataFrame) -> Table:
    columns = "task", "Cohen's d", "95 % interval", "A better", "equal", "B better"
    view = _table("effect over examples, each the mean over seeds", *columns)
    for row in table[table.better.notna()].to_dict("records"):
        shares = (f"{100 * row[name]:.1f} %" for name in ("better", "equal", "worse"))
        d = "–" if row["d"] != row["d"] else f"{row['d']:+.2f}"
        view.add_row(row["task"], d, _range(row["d low"], row["d high"]), *shares)
    return view


def _right(counts: pd.DataFrame) -> Table:
    view = _table("right answers, seed by seed", "task", "seed", "both", "only A", "only B", "neither", "p (McNemar)")
    for row in counts.to_dict("records"):
        numbers = (str(row[name]) for name in ("seed", "both", "only a", "only b", "neither"))
        view.add_row(row["task"], *numbers, _p(row["p"]))
    return view


def _examples(task: str, rows: pd.DataFrame) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    view = Table(box=SIMPLE_HEAD, title=f"{task}: largest disagreements", title_justify="left", title_style="bold")
    for name in ("example", "A", "score", "B", "score"):
        view.add_column(
            name, justify="right" if name == "score" else "left", overflow="fold", no_wrap=name == "example"
        )
    for row in rows.to_dict("records"):
        view.add_row(
            escape(row["id"]), escape(row["a"]), f"{row['a score']:.1f}", escape(row["b"]), f"{row['b score']:.1f}"
        )
    return view


def _notes(table: pd.DataFrame) -> list[str]:
    lines = []
    if table["p examples"].notna().any():
        lines.append("over examples: paired bootstrap, 10,000 draws, seeds as they are")
    for kind, name in (("Welch", "Welch's t-test"), ("paired t", "paired t-test, both have the same seeds")):
        if kind in set(table.seeds):
            lines.append(f"over seeds: {name}; mean ± sample standard deviation over n seeds")
    if "n = 1" in set(table.seeds):
        lines.append("n = 1: nothing is tested over seeds; another seed may turn what is said here")
    if table["p joint"].notna().any():
        lines.append("larger p: of these two, or of a t-test over both at once, with the sum of their variances")
    corrected = f", after Holm's correction for the {len(table)} rows," if len(table) > 1 else ""
    lines.append(f"better: where the larger p{corrected} is at most 5 %; open: not told apart")
    return lines


def _table(title: str, first: str, *columns: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    view = Table(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    view.add_column(first, no_wrap=True)
    for name in columns:
        view.add_column(name, justify="right")
    return view


def _mean(mean: float, std: float) -> str:
    return f"{mean:.2f}" if std != std else f"{mean:.2f} ± {std:.2f}"


def _range(low: float, high: float) -> str:
    return "–" if low != low else f"{low:.2f} to {high:.2f}"


def _p(p: float) -> str:
    return "–" if p != p else "<0.001" if p < 0.001 else f"{p:.3f}"
