"""`pet-bench doctor`: what is wrong with a place, before a grid is run there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from pet_bench.cli.grid import Address, Data, Gpus
from pet_bench.cli.shared import Out, Plugins, folder_of, load_plugins, working
from pet_bench.errors import Faults, UserError

STYLES = {"ok": "green", "caution": "yellow", "fault": "red"}


def doctor(
    grid: Annotated[
        str | None,
        typer.Argument(metavar="GRID", help="Whose results folder and resources are meant; without, --out."),
    ] = None,
    out: Out = None,
    data: Data = None,
    plugin: Plugins = None,
    gpus: Gpus = None,
    nodes: Annotated[int | None, typer.Option(min=1, max=10_000, help="How many nodes are to be there.")] = None,
    ray_address: Address = None,
) -> None:
    """Check this machine, or every node of a Ray cluster, before a grid is run there; a line for each check.

    Exit code 2 if there is a fault: trials would fail or be lost.
    """
    from rich.console import Console
    from rich.markup import escape

    from pet_bench.grid.doctor.asked import Asked
    from pet_bench.grid.doctor.doctor import facts_of
    from pet_bench.grid.doctor.judge import findings
    from pet_bench.grid.execute.process import start_seconds
    from pet_bench.grid.plan.spec import Resources, load
    from pet_bench.registry import FILES

    if nodes is not None and ray_address is None:
        raise UserError("--nodes is for --ray-address")
    load_plugins(plugin, Faults())  # a grid may be of them; those that cannot be loaded are found everywhere
    resources, folder = Resources(), out or Path("results")
    if grid is not None:
        plan = load(grid, out)
        resources, folder = plan.resources, folder_of(plan, grid, out)
    asked = Asked(
        out=str(folder.absolute()), data=None if data is None else str(data.absolute()),
        plugins=tuple(str(Path(one).absolute()) if one.endswith(FILES) else one for one in plugin or ()),
        cpus=resources.cpus, gpus=resources.gpus if gpus is None else gpus, nodes=nodes, seconds=start_seconds(),
        cache=os.environ.get("PET_BENCH_CACHE"),
    )  # fmt: skip
    with working("looking at this machine" if ray_address is None else "looking at every node"):
        found = findings(facts_of(asked, ray_address), asked)
    console = Console(highlight=False)
    for one in found:
        style = STYLES[one.level]
        console.print(f"[{style}]{one.level:8}[/{style}] {one.check:10} {escape(one.text)}", soft_wrap=True)
    count = {level: sum(one.level == level for one in found) for level in ("fault", "caution")}
    said = ", ".join(f"{number} {level}{'s' * (number != 1)}" for level, number in count.items())
    console.print(said, soft_wrap=True)
    if count["fault"]:
        raise typer.Exit(2)
