"""`pet-bench run`, `rerun` and `status`: grids of trials."""

from __future__ import annotations

import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pet_bench.cli.shared import SEEDS, GridName, Out, Plugins, changes, folder_of, load_plugins, only_with, trials_of
from pet_bench.errors import Faults, UserError, shortened, unknown

if TYPE_CHECKING:
    from pet_bench.grid.execute.run import Outcome
    from pet_bench.grid.plan.spec import Grid
    from pet_bench.spec import TrialSpec


class Executor(StrEnum):
    RAY, INLINE = "ray", "inline"


class Control(StrEnum):
    NONE, TEXT_ONLY, NOISE = "none", "text-only", "noise"


class MissingFeatures(StrEnum):
    REFUSE, DROP = "refuse", "drop"


class Order(StrEnum):
    SEED, CHEAPEST, LISTED = "seed", "cheapest", "listed"


class Tracker(StrEnum):
    TENSORBOARD, WANDB, MLFLOW = "tensorboard", "wandb", "mlflow"


class Estimate(StrEnum):
    MEASURE, EARLIER = "measure", "earlier"


SCHEDULING, SURVIVAL, SHOWING = "Scheduling", "Survival", "Showing"


def _option(*names: str, panel: str | None = None, **more: Any):
    return typer.Option(*names, rich_help_panel=panel, **more)


Data = Annotated[Path | None, _option(help="Root folder of the datasets; mini suites need none.")]
Missing = Annotated[
    MissingFeatures,
    _option("--missing-features", help="drop leaves out examples, in every split, whose features are not there."),
]
Device = Annotated[str, _option(help="cpu, cuda, cuda:1, … or auto.")]
Executed = Annotated[Executor, _option(help="Ray Tune, or one after another in this process.", panel=SCHEDULING)]
Cpus = Annotated[
    float | None, _option(min=0.01, max=10_000, help="CPUs of one trial, or a fraction of one.", panel=SCHEDULING)
]
Gpus = Annotated[
    float | None, _option(min=0, max=1_000, help="GPUs of one trial, or a fraction of one.", panel=SCHEDULING)
]
MaxConcurrent = Annotated[
    int | None, _option(min=1, max=10_000, help="Trials at a time; default: all that fit.", panel=SCHEDULING)
]
Ordered = Annotated[
    Order | None, _option(help="Which trials start first; default: those of the first seed.", panel=SCHEDULING)
]
Reuse = Annotated[
    bool | None,
    _option("--reuse-workers/--fresh-workers", help="One process for many trials, or each its own.", panel=SCHEDULING),
]
Address = Annotated[
    str | None,
    _option("--ray-address", metavar="ADDRESS", help="A running Ray cluster; results on shared storage.",
            envvar="RAY_ADDRESS", panel=SCHEDULING),
]  # fmt: skip
Dashboard = Annotated[bool, _option("--dashboard", help="Start Ray's dashboard (pip install 'ray[default]').",
                                    panel=SCHEDULING)]  # fmt: skip
Every = Annotated[
    str, _option(metavar="INTERVAL", help="Checkpoint of a running trial: 10min, 90s, 200steps or never.",
                 panel=SURVIVAL),
]  # fmt: skip
Retries = Annotated[
    int | None, _option(min=0, max=1_000, help="How often a trial whose process died starts again.", panel=SURVIVAL)
]
Accumulation = Annotated[
    int,
    _option(
        min=1, max=1_000_000, help="Parts that each batch is split into, their gradients added up.", panel=SURVIVAL
    ),
]
DryRun = Annotated[
    bool, _option("--dry-run", help="Only say what would run, with counts and estimates.", panel=SHOWING)
]
Estimated = Annotated[
    Estimate | None, _option(help="Ground of --dry-run: a few measured steps, or earlier results only.", panel=SHOWING)
]
Log = Annotated[list[Tracker] | None, _option("--log", help="Also log to this tracker; repeatable.", panel=SHOWING)]


