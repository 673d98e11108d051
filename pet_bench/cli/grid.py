"""`pet-bench run`, `rerun` and `status`: grids of trials."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pet_bench.cli.shared import SEEDS, GridName, Out, Plugins, changes, folder_of, load_plugins, only_with, working
from pet_bench.errors import Faults, UserError, shortened, unknown

if TYPE_CHECKING:
    from rich.table import Table

    from pet_bench.grid.execute.course import Outcome
    from pet_bench.grid.execute.supervise import Cluster
    from pet_bench.grid.plan.planned import Plan
    from pet_bench.grid.plan.spec import Grid
    from pet_bench.grid.plan.status import State
    from pet_bench.spec import Runtime, TrialSpec


class Executor(StrEnum):
    RAY, INLINE = "ray", "inline"


class Control(StrEnum):
    NONE, TEXT_ONLY, NOISE = "none", "text-only", "noise"


class MissingFeatures(StrEnum):
    REFUSE, DROP = "refuse", "drop"


class Order(StrEnum):
    SEED, CHEAPEST, LISTED = "seed", "cheapest", "listed"


class Tracker(StrEnum):
    TENSORBOARD, WANDB, MLFLOW, TRACKIO = "tensorboard", "wandb", "mlflow", "trackio"


class Estimate(StrEnum):
    MEASURE, EARLIER = "measure", "earlier"


SCHEDULING, SURVIVAL, SHOWING = "Scheduling", "Survival", "Showing"


def _option(*names: str, panel: str | None = None, **more: Any) -> Any:
    return typer.Option(*names, rich_help_panel=panel, **more)


Data = Annotated[Path | None, _option(help="Root folder of the datasets; mini suites need none.")]
Missing = Annotated[
    MissingFeatures,
    _option("--missing-features", help="drop leaves out examples, in every split, whose features are not there."),
]
Forgetting = Annotated[
    Path | None,
    _option(metavar="FILE", help="Text to measure forgetting on, a line each; mini backbones have their own."),
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
Recomputed = Annotated[
    bool,
    _option(
        "--gradient-checkpointing", panel=SURVIVAL,
        help="Compute activations again in the backward pass: less memory, the same results.",
    ),
]  # fmt: skip
Sharded = Annotated[
    bool,
    _option(
        "--shard", panel=SURVIVAL,
        help="Divide frozen weights among the GPUs of a trial: less memory, the same results up to rounding.",
    ),
]  # fmt: skip
Compile = Annotated[
    bool, _option("--compile", help="Compile updates: faster on a GPU, the same within rounding.", panel=SCHEDULING)
]
DryRun = Annotated[
    bool, _option("--dry-run", help="Only say what would run, with counts and estimates.", panel=SHOWING)
]
Estimated = Annotated[
    Estimate | None, _option(help="Ground of --dry-run: a few measured steps, or earlier results only.", panel=SHOWING)
]
Log = Annotated[list[Tracker] | None, _option("--log", help="Also log to this tracker; repeatable.", panel=SHOWING)]


@dataclass(frozen=True)
class How:
    """The options of the commands that run trials, beside those that say which."""

    data: Data = None
    out: Out = None
    missing_features: Missing = MissingFeatures.REFUSE
    forgetting: Forgetting = None
    device: Device = "auto"
    plugin: Plugins = None
    dry_run: DryRun = False
    estimate: Estimated = None
    log: Log = None
    executor: Executed = Executor.RAY
    cpus: Cpus = None
    gpus: Gpus = None
    max_concurrent: MaxConcurrent = None
    order: Ordered = None
    reuse_workers: Reuse = None
    ray_address: Address = None
    dashboard: Dashboard = False
    checkpoint_every: Every = "10min"
    retries: Retries = None
    accumulation: Accumulation = 1
    gradient_checkpointing: Recomputed = False
    shard: Sharded = False
    compile: Compile = False

    def check(self) -> None:
        """Raises UserError for options that the others leave without a use."""
        only_with("--dry-run", self.dry_run, estimate=self.estimate)
        only_with(
            "--executor ray", self.executor == Executor.RAY, ray_address=self.ray_address,
            dashboard=self.dashboard or None, gpus=self.gpus, max_concurrent=self.max_concurrent,
            reuse_workers=self.reuse_workers, retries=self.retries,
        )  # fmt: skip
        if self.forgetting:
            from pet_bench.backbone.knowledge import read_lines

            read_lines(self.forgetting)

    def resources(self) -> dict[str, Any]:
        """What they change of the grid's."""
        return {
            "cpus": self.cpus, "gpus": self.gpus, "max_concurrent": self.max_concurrent,
            "order": self.order and self.order.value, "reuse_workers": self.reuse_workers, "retries": self.retries,
        }  # fmt: skip

    def runtime(self, out: Path) -> Runtime:
        from pet_bench.spec import Runtime

        return Runtime(
            out=out, data=self.data, device=self.device, plugins=tuple(self.plugin or ()),
            accumulation=self.accumulation, missing_features=self.missing_features.value,
            gradient_checkpointing=self.gradient_checkpointing, shard=self.shard, compile=self.compile,
            forgetting=self.forgetting, **interval(self.checkpoint_every),
        )  # fmt: skip

    def cluster(self) -> Cluster:
        from pet_bench.grid.execute.supervise import Cluster

        return Cluster(self.ray_address, self.dashboard, tuple(tracker.value for tracker in self.log or ()))


