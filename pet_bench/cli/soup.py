"""`pet-bench soup`: a method's trials over seeds averaged into one model, and what that is worth."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pet_bench.cli.evaluate import Device
from pet_bench.cli.shared import GridName, Out, Plugins, To, load_plugins, trials_of, working, writing

if TYPE_CHECKING:
    from rich.table import Table

    from pet_bench.results.soups import Soup


def soup(
    grid: GridName,
    method: Annotated[str, typer.Option(help="Method, by name or as tables call it.")],
    backbone: Annotated[str | None, typer.Option(help="Its backbone, where the grid has several.")] = None,
    suite: Annotated[str | None, typer.Option(help="Its suite, likewise.")] = None,
    kind: Annotated[
        Literal["uniform", "greedy", "both"],
        typer.Option(help="Average all trials, or greedily those that raise the validation score."),
    ] = "both",
    unshared: Annotated[
        bool,
        typer.Option("--unshared", help="Average also what started at other values in each seed: a mean of no model."),
    ] = False,
    data: Annotated[Path | None, typer.Option(help="Root folder of the datasets, as for run.")] = None,
    device: Device = "auto",
    out: Out = None,
    to: To = None,
    plugin: Plugins = None,
) -> None:
    """Average a method's finished trials over seeds, and compare with their mean score and their ensemble.

    Of updates that are linear, LoRA's and its kin, ΔW is averaged, not the factors; all else by parameters, which has a
    meaning only where trials start at the same values: with one recipe.init_seed for all seeds, as in the grid
    mini-soup. Writes report/soup-….json and its predictions.
    """
    load_plugins(plugin)
    from rich.console import Console

    from pet_bench.cli.tables import print_tables
    from pet_bench.results import store
    from pet_bench.trial.soup import members_of
    from pet_bench.trial.soups import compare_soups

    trials, folder = trials_of(grid, out)
    ids = {trial.id for trial in trials}
    results = {id: result for id, result in store.load_all(folder).items() if id in ids}
    members = members_of(results, method, backbone, suite)
    about = store.base(members[0].spec)
    slug = re.sub(r"[^\w.-]+", "-", "-".join((about["method"], about["backbone"], about["setup"][:4]))).strip("-")
    target = (to or folder / "report") / f"soup-{slug}.json"
    paths = [folder / f"{member.id}.json" for member in members]
    kinds: tuple[Literal["uniform", "greedy"], ...] = ("uniform", "greedy") if kind == "both" else (kind,)
    with working(f"averaging {len(members)} trials"), writing("--to FOLDER writes to another folder"):
        record = compare_soups(paths, target, kinds=kinds, data=data, device=device, unshared=unshared)
    console = Console(highlight=False)
    for line in _about(record):
        console.print(line, soft_wrap=True, markup=False)
    print_tables([_table(record)], keep=2)
    console.print(f"wrote {target}", soft_wrap=True, markup=False)


def _about(record: Soup) -> list[str]:
    seeds = ", ".join(str(one.seed) for one in record.ingredients)
    how = f"ΔW of {record.updates} modules is averaged, and {record.tensors} trained tensors by parameters"
    start = "" if record.shared else ", though they started at other values in each seed: a mean of no model"
    lines = [f"{record.method} on {record.backbone} for {record.suite}, seeds {seeds}", how + start]
    return [*lines, "ensemble: choices by mean log-probability, other answers by vote"]


def _table(record: Soup) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:.2f}"

    view, tasks = Table(box=SIMPLE_HEAD), list(record.ingredients[0].scores)
    for i, name in enumerate(("", "trials", "valid", *tasks, "average")):
        view.add_column(name, justify="right" if i else "left", no_wrap=True)
    seeds = {one.trial: str(one.seed) for one in record.ingredients}
    for one in record.ingredients:
        scores = (number(one.scores[task]) for task in tasks)
        view.add_row("trial", f"seed {one.seed}", number(one.validation), *scores, number(one.average))
    mean, count = record.mean, str(len(record.ingredients))
    view.add_row("mean of the trials", count, "–", *map(number, mean.values()), number(sum(mean.values()) / len(mean)))
    for name in ("uniform", "greedy", "ensemble"):
        if one := getattr(record, name):
            scores = (number(one.scores[task]) for task in tasks)
            of = count if len(one.members) == len(seeds) else "seed " + ", ".join(seeds[id] for id in one.members)
            what = name if name == "ensemble" else f"{name} soup"
            view.add_row(what, of, number(one.validation), *scores, number(one.average))
    return view