def run(
    grid: Annotated[
        str | None,
        typer.Argument(metavar="GRID", help="A grid file or a shipped grid's name; without, the flags."),
    ] = None,
    suite: Annotated[list[str] | None, typer.Option(help="Suite; repeatable. With GRID: only these.")] = None,
    backbone: Annotated[list[str] | None, typer.Option(help="Backbone; likewise.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Method; likewise.")] = None,
    seed: Annotated[list[int] | None, typer.Option(**SEEDS, help="Seed; likewise.")] = None,
    control: Annotated[
        list[Control] | None, typer.Option(help="none, text-only (all visual features zeroed) or noise; likewise.")
    ] = None,
    data: Data = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change recipe.KEY, TASK.KEY or METHOD.KEY; repeatable."),
    ] = None,
    out: Out = None,
    missing_features: Missing = MissingFeatures.REFUSE,
    device: Device = "auto",
    plugin: Plugins = None,
    dry_run: DryRun = False,
    estimate: Estimated = None,
    log: Log = None,
    executor: Executed = Executor.RAY,
    cpus: Cpus = None,
    gpus: Gpus = None,
    max_concurrent: MaxConcurrent = None,
    order: Ordered = None,
    reuse_workers: Reuse = None,
    ray_address: Address = None,
    dashboard: Dashboard = False,
    checkpoint_every: Every = "10min",
    retries: Retries = None,
    accumulation: Accumulation = 1,
) -> None:
    """Run the trials of a grid that have no finished result. If interrupted, run it again to go on."""
    only_with("--dry-run", dry_run, estimate=estimate)
    only_with(
        "--executor ray", executor == Executor.RAY, log=log, ray_address=ray_address, dashboard=dashboard or None,
        gpus=gpus, max_concurrent=max_concurrent, reuse_workers=reuse_workers, retries=retries,
    )  # fmt: skip
    load_plugins(plugin)
    from pet_bench.grid.plan.spec import ADHOC, load, parse, select

    choice = {"suite": suite, "backbone": backbone, "method": method, "seed": seed, "control": control}
    choice = {kind: [getattr(name, "value", name) for name in names or []] for kind, names in choice.items()}
    if grid is not None:
        plan = load(grid)
    elif method:
        plan = parse({
            "name": ADHOC, "suites": suite or ["mini-image-text"], "backbones": backbone or ["mini-bart"],
            "methods": method, "seeds": seed or [0], "controls": choice["control"] or ["none"],
        })  # fmt: skip
        choice = {}
    else:
        raise UserError("nothing to run: name a grid (see `pet-bench run --help`) or at least one --method")
    plan = configure(
        plan, changes(set_), cpus=cpus, gpus=gpus, max_concurrent=max_concurrent, order=order and order.value,
        reuse_workers=reuse_workers, retries=retries,
    )  # fmt: skip
    common = {
        "out": folder_of(plan, grid, out), "data": data, "device": device, "plugin": plugin, "log": log,
        "executor": executor, "address": ray_address, "dashboard": dashboard, "every": checkpoint_every,
        "accumulation": accumulation, "missing": missing_features,
    }  # fmt: skip
    lost = Faults()
    trials = select(plan.trials(lost), **choice)
    if dry_run:
        _dry_run(plan, trials, lost, estimate != Estimate.EARLIER, **common)
    else:
        _execute(plan, trials, lost, again=False, **common)


