"""`pet-bench best`: what a search found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pet_bench.cli.shared import GridName, Out, Plugins, To, folder_of, load_plugins, writing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from pet_bench.grid.plan.planned import Group
    from pet_bench.grid.plan.search import Candidate


def best(grid: GridName, out: Out = None, to: To = None, plugin: Plugins = None) -> None:
    """Rank what a search tried by validation, and write a grid of the best of each method, to be run with all seeds.

    Per backbone, suite, control and method. Scores are means over the tasks' primary metrics on their validation
    splits (negated where less is better); test scores are not looked at. Trials that were stopped early cannot win.
    """
    load_plugins(plugin)
    from collections import Counter

    from rich.console import Console

    from pet_bench.cli.tables import print_tables
    from pet_bench.files import write_text
    from pet_bench.grid.plan.search import best_grid, ranking
    from pet_bench.grid.plan.spec import load
    from pet_bench.results import store

    plan = load(grid, out)
    folder = folder_of(plan, grid, out)
    ranked = ranking(plan, store.load_all(folder))
    print_tables(_tables(ranked), least=["n", "epochs"])
    console = Console()
    left = Counter(one.status for group in ranked.values() for one in group if not one.finished)
    left.pop("stopped_early", None)
    if left:
        counts = ", ".join(f"{count} × {status}" for status, count in left.items())
        console.print(f"not every trial is finished ({counts}): what is best may change", highlight=False)
    path = (to or folder) / "best.yaml"
    final = best_grid(plan, folder, ranked)
    about = f"# What {plan.name} found best by validation, with the seeds of the final runs: pet-bench run {path}\n"
    with writing("--to FOLDER writes to another folder"):
        write_text(path, about + final.dump())
    console.print(f"wrote {path}", soft_wrap=True, highlight=False)


def _tables(ranked: Mapping[Group, list[Candidate]]) -> list[Table]:
    """One for each suite, backbone and control."""
    sections: dict[tuple[str, str, str], list[list[Candidate]]] = {}
    for group, candidates in ranked.items():
        sections.setdefault((group.suite, group.backbone, group.control), []).append(candidates)
    return [_table(*section, groups) for section, groups in sections.items()]


def _table(suite: str, backbone: str, control: str, groups: list[list[Candidate]]) -> Table:
    """Every method's candidates, the best first and marked."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    from pet_bench.spec import plain

    keys = list(dict.fromkeys(key for group in groups for candidate in group for key in candidate.values))
    title = f"{suite} on {backbone}" + ("" if control == "none" else f", {control}")
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", title_style="bold")
    for name in ("", "method"):
        table.add_column(name, no_wrap=True)
    for name in (*(key.removeprefix("recipe.") for key in keys), "validation", "epochs", "n"):
        table.add_column(escape(name), justify="right")
    table.add_column("status")
    table.add_column("", overflow="fold")
    for group in groups:
        for place, one in enumerate(group):
            first = place == 0 and one.finished
            validation, color = one.validation, "green" if one.status == "done" else "yellow"
            table.add_row(
                "best" if first else "", escape(one.group.method),
                *(escape(plain(one.values[key])) if key in one.values else "–" for key in keys),
                *((f"{validation.score:.2f}", f"{validation.epoch:g}") if validation else ("–", "–")),
                f"{one.n}" if one.n == len(one.trials) else f"{one.n} of {len(one.trials)}",
                f"[{color}]{one.status}[/{color}]", escape("; ".join(one.errors)),
                style="bold" if first else None,
            )  # fmt: skip
        table.add_section()
    return table
