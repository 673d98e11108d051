"""`pet-bench run --dry-run`: what a run would do and cost, as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pet_bench.errors import Faults, UserError
from pet_bench.grid.claim import taken
from pet_bench.grid.plan.counted import Asked, counted
from pet_bench.grid.plan.estimate import Estimate, estimate
from pet_bench.grid.plan.status import checkpoint_step
from pet_bench.grid.shown import COLOURS, duration
from pet_bench.results import store
from pet_bench.results.schema import TrialResult
from pet_bench.spec import Runtime, TrialSpec

if TYPE_CHECKING:
    from pet_bench.grid.plan.spec import Grid

Counts = dict[str, Any]  # of parameters


def dry_run(
    grid: Grid,
    trials: list[TrialSpec],
    runtime: Runtime,
    console: Console,
    measure: bool,
    at_a_time: int,
    *,
    earlier: bool = True,
    again: bool = False,
) -> None:
    """Print what a run of these trials would do. Nothing is written but, in the cache, features as they are packed.

    measure: time a few updates of each set-up that has no earlier results. earlier: whether these count.
    again: whether finished trials would run too. Raises UserError for results that cannot be read, for methods that do
    not fit their backbones and, when all has been printed, for the data, as a run would, and for what plug-ins' own
    code raises.
    """
    from pet_bench.trial.check import check_data

    runtime = replace(runtime, threads=runtime.threads or max(1, int(grid.resources.cpus)))
    results = store.load_all(runtime.out)
    lost = Faults()
    with console.status("counting parameters") as status:
        counts = _counts(trials, lost)
        trials = [trial for trial in trials if trial.id in counts]
        there = existing(trials, results, runtime.out, grid.also_finished)
        if runtime.missing_features == "refuse":  # as in a run
            there |= {id: replace(there[id], finished=False) for id in there if id in results and results[id].dropped}
        if again:
            there = {id: replace(state, finished=False) for id, state in there.items()}
        done = {id for id, state in there.items() if state.finished}
        status.update("checking the data")
        with lost:
            check_data([trial for trial in trials if trial.id not in done], runtime, pack=False)
        estimates = estimate(
            trials, results.values() if earlier else (), runtime, measure=measure, finished=done,
            say=lambda line: status.update(escape(line)), lost=lost,
        )  # fmt: skip
    if not trials:
        lost.check()
    print_plan(plan_table(trials, there, counts, estimates, at_a_time), console)
    lost.check()


def _counts(trials: list[TrialSpec], lost: Faults) -> dict[str, Counts]:
    """Parameters by trial id; raises UserError for methods that do not fit. `lost` takes what plug-ins' code raised."""
    faults = Faults()
    asked = {trial.id: Asked(trial.suite, trial.backbone, trial.method) for trial in trials}
    counts: dict[tuple[str, str, str], Counts] = {}
    for one, count in counted({one.key: one for one in asked.values()}.values()):
        if isinstance(count, UserError):
            faults.add(count)
        else:
            counts[one.key] = count
    faults.check(lost)
    return {id: counts[one.key] for id, one in asked.items() if one.key in counts}


def print_plan(view: Group, console: Console) -> None:
    """As rich prints it. A file has no width to keep to: a row is a line there, which needs no rich to be laid out."""
    for part in [view] if console.is_terminal else view.renderables:
        if isinstance(part, Table):
            console.out("\n".join(_lines(part, console)), highlight=False)
        else:
            console.print(part, soft_wrap=not console.is_terminal)


def _lines(table: Table, console: Console) -> Iterator[str]:
    """The rows of a table of single lines, without box or edges."""
    columns = []
    for column in table.columns:
        texts = [_plain(cell, console) for cell in (column.header, *column.cells)]
        width = max(map(cell_len, texts))
        spaces = [" " * (width - cell_len(text)) for text in texts]
        right = column.justify == "right"
        columns.append([space + text if right else text + space for text, space in zip(texts, spaces, strict=True)])
    yield from map("  ".join, zip(*columns, strict=True))


def _plain(cell: RenderableType, console: Console) -> str:
    text = str(cell)
    return console.render_str(text).plain if any(sign in text for sign in "[\\:") else text