def rerun(
    grid: GridName,
    failed: Annotated[bool, typer.Option("--failed", help="Those that failed or ran out of memory.")] = False,
    suspect: Annotated[bool, typer.Option("--suspect", help="Those that are suspect.")] = False,
    stopped_early: Annotated[
        bool, typer.Option("--stopped-early", help="Those that a search stopped; they then run to their end.")
    ] = False,
    trial: Annotated[
        list[str] | None, typer.Option(help="A trial by id, or the first digits of it; repeatable.")
    ] = None,
    data: Data = None,
    out: Out = None,
    missing_features: Missing = MissingFeatures.REFUSE,
    device: Device = "auto",
    plugin: Plugins = None,
    dry_run: DryRun = False,
    estimate: Estimated = None,
    log: Log = None,
    executor: Executed = Executor.RAY,
    cpus: Cpus = None,
    gpus: Gpus = None,
    max_concurrent: MaxConcurrent = None,
    order: Ordered = None,
    reuse_workers: Reuse = None,
    ray_address: Address = None,
    dashboard: Dashboard = False,
    checkpoint_every: Every = "10min",
    retries: Retries = None,
    accumulation: Accumulation = 1,
) -> None:
    """Run trials of a grid again, whatever their results; a result is only ever replaced by one that is no worse."""
    only_with("--dry-run", dry_run, estimate=estimate)
    only_with(
        "--executor ray", executor == Executor.RAY, log=log, ray_address=ray_address, dashboard=dashboard or None,
        gpus=gpus, max_concurrent=max_concurrent, reuse_workers=reuse_workers, retries=retries,
    )  # fmt: skip
    load_plugins(plugin)
    from pet_bench.grid.plan.spec import load
    from pet_bench.results import store

    plan = load(grid)
    folder = folder_of(plan, grid, out)
    chosen = {"failed": failed, "oom": failed, "suspect": suspect, "stopped_early": stopped_early}
    if not any(chosen.values()) and not trial:
        raise UserError("nothing to run again: say --failed, --suspect, --stopped-early or --trial ID")
    lost = Faults()
    trials = plan.trials(lost)
    named = _named(trials, trial or [], folder)
    results = store.load_all(folder)
    again = [
        spec
        for spec in trials
        if spec.id in named or (spec.id in results and chosen.get(results[spec.id].status, False))
    ]
    if not again:
        print(f"no trial of {plan.name} in {folder} is " + ", ".join(key for key, wanted in chosen.items() if wanted))
        return
    plan = configure(
        plan, {}, cpus=cpus, gpus=gpus, max_concurrent=max_concurrent, order=order and order.value,
        reuse_workers=reuse_workers, retries=retries,
    )  # fmt: skip
    common = {
        "out": folder, "data": data, "device": device, "plugin": plugin, "log": log, "executor": executor,
        "address": ray_address, "dashboard": dashboard, "every": checkpoint_every, "accumulation": accumulation,
        "missing": missing_features,
    }  # fmt: skip
    if dry_run:
        _dry_run(plan, again, lost, estimate != Estimate.EARLIER, again=True, **common)
    else:
        _execute(plan, again, lost, again=True, **common)


def _named(trials: list[TrialSpec], names: list[str], folder: Path) -> set[str]:
    """Ids of the trials whose id begins with one of the names; raises UserError for those that none or several have."""
    faults, found = Faults(), set()
    for name in names:
        ids = [trial.id for trial in trials if trial.id.startswith(name)]
        if len(ids) == 1 and ids[0] in found:
            faults.add(f"--trial {name}: trial {ids[0]} is named twice")
        elif len(ids) == 1:
            found.add(ids[0])
        else:
            count, name = len(ids) or "no", shortened(name)
            faults.add(f'{count} trials of this grid have an id that begins with "{name}"; see pet-bench status')
    faults.check()
    return found


def configure(plan: Grid, changed: dict[str, Any], **resources: Any) -> Grid:
    """The grid with what the command line changes; its `--set` wins over the grid's own values."""
    from pet_bench.grid.plan.spec import parse
    from pet_bench.registry import TASKS

    data = plan.to_dict()
    parts = [(part, _method_names(part)) for part in (data, *data["also"])]
    methods = set().union(*(names for _, names in parts))
    faults = Faults()
    for key, value in changed.items():
        with faults:
            target, dot, option = key.partition(".")
            if not dot or not option:
                raise UserError(f'--set takes recipe.KEY, TASK.KEY or METHOD.KEY, found "{shortened(key)}"')
            if target == "recipe":
                override = {"when": {}, "recipe": {option: value}}
            elif target in methods:
                override = {"when": {"method": target}, "options": {option: value}}
            elif target in TASKS:
                override = {"when": {}, "protocol": {target: {option: value}}}
            else:
                raise UserError(f"--set: {unknown('key', target, {'recipe', *methods, *TASKS.names()})}")
            for part, names in parts:
                if (target in names or target not in methods) and isinstance(own := part.get("overrides", []), list):
                    part["overrides"] = [*own, override]
    faults.check()
    data["resources"] |= {key: value for key, value in resources.items() if value is not None}
    return parse(data, plan.name)


def _method_names(part: dict[str, Any]) -> set[str]:
    """Of a part whose faults, if it has any, are said when it is expanded."""
    if not isinstance(entries := part.get("methods"), list):
        return set()
    names = (entry.get("name") if isinstance(entry, dict) else entry for entry in entries)
    return {name for name in names if isinstance(name, str)}


