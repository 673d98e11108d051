"""`pet-bench evaluate`: finished trials on a task that they were not trained on, or on their own tasks corrupted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pet_bench.cli.shared import SEEDS, Plugins, To, bar, changes, load_plugins, only_with, trials_of, writing
from pet_bench.errors import Faults, UserError

if TYPE_CHECKING:
    from rich.table import Table

    from pet_bench.results.evaluations import Robustness, Transfer
    from pet_bench.results.schema import TrialResult
    from pet_bench.trial.loaded import Loaded

Device = Annotated[str, typer.Option(help="cpu, cuda, … or auto, which is a GPU where there is one.")]


def evaluate(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="TRIAL|GRID|FOLDER...",
            help="A trial: its result's path, or the first 4 digits of its id. Of a grid all finished ones.",
        ),
    ],
    task: Annotated[
        list[str] | None,
        typer.Option(help="Test on this task; repeatable. With --corrupt only tasks of the trial's own; default: all."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="TASK.OPTION=VALUE", help="Change the protocol of a task; repeatable."),
    ] = None,
    split: Annotated[Literal["valid", "test"] | None, typer.Option(help="Which split; default: test.")] = None,
    parts_of: Annotated[
        str | None,
        typer.Option("--as", metavar="TASK", help="Of a method with parts of each task: whose it uses."),
    ] = None,
    corrupt: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:STRENGTH]",
            help="Corrupt text or images: noise:3, say, noise at all five strengths, text, images or all; repeatable.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(**SEEDS, help="Of --corrupt: what is drawn; default: 0.")] = None,
    data: Annotated[Path | None, typer.Option(help="Root folder of the datasets, as for run.")] = None,
    device: Device = "auto",
    out: Annotated[Path | None, typer.Option(help="Folder of a trial's id; by default all in results/.")] = None,
    to: To = None,
    plugin: Plugins = None,
) -> None:
    """Test finished trials on a task that they never saw (--task), or on their own tasks corrupted (--corrupt).

    Writes `transfer.<task>.json`, with its predictions, or `robustness.<seed>.json` to each trial's folder, which
    `pet-bench show TRIAL` lists. The trials' trained tensors (adapter.safetensors) have to be there. Relative
    robustness is the share of a clean score that is left, 1 - (clean - corrupted) / clean.
    """
    load_plugins(plugin)
    if not (task or corrupt):
        raise UserError("say what to evaluate on: --task TASK, or --corrupt NAME[:STRENGTH]")
    if corrupt:
        only_with("a transfer, without --corrupt", False, split=split, set=option, **{"as": parts_of})
    only_with("--corrupt", bool(corrupt), seed=seed)
    options = _by_task(changes(option, "TASK.OPTION=VALUE"), task or [])
    from pet_bench.trial.loaded import load_trial

    paths = _trials(source, out)
    tested: list[tuple[TrialResult, Robustness]] = []
    for path in paths:
        trial = load_trial(path, data=data, device=device)
        folder = (to / trial.spec.id) if to else path.with_suffix("")
        with writing("--to FOLDER writes to another folder"):
            if corrupt:
                tested.append((trial.result, _corrupted(trial, corrupt, seed or 0, task, folder, len(paths) == 1)))
            else:
                for name in task or ():
                    _transfer(trial, name, options.get(name, {}), split or "test", parts_of, folder)
    if len(tested) > 1:
        from pet_bench.cli.tables import print_tables

        print_tables([_summary(tested)], keep=3)
        print(NOTE)


NOTE = (
    "relative robustness, the share of the clean score that is left (1 − (clean − corrupted) / clean), over tasks and "
    "strengths; mean ± sample standard deviation over n seeds"
)


def _by_task(changed: dict[str, Any], tasks: Sequence[str]) -> dict[str, dict[str, Any]]:
    faults, options = Faults(), defaultdict[str, dict[str, Any]](dict)
    for key, value in changed.items():
        name, dot, option = key.partition(".")
        if not dot or name not in tasks:
            faults.add(f"--set {key}: expected TASK.OPTION=VALUE of a task that --task names ({', '.join(tasks)})")
        options[name][option] = value
    faults.check()
    return options


def _trials(source: list[str], out: Path | None) -> list[Path]:
    """The results of the trials that are named, and of the finished ones of grids and folders, each once.

    Raises UserError for a grid in which nothing is finished and can be loaded, naming what lacks its tensors.
    """
    from pet_bench.files import is_folder
    from pet_bench.grid.plan.spec import shipped
    from pet_bench.results import store
    from pet_bench.trial.loaded import adapter_of, find_trial

    paths, faults = dict[Path, None](), Faults()
    for name in source:
        with faults:
            grid = name in shipped() or Path(name).suffix in (".yaml", ".yml")
            if not grid and (store.find(name, []) or not is_folder(name)):
                paths[find_trial(name, out)] = None
                continue
            specs, folder = trials_of(name, out) if grid else (None, Path(name))
            results, ids = store.load_all(folder), {spec.id for spec in specs or ()}
            done = [id for id, one in results.items() if one.status in store.FINISHED and one.metrics]
            chosen = [folder / f"{id}.json" for id in done if specs is None or id in ids]
            if not chosen:
                raise UserError(f'"{name}" has no finished trial in "{folder}"')
            for path in chosen:
                with faults:
                    adapter_of(path)
                    paths[path] = None
    faults.check()
    return [*paths]


def _transfer(
    trial: Loaded,
    name: str,
    options: dict[str, Any],
    split: Literal["valid", "test"],
    parts_of: str | None,
    folder: Path,
) -> None:
    from rich.console import Console
    from rich.markup import escape

    from pet_bench.cli.tables import print_tables
    from pet_bench.trial.transfer import asked, transfer

    wanted = asked(trial, name, options, split, parts_of)
    with bar(name) as progress:
        record = transfer(trial, wanted, folder, progress)
    console = Console(highlight=False)
    console.print(f"{escape(str(trial.spec))}, trial {trial.spec.id}", soft_wrap=True)
    print_tables([_scores(trial.result, record)], keep=3)
    prompt = wanted.task.prompt
    said = [f'prompt "{prompt}"' if prompt else "no prompt"]
    if record.parts_of:
        said.append(f"the method's parts of {record.parts_of}")
    for line in (f"{name} is read with {', '.join(said)}", *record.notes):
        console.print(escape(line), soft_wrap=True)


def _scores(result: TrialResult, record: Transfer) -> Table:
    """The scores of a transfer, and below them those of the trial's own tasks."""
    view = _table("task", "metric", "score", "majority", "n", "trained on")
    rows = [(record.task, record.metrics, "yes, by another protocol" if record.trained else "no")]
    rows += [(task, dict([*scores.items()][:1]), "yes") for task, scores in result.metrics.items()]
    for task, metrics, trained in rows:
        for metric, score in metrics.items():
            majority = "–" if score.majority is None else f"{score.majority:.2f}"
            view.add_row(task, metric, f"{score.value:.2f}", majority, str(score.n), trained)
    return view