# what there is -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Existing:
    """What there is of a trial: "running", its result's status or "missing"; its checkpoint's update; whether it need
    not run."""

    status: str
    step: int | None
    finished: bool


def existing(
    trials: Iterable[TrialSpec], results: Mapping[str, TrialResult], out: Path, also: Collection[str] = ()
) -> dict[str, Existing]:
    """By id. also: statuses that are finished for this grid, beside done and suspect."""
    states = {}
    for trial in trials:
        status = results[trial.id].status if trial.id in results else "missing"
        finished = status in (*store.FINISHED, *also)
        step = None if finished else checkpoint_step(out, trial.id)
        states[trial.id] = Existing("running" if taken(out, trial.id) else status, step, finished)
    return states


# the table -----------------------------------------------------------------------------------------------------------


def plan_table(
    trials: list[TrialSpec],
    there: dict[str, Existing],
    counts: dict[str, Counts],
    estimates: dict[str, Estimate],
    at_a_time: int,
) -> Group:
    """A row a trial; the totals of those that are to run; how one knows. `counts`, of parameters, are by trial id."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("id", "trial", "trainable", "%", "so far", "updates", "time", "memory"):
        right = name in ("trainable", "%", "updates", "time", "memory")
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "trial", overflow="fold")
    for trial in trials:
        cost, count, state = estimates[trial.id], counts[trial.id], there[trial.id]
        table.add_row(
            trial.id,
            escape(str(trial)),
            f"{count['trainable']:,}",
            f"{count['percent']:.2f}",
            _so_far(state),
            "–" if cost.steps is None else f"{cost.steps:,}",
            "–" if cost.seconds is None else duration(cost.seconds),
            "–" if cost.peak_bytes is None else f"{cost.peak_bytes / 1e9:.1f} GB",
        )
    lines = [_total(trials, there, estimates, at_a_time), *_grounds(trials, there, estimates)]
    return Group(table, Text(), *(Text(line) for line in lines))


def _so_far(state: Existing) -> str:
    status = f"[{COLOURS.get(state.status, 'dim')}]{state.status.replace('_', ' ')}[/]"
    if state.step is None:
        return status
    checkpoint = f"checkpoint at {state.step:,}"
    return checkpoint if state.status == "missing" else f"{status}, {checkpoint}"


def _total(trials: list[TrialSpec], there: dict[str, Existing], estimates: dict[str, Estimate], at_a_time: int) -> str:
    """`12 trials to run, about 3 h 05 min with 2 at a time; 3 are finished`"""
    open_ = [trial.id for trial in trials if not there[trial.id].finished]
    left = {id: cost for id in open_ if (cost := _left(estimates[id], there[id].step)) is not None}
    finished = len(trials) - len(open_)
    rest = f"; {finished} {'is' if finished == 1 else 'are'} finished" if finished else ""
    head = f"{len(open_)} trial{'' if len(open_) == 1 else 's'} to run"
    if not left:
        return f"{head}{', time not known' if open_ else ''}{rest}"
    at_a_time = min(at_a_time, len(open_))
    whole = max(sum(left.values()) / at_a_time, *left.values(), 0.0)
    unknown = f" (without {len(open_) - len(left)} whose time is not known)" if len(left) < len(open_) else ""
    return f"{head}, about {duration(whole)} with {at_a_time} at a time{unknown}{rest}"


def _left(cost: Estimate, step: int | None) -> float | None:
    """Seconds from that update on."""
    if cost.seconds is None:
        return None
    return cost.seconds * (1 - step / cost.steps if step and cost.steps else 1)


def _grounds(trials: list[TrialSpec], there: dict[str, Existing], estimates: dict[str, Estimate]) -> list[str]:
    """How time and memory of the trials to run are known, and what of their updates is not."""
    open_ = [estimates[trial.id] for trial in trials if not there[trial.id].finished]
    lines = []
    for what, sources in (
        ("time and memory", Counter(cost.cost_from for cost in open_)),
        ("updates", Counter(cost.steps_from for cost in open_ if cost.steps is None)),
    ):
        lines += [f"{what} of {n} trial{'' if n == 1 else 's'}: {source}" for source, n in sources.items()]
    return lines