def interval(text: str) -> dict[str, Any]:
    """`10min`, `90s`, `2h`, `200steps` or `never` as fields of the runtime."""
    if text == "never":
        return {"checkpoint_seconds": None}
    found = re.fullmatch(r"([1-9]\d{0,5}) ?(s|min|h|steps?)", text, re.ASCII)
    if not found:
        raise UserError(f'--checkpoint-every takes 90s, 10min, 2h, 200steps or never, found "{shortened(text)}"')
    number, unit = int(found[1]), found[2]
    if unit.startswith("step"):
        return {"checkpoint_seconds": None, "checkpoint_steps": number}
    return {"checkpoint_seconds": float(number * {"s": 1, "min": 60, "h": 3600}[unit])}


def _runtime(*, out, data, device, plugin, every, accumulation, missing, **rest):
    from pet_bench.spec import Runtime

    return Runtime(
        out=out, data=data, device=device, plugins=tuple(plugin or ()), accumulation=accumulation,
        missing_features=missing.value, **interval(every),
    )  # fmt: skip


def _cluster(*, log, address, dashboard, **rest):
    from pet_bench.grid.execute.supervise import Cluster

    return Cluster(address, dashboard, tuple(tracker.value for tracker in log or ()))


def _dry_run(
    plan: Grid, trials: list[TrialSpec], lost: Faults, measure: bool, *, again: bool = False, **common: Any
) -> None:
    from rich.console import Console

    from pet_bench.grid.execute.run import at_a_time, check_place, whole
    from pet_bench.grid.plan.estimate import dry_run

    runtime, executor = _runtime(**common), common["executor"]
    whole(plan, runtime.out)
    resources = check_place(plan.resources, runtime, executor.value, _cluster(**common))
    count = 1 if executor == Executor.INLINE else at_a_time(resources)
    with lost:
        dry_run(plan, trials, runtime, Console(), measure=measure, at_a_time=count, again=again)
    lost.check()


def _execute(plan: Grid, trials: list[TrialSpec], lost: Faults, *, again: bool, **common: Any) -> None:
    """Run, and end with the exit status that says what became of it; that of plug-ins' failures is of failed trials."""
    from pet_bench.grid.execute.run import run_grid

    try:
        outcome = run_grid(
            plan, _runtime(**common), common["executor"].value, trials=trials, again=again, cluster=_cluster(**common)
        )
    except KeyboardInterrupt:
        print("interrupted; finished trials are kept, the same command runs what is missing", file=sys.stderr)
        raise typer.Exit(130) from None
    status = _status(outcome)
    if lost.found and not outcome.interrupted:
        error = UserError.many(lost.found)
        error.exit_code = 1
        raise error
    raise typer.Exit(status)


def _status(outcome: Outcome) -> int:
    if outcome.interrupted:
        print("stopped as asked; the same command goes on from the checkpoints", file=sys.stderr)
        return 130
    if outcome.elsewhere:
        count = len(outcome.elsewhere)
        print(
            f"{count} trials run in another process: the same command later says what became of them", file=sys.stderr
        )
    return 1 if outcome.failed else 0


def status(grid: GridName, out: Out = None, plugin: Plugins = None) -> None:
    """Show which trials of a grid are done, suspect, stopped early, failed, running, interrupted or missing.

    Exit code 2 if there are files in the folder that are no valid results, each on a line.
    """
    load_plugins(plugin)
    from collections import Counter

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from pet_bench.cli.tables import print_tables
    from pet_bench.grid.plan.status import status as states_of

    trials, folder = trials_of(grid, out)
    faults = Faults()
    states = states_of(trials, folder, faults)
    table = Table(box=None, pad_edge=False)
    for name in ("status", "id", "trial", "note"):
        table.add_column(name, overflow="fold" if name == "note" else None, no_wrap=name in ("status", "id"))
    color = {"done": "green", "suspect": "yellow", "stopped_early": "cyan", "missing": "dim", "interrupted": "dim"}
    for state in states:
        style = color.get(state.status, "red" if state.status in ("failed", "oom", "unreadable") else "blue")
        texts = state.trial.id, escape(str(state.trial)), escape(state.note)
        table.add_row(f"[{style}]{state.status}[/{style}]", *texts)
    print_tables([table], least=["note"])
    counts = Counter(state.status for state in states)
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    Console().print(f"{said} of {len(states)} trials", soft_wrap=True)
    faults.check()
