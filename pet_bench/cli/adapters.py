"""`pet-bench import` and `push`: adapters from others, and models to the hub."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pet_bench.cli.evaluate import Device
from pet_bench.cli.shared import SEEDS, Plugins, ScopeOption, changes, load_plugins, scoped, working, writing
from pet_bench.errors import Faults, UserError


def import_(
    adapter: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="What peft's save_pretrained or export --format peft-adapter wrote."),
    ],
    suite: Annotated[str, typer.Option(help="What to test it on.")],
    backbone: Annotated[str | None, typer.Option(help="Default: the one that the adapter was saved with.")] = None,
    scope: ScopeOption = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="recipe.batch_size=8, say, or TASK.OPTION=VALUE; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(**SEEDS, help="Of what the adapter does not hold.")] = 0,
    data: Annotated[Path | None, typer.Option(help="Root folder of the datasets, as for run.")] = None,
    device: Device = "auto",
    out: Annotated[Path, typer.Option(help="Folder of results.")] = Path("results/imported"),
    plugin: Plugins = None,
) -> None:
    """Test an adapter of HF peft's that was trained elsewhere, as a trial of its own.

    Its result stands beside those of trials: report, compare, evaluate and export read it. It was not trained here: of
    the recipe counts what a test reads. A backbone that is fed with features needs visual.safetensors beside the
    adapter, as export --format peft-adapter writes it.
    """
    load_plugins(plugin)
    recipe, protocol = _changes(changes(set_, "KEY=VALUE"))
    from pet_bench.results import store
    from pet_bench.spec import MethodSpec, Runtime
    from pet_bench.trial.imported import imported_spec
    from pet_bench.trial.run import run_trial

    parts = MethodSpec.parse({"name": "peft", **scoped({}, scope)}).scope
    spec = imported_spec(adapter, suite, backbone=backbone, seed=seed, scope=parts, recipe=recipe, protocol=protocol)
    with writing("--out FOLDER writes to another folder"):
        store.check_writable(out)
        with working(f"testing {spec.label}"):
            result = run_trial(spec, Runtime(out, data, device), adapter_of=adapter)
    average = "no score" if result.average is None else f"average {result.average:.2f}"
    print(f"{spec}  {average}\nwrote {out / spec.id}.json")


def _changes(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Of the recipe, and by task of its protocol."""
    faults, parts = Faults(), defaultdict[str, dict[str, Any]](dict)
    for key, value in given.items():
        name, dot, option = key.partition(".")
        if not dot:
            faults.add(UserError(f'--set takes recipe.KEY=VALUE or TASK.OPTION=VALUE, found "{key}"'))
        parts[name][option] = value
    faults.check()
    return parts.pop("recipe", {}), dict(parts)


def push(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A trial, by path or id, or a folder: an export, a page.")
    ],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Of the Hugging Face hub.")],
    type: Annotated[
        Literal["model", "dataset", "space"], typer.Option(help="What kind of repository; a page is a space.")
    ] = "model",
    public: Annotated[bool, typer.Option("--public", help="Where it is made: for all to see.")] = False,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be pushed, and reach for nothing.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of a trial's id; by default all in results/.")] = None,
) -> None:
    """Push a trial's result, trained tensors and model card, or a folder's files, to the Hugging Face hub.

    One commit; what is there already and has another name stays. Predictions are not pushed with a trial. The address
    is that of HF_ENDPOINT; log in with `hf auth login`, or set HF_TOKEN.
    """
    from pet_bench import __version__
    from pet_bench.results import store
    from pet_bench.results.exchange import hub
    from pet_bench.trial.loaded import adapter_of, find_trial

    hub.check_name(repository)
    folder = Path(source)
    if folder.is_dir() and not store.find(source, []):
        files = hub.folder_files(folder)
    else:
        adapter_of(path := find_trial(source, out))  # there is nothing to load without
        files = hub.trial_files(path)
    size = 0
    for name, one in files.items():
        size += (count := len(one) if isinstance(one, bytes) else one.stat().st_size)
        print(f"{count:>12,}  {name}")
    if dry_run:
        print(f"{len(files)} files, {size:,} bytes, would go to {type} {repository}")
        return
    with working(f"pushing {len(files)} files to {repository}"):
        message = message or f"pushed with pet-bench {__version__}"
        address = hub.push(files, repository, type, public=public, message=message)
    print(f"pushed {len(files)} files, {size:,} bytes: {address}")
