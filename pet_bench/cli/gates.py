"""`pet-bench gates`: heat maps of a trial's gates over the tokens of one example."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pet_bench.cli.shared import Plugins, To, load_plugins, writing
from pet_bench.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from pet_bench.trial.gates import Gates


def gates(
    trial: Annotated[
        str, typer.Argument(metavar="TRIAL", help="Its result's path, or the first 4 digits of its id in results/*.")
    ],
    task: Annotated[str | None, typer.Option(help="Task of the example; by default the trial's first.")] = None,
    example: Annotated[str | None, typer.Option(metavar="ID", help="A test example by its id.")] = None,
    index: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, max=10**9, help="A test example by its number, from 0; the default is 0."),
    ] = None,
    site: Annotated[
        list[str] | None, typer.Option(help="Only this site, encoder.ffn say; repeatable. Default: all with a gate.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Root folder of the datasets, as for run.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the pictures, named after the images; the mini world has its own.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png|FOLDER",
            help="File to write, by default in report/ beside the trial's result; or the folder of an id's results.",
        ),
    ] = None,
    to: To = None,
    plugin: Plugins = None,
) -> None:
    """Draw the gates of a trained method over the text and image tokens of one test example.

    The model runs on the example alone, on the CPU. Prints the mean gate of each site and layer over the tokens of each
    kind, and writes heat maps (.png, .svg) with their values (.csv).
    """
    load_plugins(plugin)
    if example is not None and index is not None:
        raise UserError("--example and --index both say which example: give one")
    file, folders = (out, None) if out and out.suffix == ".png" else (None, [out] if out else None)
    if folders and not folders[0].is_dir():
        raise UserError(f'--out is a file that ends in .png or a folder of results, found "{out}"')
    if file and to:
        raise UserError("--out FILE.png and --to FOLDER both say where to write: give one")
    from rich.console import Console
    from rich.markup import escape

    from pet_bench.cli.tables import print_tables
    from pet_bench.files import write_text
    from pet_bench.report.figures.gates import gates_figure, mean_gates
    from pet_bench.report.figures.look import write
    from pet_bench.results import store
    from pet_bench.trial.gates import gate_values
    from pet_bench.trial.run import ADAPTER

    if (path := store.find(trial, folders or store.known_folders(), beside=ADAPTER)) is None:
        raise UserError(
            f'"{trial}" is no trial (a result\'s path, or the first 4 digits or more of an id in '
            f"{out if folders else 'results/*'}/)"
        )
    gates = gate_values(path, task, (index or 0) if example is None else example, data, site)
    frame, dimensions = gates.to_frame(), gates.dimensions()
    console = Console(highlight=False)
    for line in _about(gates, path):
        console.print(escape(line), soft_wrap=True)
    console.print()
    print_tables([_table(mean_gates(frame))], keep=3)
    for line in dict.fromkeys(f"{gate.site}: {gate.formula}" for gate in gates.values):
        console.print(escape(line), soft_wrap=True)
    console.print()

    name = re.sub(r"[^\w.-]", "_", f"gates-{gates.spec.id}-{gates.task}-{gates.example.id}")
    target = file or (to or path.parent / "report") / f"{name}.png"
    tables = {target.with_suffix(".csv"): frame}
    if len(dimensions):
        tables[target.with_name(f"{target.stem}-dimensions.csv")] = dimensions
    with writing("--to FOLDER writes to another folder"):
        written = write(gates_figure(frame, _pictures(gates, data, images), dimensions), target)
        for place, table in tables.items():
            write_text(place, table.to_csv(index=False, lineterminator="\n"))
    for place in [*written, *tables]:
        console.print(f"wrote {escape(str(place))}", soft_wrap=True)


def _about(gates: Gates, path: Path) -> list[str]:
    """The example, what the model says of it and what is right."""
    from pet_bench.results import predictions as saved

    lines = [f"{gates.spec}, trial {gates.spec.id}", f"{gates.task} {gates.example.id}: {gates.example.text}"]
    answers = " | ".join(dict.fromkeys(answer for answer, _ in gates.example.targets))
    said = f"prediction: {gates.prediction}" + (f" (right: {answers})" if answers else "")
    if file := saved.find(gates.spec.id, gates.task, [path.parent]):
        earlier = saved.read(file).get(gates.example.id, (gates.prediction, None))[0]
        if earlier != gates.prediction:  # there it was one of a batch, with padding
            said += f"; in the trial it was: {earlier}"
    return [*lines, said]


def _table(means: pd.DataFrame) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    view = Table(box=SIMPLE_HEAD, title="mean gate over the tokens of a kind", title_justify="left")
    parts = list(means.columns[4:])
    for name in ("site", "gate", "layer", *parts):
        view.add_column(name, justify="left" if name in ("site", "gate") else "right")
    for row in means.to_dict("records"):
        numbers = ("–" if row[part] != row[part] else f"{row[part]:.4f}" for part in parts)
        view.add_row(row["site"], row["kind"], str(row["layer"]), *numbers)
    return view


def _pictures(gates: Gates, data: Path | None, images: Path | None) -> list[Path]:
    """A picture for each image of the example; none where some are not there or one file holds several."""
    from pet_bench.report.page.examples import examples

    spec, example = gates.spec, gates.example
    shown = examples(spec.suite, gates.task, data, images, spec.protocol, [example.id])[example.id]
    keys = list(dict.fromkeys(example.images))
    if len(keys) != len(shown.pictures):
        return []
    files = dict(zip(keys, shown.pictures, strict=True))
    return [files[key] for key in example.images]
