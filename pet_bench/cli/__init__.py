"""The command line. Heavy imports are inside the commands, so that `pet-bench --help` is instant."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pet_bench.cli.adapters import import_, push
from pet_bench.cli.catalogue import Kind
from pet_bench.cli.compare import compare
from pet_bench.cli.data import app as data_app
from pet_bench.cli.doctor import doctor
from pet_bench.cli.evaluate import evaluate
from pet_bench.cli.export import export
from pet_bench.cli.gates import gates
from pet_bench.cli.grid import rerun, run, status
from pet_bench.cli.output import guarded
from pet_bench.cli.power import power
from pet_bench.cli.report import report
from pet_bench.cli.results import app as results_app
from pet_bench.cli.results import merge, show_trial
from pet_bench.cli.search import best
from pet_bench.cli.shared import (
    SEEDS,
    App,
    Commands,
    Plugins,
    ScopeOption,
    bar,
    changes,
    examples,
    load_plugins,
    only_with,
    report_error,
    scoped,
    uncollected,
)
from pet_bench.cli.soup import soup
from pet_bench.cli.tables import print_tables
from pet_bench.errors import Faults, UserError, shortened

if TYPE_CHECKING:
    from pet_bench.trial.score import Scored

app = App(
    name="pet-bench",
    cls=Commands,
    help="Which parameter-efficient tuning method, at what cost, on which tasks, and is the difference real?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
)
app.add_typer(data_app, name="data", cls=Commands)
app.add_typer(results_app, name="results", cls=Commands)


def _say_version(asked: bool) -> None:
    if asked:
        from pet_bench import __version__
        from pet_bench.results.provenance import commit

        revision, changed = commit()
        where = f" (commit {revision[:12]}{', changed since' * bool(changed)})" if revision else ""
        print(f"pet-bench {__version__}{where}")
        raise typer.Exit


@app.callback()
def _(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Say version, in a checkout its commit."),
    ] = False,
) -> None: ...


class Format(StrEnum):
    TABLE, CSV, JSON = "table", "csv", "json"


class ScoreFormat(StrEnum):
    TABLE, JSON = "table", "json"


@app.command("list", epilog=examples("pet-bench list", "pet-bench list methods --plugin my_method.py"))
def list_(kind: Annotated[Kind | None, typer.Argument()] = None, plugin: Plugins = None) -> None:
    """List what there is and where it comes from; methods with source, year and parameters, grids with their trials."""
    from pet_bench.cli import catalogue

    lost = Faults()
    load_plugins(plugin, lost)
    print_tables([catalogue.table(kind, lost)], least=["from", "year", "trainable"])
    lost.check()


@app.command(
    epilog=examples(
        "pet-bench show lora --backbone bart-base",
        "pet-bench show vl-adapter --backbone t5-base",
        "pet-bench show lora --backbone llava-hf/llava-1.5-7b-hf --scope language,vision",
        "pet-bench show results/demo/0123456789ab.json",
        "pet-bench show 0123 --out results/demo",
    )
)
def show(
    name: Annotated[
        str,
        typer.Argument(metavar="METHOD|TRIAL", help="A trial: its result's path, or the first 4 digits of its id."),
    ],
    backbone: Annotated[
        str | None, typer.Option(help="Of a method: backbone whose defaults apply; default: bart-base.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="Of a method: suite whose tasks it is built for; default: image-text.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="Of a method: change an option; repeatable."),
    ] = None,
    scope: ScopeOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder of a trial's id; by default all in results/.")] = None,
    plugin: Plugins = None,
) -> None:
    """Show a method on a backbone (its options, what it inserts where, what trains), or a trial with all there is."""
    lost = Faults()
    load_plugins(plugin, lost)
    from pet_bench.registry import METHODS

    if name not in METHODS:
        lost.check()  # it may be theirs
        only_with("a METHOD, which this is not", False, backbone=backbone, suite=suite, set=option, scope=scope)
        show_trial(name, out)
        return
    only_with("a TRIAL, and this is a method", False, out=out)
    _show_method(name, backbone or "bart-base", suite or "image-text", scoped(changes(option, "OPTION=VALUE"), scope))
    lost.check()


def _show_method(name: str, backbone: str, suite: str, options: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from pet_bench.results.schema import shares
    from pet_bench.spec import MethodSpec, plain
    from pet_bench.trial.count import describe

    method = MethodSpec(name).changed(options)
    about = describe(method, backbone, suite)
    console = Console(highlight=False)
    scope = f"\\[{', '.join(method.scope)}] " if method.scope else ""
    console.print(f"[bold]{escape(name)}[/bold] {scope}on {backbone}, for {suite}: {about.method.source}\n")
    console.print(escape(about.doc), soft_wrap=True)
    rows = {
        "options": [f"{key} = {plain(value)}" for key, value in about.options.items()],
        "inserts": [f"{formula}   at {', '.join(sites)}" for sites, formula in about.inserts],
        "doors": about.doors,
        "trains also": list(about.train),
        "differences": [
            f"{difference.name}: {about.behaviour[difference.name]} ({difference.option} = {difference.published} as "
            f"published, {difference.intended} as intended). {difference.what}"
            for difference in about.method.differences
            if difference.name in about.behaviour
        ],
        "parameters": [
            *(f"{group} {number:,}" for group, number in about.counts["groups"].items()),
            "trainable {trainable:,} of {total:,} ({percent:.2f} %)".format(**about.counts),
        ],
        "parts": shares(about.counts["parts"]),
        "stacks": shares(about.counts["stacks"]),
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    for title, lines in rows.items():
        for index, line in enumerate(lines):
            table.add_row("" if index else f"[bold]{title}[/bold]", escape(line))
    console.print()
    console.print(table)


@app.command(
    epilog=examples(
        "pet-bench params",
        "pet-bench params --method lora --backbone bart-base --format csv > counts.csv",
        "pet-bench params --method lora --backbone llava-hf/llava-1.5-7b-hf --scope language,vision --by stack",
    )
)
def params(
    suite: Annotated[list[str] | None, typer.Option(help="Suite; repeatable. Default: image-text.")] = None,
    backbone: Annotated[
        list[str] | None, typer.Option(help="Backbone; repeatable. Default: bart-base and t5-base.")
    ] = None,
    method: Annotated[list[str] | None, typer.Option(help="Method; repeatable. Default: all.")] = None,
    scope: ScopeOption = None,
    by: Annotated[
        Literal["part", "stack"] | None, typer.Option(help="A line for each part of the model, or for each stack.")
    ] = None,
    format: Annotated[Format, typer.Option(help="What to print.")] = Format.TABLE,
    plugin: Plugins = None,
) -> None:
    """Count parameters, without loading weights; csv and json also by group. What cannot be is said last.

    A backbone's folder needs its config.json only. json has the counts by part and by stack too.
    """
    lost, counts = Faults(), []
    load_plugins(plugin, lost)
    from itertools import product

    from pet_bench.grid.plan.counted import Asked, counted
    from pet_bench.registry import METHODS
    from pet_bench.spec import MethodSpec

    chosen = [MethodSpec(name).changed(scoped({}, scope)) for name in method or METHODS.names()]
    every = [*map(Asked._make, product(suite or ["image-text"], backbone or ["bart-base", "t5-base"], chosen))]
    with uncollected(), bar("counting") as progress:
        for done, (_, count) in enumerate(counted(every), start=1):
            if isinstance(count, UserError):
                lost.add(count)
            else:
                counts.append(count)
            progress(done, len(every))
    if counts:
        _print_counts(counts, format, by)
    lost.check()


def _print_counts(counts: list[dict[str, Any]], format: Format, by: Literal["part", "stack"] | None) -> None:
    if format == Format.JSON:
        print(json.dumps(counts, indent=1))
        return

    import pandas as pd

    keys = ["suite", "backbone", "method"]
    if by:
        rows = [
            {**{key: count[key] for key in keys}, by: name, **share}
            for count in counts
            for name, share in count[f"{by}s"].items()
        ]
    else:
        groups = dict.fromkeys((group for count in counts for group in count["groups"]), 0)
        rows = [{key: count[key] for key in (*keys, "trainable", "total", "percent")} for count in counts]
        if format == Format.CSV:
            rows = [row | groups | count["groups"] for row, count in zip(rows, counts, strict=True)]
    frame = pd.DataFrame(rows)
    if format == Format.CSV:
        print(frame.to_csv(index=False, lineterminator="\n"), end="")
        return

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in frame:
        table.add_column(str(name), justify="right" if pd.api.types.is_numeric_dtype(frame[name]) else "left")
    for row in rows:
        table.add_row(*(escape(value) if isinstance(value, str) else _number(value) for value in row.values()))
    Console().print(table)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"


app.command(
    epilog=examples(
        "pet-bench run demo",
        "pet-bench run my_grid.yaml --data ~/datasets --dry-run",
        "pet-bench run my_grid.yaml --data ~/datasets --gpus 0.5 --order cheapest --log tensorboard",
        "pet-bench run demo --method lora --seed 0 --executor inline",
        "pet-bench run --method lora --method full --set recipe.epochs=3 --set lora.rank=8 --out results/try",
        "pet-bench run --suite nlvr-v1 --method lora --data ~/datasets --set nlvr-v1.train=dev",
    )
)(run)
app.command(epilog=examples("pet-bench rerun demo --failed", "pet-bench rerun results/demo --trial 0123"))(rerun)
app.command(epilog=examples("pet-bench status demo", "pet-bench status results/demo"))(status)
app.command(
    epilog=examples(
        "pet-bench doctor my_grid.yaml --data ~/datasets",
        "pet-bench doctor my_grid.yaml --data ~/datasets --ray-address auto --nodes 4",
    )
)(doctor)


app.command(
    epilog=examples(
        "pet-bench report demo",
        "pet-bench report results/demo",
        "pet-bench report vlpet-table2-bart --style vlpet-table2",
        "pet-bench report vlpet-table2-bart vlpet-table2-t5 --style vlpet-table2",
        "pet-bench report results/full --style vlpet-table9 --format latex > table9.tex",
    )
)(report)
app.command(
    epilog=examples(
        "pet-bench compare lora vl-adapter --out demo",
        "pet-bench compare lora 'lora, text-only' --out results/demo --task vqa --examples 5",
        "pet-bench compare 0123 results/try/89ab01234567.json",
    )
)(compare)
app.command(
    epilog=examples(
        "pet-bench power results/demo",
        "pet-bench power my_grid.yaml --difference 3",
        "pet-bench power my_grid.yaml --difference 3 --examples 2000 --examples coco-caption=500",
    )
)(power)
app.command(
    epilog=examples(
        "pet-bench gates 0123 --task vqa --index 3",
        "pet-bench gates results/try/89ab01234567.json --example 481003 --site encoder.ffn --out gates.png",
        "pet-bench gates results/full/89ab01234567.json --data ~/datasets --images ~/coco/val2014",
    )
)(gates)
app.command(
    epilog=examples(
        "pet-bench evaluate 0123 --task nlvr2 --split valid",
        "pet-bench evaluate 0123 --task okvqa --as vqa --data ~/datasets",
        "pet-bench evaluate 0123 --corrupt noise:3 --corrupt text",
        "pet-bench evaluate results/demo --corrupt all",
    )
)(evaluate)
app.command(
    epilog=examples(
        "pet-bench soup mini-soup --method lora",
        "pet-bench soup results/mini-soup --method vl-pet-large --kind greedy",
    )
)(soup)
app.command(
    epilog=examples(
        "pet-bench merge results/machine-a results/machine-b --out results/full",
        "pet-bench merge /mnt/node7/results/full --out results/full",
    )
)(merge)
app.command(
    epilog=examples(
        "pet-bench export demo --format peft",
        "pet-bench export results/demo --format model-index --out demo.yaml",
        "pet-bench export 0123 --format model-index",
        "pet-bench export demo --format lmms-eval",
        "pet-bench export results/mine --format eval-results --benchmark vqa=owner/VQAv2",
    )
)(export)
app.command(
    "import",
    epilog=examples(
        "pet-bench import my-adapter --suite image-text-hub --data ~/datasets",
        "pet-bench import results/demo/report/peft-adapter/my-lora --suite mini-image-text",
    ),
)(import_)
app.command(
    epilog=examples(
        "pet-bench push 0123 owner/my-lora --dry-run",
        "pet-bench push results/demo/report/merged/my-lora owner/my-merged-lora --public",
        "pet-bench push results/demo/report owner/my-page --type space",
    )
)(push)
app.command(epilog=examples("pet-bench best lr-sweep", "pet-bench best results/lr-sweep"))(best)


@app.command(
    epilog=examples(
        "pet-bench score results/demo/0123456789ab.json",
        "pet-bench score results/full/0123456789ab.json --data ~/datasets",
        "pet-bench score --metric cider captions.json --format json",
        "pet-bench score --metric cider results.json --annotations captions_val2014.json",
        "pet-bench score --metric vqa-accuracy results.json --annotations v2_mscoco_val2014_annotations.json",
        "pet-bench score --metric nlvr-accuracy predictions.csv --annotations dev.json",
        "pet-bench score --metric multiple-choice-accuracy answers.json --annotations tvqa_val.jsonl",
    )
)
def score(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A trial's result, or with --metric predictions.")],
    metric: Annotated[str | None, typer.Option(help="Score predictions of any origin with this metric.")] = None,
    annotations: Annotated[Path | None, typer.Option(help="With --metric: the data set's official answers.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="With --metric: version=2021, tokenizer=java; repeatable."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Of a result: root folder of the datasets, as for run.")] = None,
    format: Annotated[ScoreFormat, typer.Option(help="What to print; json also has each example's score.")] = (
        ScoreFormat.TABLE
    ),
    plugin: Plugins = None,
) -> None:
    """Score a trial's saved predictions again, or anybody's predictions.

    Captions: a list of {id, prediction, references}; COCO's results and annotations; or lines with `descs` as TVC, YC2C
    and VATEX have them, predictions and references. vqa-accuracy: the official results and annotations. exact-match:
    GQA's official results and questions, of which the balanced ones count. nlvr-accuracy: the official CSV
    (identifier,prediction) and annotations. multiple-choice-accuracy: {id: answer}, and a JSON lines file with qid and
    answer_idx, TVQA's solution by show, or again {id: answer}. textvqa-accuracy, vizwiz-accuracy, scienceqa-accuracy:
    the official results, and TextVQA's questions, VizWiz' annotations or ScienceQA's problems.
    """
    load_plugins(plugin)
    from pet_bench.trial.score import score_file, score_trial

    if metric is not None:
        if data:
            raise UserError("--data is for scoring a trial's result, without --metric")
        scored = [score_file(metric, file, annotations, changes(set_, "OPTION=VALUE", raw=True))]
    elif annotations or set_:
        raise UserError("--annotations and --set are for scoring with --metric NAME; a result knows its tasks")
    else:
        scored = score_trial(file, data)
    if format == ScoreFormat.JSON:
        print(json.dumps([one.to_dict() for one in scored] if metric is None else scored[0].to_dict(), indent=1))
        return

    for place, view in enumerate(_score_views(scored)):
        print("\n" * bool(place), end="")
        print_tables([view], keep=3)
    for one in scored:
        for note in one.notes:
            print(f"{one.what}: {note}")


def _score_views(scored: list[Scored]) -> list[Any]:
    """Tables of the scores, beside those of a result where it has them, and of their breakdowns."""
    from rich.markup import escape
    from rich.table import Table

    recorded = any(one.old is not None for one in scored)
    scores = Table("task" if recorded else "metric", "score", box=None, pad_edge=False)
    for column in (("recorded",) if recorded else ()) + ("now", "examples"):
        scores.add_column(column, justify="right")
    parts = Table("task" if recorded else "metric", "by", "value", box=None, pad_edge=False)
    for column in ("now", "examples"):
        parts.add_column(column, justify="right")
    for one in scored:
        columns = ([one.old or {}] if recorded else []) + [one.scores.values]
        for name in dict.fromkeys(name for column in columns for name in column):
            numbers = (f"{column[name]:.4f}" if name in column else "–" for column in columns)
            scores.add_row(one.what, escape(name), *numbers, str(one.n))
        for group, values in one.breakdowns.items():
            for value, (mean, n) in values.items():
                parts.add_row(one.what, group, escape(value), f"{mean:.2f}", str(n))
    return [scores, parts] if parts.row_count else [scores]


@app.command(
    epilog=examples(
        "pet-bench pretrain mini-bart --out my-scenes",
        "pet-bench pretrain mini-bart --course clips --start my-scenes --out my-mini-bart",
    )
)
def pretrain(
    name: Annotated[str, typer.Argument(metavar="NAME", help="mini-bart or mini-t5.")],
    out: Annotated[Path, typer.Option(help="Folder to write the backbone to.")],
    seed: Annotated[int, typer.Option(**SEEDS, help="Of weights, text and exercises.")] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="Updates; default: those of the shipped backbone.")
    ] = None,
    start: Annotated[Path | None, typer.Option(help="An earlier OUT to go on from.")] = None,
    course: Annotated[str, typer.Option(help="scenes, or clips, for which to go on from scenes.")] = "scenes",
) -> None:
    """Train a mini backbone on the mini world's text alone, as the shipped ones were."""
    from pet_bench.mini.pretrain import pretrain as train

    try:
        train(name, out, seed=seed, steps=steps, start=start, course=course)
    except (OSError, ValueError) as error:
        raise UserError(f"{name} cannot be pre-trained: {error}") from error
    print(f"wrote {out}")


def main(arguments: list[str] | None = None) -> None:
    """A user's fault is one line on stderr and exit code 2; anything else keeps its traceback."""
    with guarded():
        try:
            app(arguments)
        except UserError as error:
            fault = error
        except OSError as error:
            if not error.filename:
                raise
            fault = UserError(f"{shortened(str(error.filename))}: {error.strerror}")
        else:
            return
        report_error(fault, sys.argv[1:] if arguments is None else arguments)
        sys.exit(fault.exit_code)