def _corrupted(
    trial: Loaded, names: list[str], seed: int, tasks: list[str] | None, folder: Path, alone: bool
) -> Robustness:
    from rich.console import Console
    from rich.markup import escape

    from pet_bench.cli.tables import print_tables
    from pet_bench.data.corrupted import parse
    from pet_bench.trial.robustness import robustness

    corruptions = parse(names, trial.model.family.fed, seed)
    with bar(trial.spec.id) as progress:
        record = robustness(trial, corruptions, folder, tasks, progress)
    if alone:
        console = Console(highlight=False)
        console.print(f"{escape(str(trial.spec))}, trial {trial.spec.id}, seed {seed} of the corruptions\n")
        print_tables([_by_strength(record)], keep=2)
        for line in record.notes:
            console.print(escape(line), soft_wrap=True)
        whole = "–" if record.relative is None else f"{record.relative:.3f}"
        console.print(f"mean relative robustness {whole}, of all {len(record.scores)} rows", soft_wrap=True)
    return record


def _by_strength(record: Robustness) -> Table:
    """Scores by task and corruption at each strength, and the mean relative drop."""
    from pet_bench.data.corrupted import STRENGTHS

    view = _table("task", "corruption", *map(str, (0, *STRENGTHS)), "drop %")
    values = {(row.task, row.corruption, row.strength): row.value for row in record.scores}
    means = record.means("task", "corruption")
    for task, name in dict.fromkeys((task, name) for task, name, _ in values):
        scores = [record.clean[task].value, *(values.get((task, name, strength)) for strength in STRENGTHS)]
        drop = means.get((task, name))
        view.add_row(
            task,
            name,
            *("–" if score is None else f"{score:.2f}" for score in scores),
            "–" if drop is None else f"{100 * (1 - drop):.1f}",
        )
    return view


def _summary(tested: list[tuple[TrialResult, Robustness]]) -> Table:
    """Relative robustness of methods by corruption, over seeds."""
    from rich.markup import escape

    from pet_bench.results.store import base

    names = list(dict.fromkeys(row.corruption for _, record in tested for row in record.scores))
    groups: dict[tuple[str, ...], list[Robustness]] = defaultdict(list)
    for result, record in tested:
        about = base(result.spec)
        control = "" if about["control"] == "none" else f", {about['control']}"
        groups[about["suite"], about["backbone"], about["method"] + control, about["setup"]].append(record)
    view = _table("suite", "backbone", "method", *names, "all", "n")
    for (suite, backbone, method, _), records in groups.items():
        cells = [_over([record.means("corruption").get((name,)) for record in records]) for name in names]
        whole = _over([record.relative for record in records])
        view.add_row(suite, backbone, escape(method), *cells, whole, str(len(records)))
    return view


def _over(values: list[float | None]) -> str:
    there = [value for value in values if value is not None]
    if not there:
        return "–"
    return f"{mean(there):.3f}" + (f" ± {stdev(there):.3f}" if len(there) > 1 else "")


def _table(*columns: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    view, words = Table(box=SIMPLE_HEAD), ("task", "metric", "corruption", "suite", "backbone", "method", "trained on")
    for name in columns:
        view.add_column(name, justify="left" if name in words else "right")
    return view