def running(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose last parameter, `how`, is made of the options of `How`."""
    own = [one for one in signature(command, eval_str=True).parameters.values() if one.name != "how"]
    shared = [one.replace(kind=Parameter.KEYWORD_ONLY) for one in signature(How, eval_str=True).parameters.values()]

    @wraps(command)
    def with_options(**values: Any) -> None:
        how = How(**{one.name: values.pop(one.name) for one in shared})
        how.check()
        load_plugins(how.plugin)
        command(**values, how=how)

    parameters = [one.replace(kind=Parameter.KEYWORD_ONLY) for one in own] + shared
    with_options.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {one.name: one.annotation for one in parameters}
    return with_options


@running
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
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change recipe.KEY, TASK.KEY or METHOD.KEY; repeatable."),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="tuned: first the same tries of rate and size for every method, chosen by validation; untuned: none.",
        ),
    ] = None,
    *,
    how: How,
) -> None:
    """Run the trials of a grid that have no finished result. If interrupted, run it again to go on."""
    from pet_bench.grid.plan.spec import load, select

    controls = [name.value for name in control or []]
    choice = {"suite": suite, "backbone": backbone, "method": method, "seed": seed, "control": controls}
    if grid is not None:
        plan = load(grid, how.out)
    elif method:
        plan, choice = _adhoc(choice), {}
    else:
        raise UserError("nothing to run: name a grid (see `pet-bench run --help`) or at least one --method")
    plan = configure(plan, changes(set_), **how.resources())
    if protocol:
        plan = under(plan, protocol, folder_of(plan, grid, how.out))
    folder, lost = folder_of(plan, grid, how.out), Faults()
    with working("planning"):
        expanded = plan.plan(lost, anew=True)
    say_skipped(expanded)
    chosen = {kind: names or [] for kind, names in choice.items()}
    trials = select(expanded.trials, **chosen)
    if plan.tuning and not how.dry_run:
        plan = _tune(plan, trials, folder, how)
        trials = select(plan.plan(lost, anew=True).trials, **chosen)
    if how.dry_run:
        if plan.tuning:
            kept = {trial.id for trial in trials}
            groups = {replace(one.group, control="none") for one in expanded.planned if one.trial.id in kept}
            if count := plan.tuning.tries * sum(not plan.tuning.values(group) for group in groups):
                print(f"tuned: up to {count} tries come first, {plan.tuning.tries} each, and are not counted here")
        _dry_run(plan, trials, lost, folder, how)
    else:
        _execute(plan, trials, lost, folder, how)


def under(plan: Grid, name: str, folder: Path) -> Grid:
    """The grid under another protocol of tuning, with what was chosen by it in its results folder before."""
    from pet_bench.grid.plan.spec import parse, with_kept

    if name == "untuned":
        return replace(plan, tuning=None)
    return with_kept(parse(plan.to_dict() | {"tuning": name}, plan.name), folder)


def _tune(plan: Grid, trials: Sequence[TrialSpec], folder: Path, how: How) -> Grid:
    """The grid with what its tries have chosen; ends the command where they were interrupted."""
    from pet_bench.grid.execute.run import run_grid
    from pet_bench.grid.execute.tune import tune

    def run_tries(tries: Grid, runtime: Runtime, wanted: list[TrialSpec]) -> Outcome:
        print(f"tuning: {len(wanted)} tries, each tested on its validation splits")
        return run_grid(tries, runtime, how.executor.value, trials=wanted, cluster=how.cluster())

    with _kept_when_interrupted():
        tuned, stopped = tune(plan, how.runtime(folder), run_tries, trials)
    if stopped:
        raise typer.Exit(_status(stopped) or 1)
    return tuned


@contextmanager
def _kept_when_interrupted() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted; finished trials are kept, the same command runs what is missing", file=sys.stderr)
        raise typer.Exit(130) from None


def _adhoc(choice: Mapping[str, Sequence[str] | Sequence[int] | None]) -> Grid:
    """The grid that the flags make."""
    from pet_bench.grid.plan.spec import ADHOC, parse

    return parse({
        "name": ADHOC, "suites": choice["suite"] or ["mini-image-text"],
        "backbones": choice["backbone"] or ["mini-bart"], "methods": choice["method"], "seeds": choice["seed"] or [0],
        "controls": choice["control"] or ["none"],
    })  # fmt: skip


def say_skipped(plan: Plan) -> None:
    """A line for each pair that the grid lists and cannot have."""
    for one in plan.skipped:
        print(one)


@running
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
    *,
    how: How,
) -> None:
    """Run trials of a grid again, whatever their results; a result is only ever replaced by one that is no worse."""
    from pet_bench.grid.plan.spec import load
    from pet_bench.results import store

    plan = load(grid, how.out)
    folder = folder_of(plan, grid, how.out)
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
    plan = configure(plan, {}, **how.resources())
    if how.dry_run:
        _dry_run(plan, again, lost, folder, how, again=True)
    else:
        _execute(plan, again, lost, folder, how, again=True)


def _named(trials: list[TrialSpec], names: list[str], folder: Path) -> set[str]:
    """Ids of the trials whose id begins with one of the names; raises UserError for those that none or several have."""
    faults: Faults = Faults()
    named: set[str] = set()
    for name in names:
        ids = [trial.id for trial in trials if trial.id.startswith(name)]
        if len(ids) == 1 and ids[0] in named:
            faults.add(f"--trial {name}: trial {ids[0]} is named twice")
        elif len(ids) == 1:
            named.add(ids[0])
        else:
            count, name = len(ids) or "no", shortened(name)
            faults.add(f'{count} trials of this grid have an id that begins with "{name}"; see pet-bench status')
    faults.check()
    return named


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
    parts = re.fullmatch(r"([1-9]\d{0,5}) ?(s|min|h|steps?)", text, re.ASCII)
    if not parts:
        raise UserError(f'--checkpoint-every takes 90s, 10min, 2h, 200steps or never, found "{shortened(text)}"')
    number, unit = int(parts[1]), parts[2]
    if unit.startswith("step"):
        return {"checkpoint_seconds": None, "checkpoint_steps": number}
    return {"checkpoint_seconds": float(number * {"s": 1, "min": 60, "h": 3600}[unit])}


def _dry_run(plan: Grid, trials: list[TrialSpec], lost: Faults, folder: Path, how: How, *, again: bool = False) -> None:
    from rich.console import Console

    from pet_bench.grid.execute.course import whole
    from pet_bench.grid.execute.place import at_a_time, check_place
    from pet_bench.grid.plan.dry_run import dry_run

    runtime = how.runtime(folder)
    whole(plan, runtime.out)
    resources = check_place(plan.resources, runtime, how.executor.value, how.cluster())
    count = 1 if how.executor == Executor.INLINE else at_a_time(resources)
    measure = how.estimate != Estimate.EARLIER
    with lost:
        dry_run(plan, trials, runtime, Console(), measure=measure, at_a_time=count, again=again)
    lost.check()


def _execute(plan: Grid, trials: list[TrialSpec], lost: Faults, folder: Path, how: How, *, again: bool = False) -> None:
    """Run, and end with the exit status that says what became of it; that of plug-ins' failures is of failed trials."""
    from pet_bench.grid.execute.run import run_grid

    with _kept_when_interrupted():
        outcome = run_grid(
            plan, how.runtime(folder), how.executor.value, trials=trials, again=again, cluster=how.cluster()
        )
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

    from pet_bench.cli.tables import print_tables
    from pet_bench.grid.plan.spec import load
    from pet_bench.grid.plan.status import status as states_of

    grid_, faults = load(grid, out), Faults()
    with working("reading results"):
        plan = grid_.plan()
        states = states_of(plan.trials, folder_of(grid_, grid, out), faults)
    print_tables([_states(states)], least=["note"])
    say_skipped(plan)
    counts = Counter(state.status for state in states)
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    Console().print(f"{said} of {len(states)} trials", soft_wrap=True)
    faults.check()


def _states(states: list[State]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("status", "id", "trial", "note"):
        table.add_column(name, overflow="fold" if name == "note" else "ellipsis", no_wrap=name in ("status", "id"))
    color = {"done": "green", "suspect": "yellow", "stopped_early": "cyan", "missing": "dim", "interrupted": "dim"}
    for state in states:
        style = color.get(state.status, "red" if state.status in ("failed", "oom", "unreadable") else "blue")
        texts = state.trial.id, escape(str(state.trial)), escape(state.note)
        table.add_row(f"[{style}]{state.status}[/{style}]", *texts)
    return table
