"""What a grid is going to cost, before it runs: updates, time and memory of each trial, and how one knows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pet_bench.backbone.known import find_backbone
from pet_bench.errors import Faults, PluginError, UserError, foreign
from pet_bench.grid.claim import taken
from pet_bench.grid.progress import COLOURS, duration
from pet_bench.grid.status import checkpoint_step
from pet_bench.results import store
from pet_bench.results.schema import TrialResult
from pet_bench.spec import Runtime, TrialSpec

if TYPE_CHECKING:
    from pet_bench.grid.spec import Grid
    from pet_bench.trial.measure import Measured, Sizes

MEASURED = "measured here"
UNKNOWN = "not known"
IGNORED = ("seed", "label")  # of a spec: trials that differ in nothing else cost the same


@dataclass(frozen=True)
class Estimate:
    """Of one trial from its beginning to its end; None: not known.

    peak_bytes: of device memory, or of the process on a CPU. steps_from, cost_from: how updates, and how time and
    memory are known ("from the data", "from 2 earlier results", "measured here"), or "not known" and why.
    """

    steps: int | None
    seconds: float | None
    peak_bytes: int | None
    steps_from: str
    cost_from: str


def estimate(
    trials: Iterable[TrialSpec],
    results: Iterable[TrialResult],
    runtime: Runtime,
    *,
    measure: bool = True,
    finished: Collection[str] = (),
    say: Callable[[str], None] = lambda line: None,
    lost: Faults | None = None,
) -> dict[str, Estimate]:
    """An estimate of each trial, by id.

    Time is the mean of earlier results of the same set-up, of whichever seed, and memory their peak. Where there are
    none, a few updates and evaluation batches are made with `measure`, once for trials that do the same at each update,
    and never for those `finished`. Updates are counted in the annotations. Data or weights that are missing make
    an estimate "not known", and raise nothing. `say` hears what is being done, `lost` takes what plug-ins' code raised.
    """
    results, found = list(results), {}
    estimator = _Estimator(runtime, say, Faults() if lost is None else lost)
    known: dict[tuple[str, bool], Estimate] = {}
    for spec in trials:
        measured = measure and spec.id not in finished
        key = json.dumps(_setup(spec.to_dict()), sort_keys=True), measured
        if key not in known:
            known[key] = estimator(spec, _earlier(spec, results), measured)
        found[spec.id] = known[key]
    return found


def costs(specs: Iterable[TrialSpec], results: Iterable[TrialResult]) -> dict[str, float]:
    """What each trial costs beside the others, without data and weights: by id, seconds where there are any results.

    That is the mean of earlier results of its set-up, else epochs × layers × width² of the backbone, which takes the
    time that it took in the results of other set-ups.
    """
    timed = [result for result in results if _whole(result)]
    ratios = [_seconds(result) / _size(result.spec) for result in timed]
    scale = sum(ratios) / len(ratios) if ratios else 1.0
    found = {}
    for spec in specs:
        earlier = _earlier(spec, timed)
        seconds = sum(map(_seconds, earlier)) / max(1, len(earlier))
        found[spec.id] = seconds or scale * _size(spec.to_dict())
    return found


def _setup(spec: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if key not in IGNORED}


def _earlier(spec: TrialSpec, results: Iterable[TrialResult]) -> list[TrialResult]:
    setup = _setup(spec.to_dict())
    return [result for result in results if _whole(result) and _setup(result.spec) == setup]


def _whole(result: TrialResult) -> bool:
    """Whether a trial went to its end; one that diverged did not, and has no scores."""
    return result.status in store.FINISHED and bool(result.cost and result.metrics)


def _seconds(result: TrialResult) -> float:
    return result.cost.train_seconds + result.cost.eval_seconds


def _size(spec: dict[str, Any]) -> float:
    """Epochs × layers × width², an epoch being taken for a thousand updates where it is updates that are given."""
    recipe = spec["recipe"]
    epochs = min(recipe["epochs"], (recipe.get("max_steps") or float("inf")) / 1000)
    return epochs * _weights(spec["backbone"])


@lru_cache
def _weights(backbone: str) -> float:
    try:
        shape = find_backbone(backbone).shape
    except UserError:  # of a result from elsewhere
        return 1.0
    return float(shape.encoder_layers + shape.decoder_layers) * shape.d**2


class _Estimator:
    """What has been read and measured so far, each thing once."""

    def __init__(self, runtime: Runtime, say: Callable[[str], None], lost: Faults):
        from pet_bench.trial.shared import Shared

        self.runtime, self.say, self.lost, self.shared = runtime, say, lost, Shared()
        self.sizes: dict[str, Sizes | str] = {}  # or why there are none
        self.measured: dict[str, Measured | str] = {}
        self.unreadable: dict[str, str] = {}  # data and backbones → why

    def __call__(self, spec: TrialSpec, earlier: list[TrialResult], measure: bool) -> Estimate:
        from pet_bench.data.reading import build_tasks
        from pet_bench.trial.measure import workload

        sizes = self._sizes(spec)
        work = None
        if not isinstance(sizes, str):
            try:
                with foreign(f"{spec.suite}: counting updates raised"):
                    tasks = build_tasks(spec.tasks, spec.protocol)
                    work = workload(spec, tasks, sizes, self.runtime.accumulation)
            except UserError as error:
                sizes = self._why(error)
        steps, steps_from = (work.steps, "from the data") if work else (None, f"{UNKNOWN}: {sizes}")
        if earlier:
            n = len(earlier)
            since = f"from {n} earlier result{'s' if n > 1 else ''}"
            if work is None:
                steps, steps_from = round(sum(result.cost.steps for result in earlier) / n), since
            peak = max(result.run.peak_memory_bytes or result.cost.peak_memory_bytes for result in earlier)
            return Estimate(steps, sum(map(_seconds, earlier)) / n, peak, steps_from, since)
        if not measure:
            return Estimate(steps, None, None, steps_from, f"{UNKNOWN}: no earlier results, and nothing was measured")
        if work is None:
            return Estimate(steps, None, None, steps_from, f"{UNKNOWN}: no data")
        measured = self._measured(spec)
        if isinstance(measured, str):
            return Estimate(steps, None, None, steps_from, f"{UNKNOWN}: {measured}")
        return Estimate(steps, measured.seconds(work), measured.peak_memory_bytes, steps_from, MEASURED)

    def _sizes(self, spec: TrialSpec) -> Sizes | str:
        """Examples by task and split, from the annotations alone; or what is wrong with those."""
        key = _data_of(spec)
        if key not in self.sizes:
            from pet_bench.data.reading import SPLITS, build_tasks, data_root

            self.say(f"counting examples: {spec.suite}")
            try:
                root = data_root(spec.suite, self.runtime)
                splits = SPLITS if spec.recipe.valid_every else ("train", "test")
                self.sizes[key] = {
                    task.name: {
                        s: len(task.used(root, s, self.runtime.missing_features)[0])
                        for s in splits
                        if s != "valid" or task.valid
                    }
                    for task in build_tasks(spec.tasks, spec.protocol)
                }
            except UserError as error:
                self.sizes[key] = self._why(error)
        return self.sizes[key]

    def _why(self, error: UserError) -> str:
        if isinstance(error, PluginError):
            self.lost.add(error)
        return error.faults[0]

    def _fault(self, read: Callable[[], Any]) -> str:
        try:
            read()
        except UserError as error:
            return self._why(error)
        return ""

    def _measured(self, spec: TrialSpec) -> Measured | str:
        """Of trials that do the same at each update; or why not."""
        alike = replace(spec.recipe, lr=1.0, epochs=1, max_steps=None, valid_every=0, selection="last")
        key = json.dumps(_setup(replace(spec, recipe=alike).to_dict()), sort_keys=True)
        if key not in self.measured:
            self.measured[key] = self._readable(spec) or self._measure(spec)
        return self.measured[key]

    def _readable(self, spec: TrialSpec) -> str:
        """Why data or weights cannot be had, if so; what can be is kept for the measurement."""
        backbone, data = f"weights {spec.backbone}", _data_of(spec)
        if backbone not in self.unreadable:
            self.unreadable[backbone] = self._fault(lambda: self.shared.stock(spec)) and "no weights here"
        if not self.unreadable[backbone] and data not in self.unreadable:
            self.say(f"reading the data: {spec.suite}")

            def packing(done: int, total: int) -> None:
                self.say(f"packing features {done}/{total}")

            self.unreadable[data] = self._fault(lambda: self.shared.data(spec, self.runtime, packing))
        return self.unreadable[backbone] or self.unreadable[data]

    def _measure(self, spec: TrialSpec) -> Measured | str:
        from pet_bench.trial.measure import measure
        from pet_bench.trial.memory import is_out_of_memory
        from pet_bench.trial.suspect import Diverged

        self.say(f"measuring {spec}")
        try:
            with foreign("an update raised"):
                try:
                    return measure(spec, self.runtime, shared=self.shared)
                except Diverged as error:
                    return str(error)
        except UserError as error:
            where = f"{spec.label} on {spec.backbone}"
            return "out of memory" if is_out_of_memory(error) else self._why(error.within(where))


def _data_of(spec: TrialSpec) -> str:
    return json.dumps([spec.suite, spec.protocol, bool(spec.recipe.valid_every)], sort_keys=True)


# what there is -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Existing:
    """What there is of a trial: "running", its result's status or "missing"; its checkpoint's update; whether it need
    not run."""

    status: str
    step: int | None
    finished: bool


def existing(
    trials: Iterable[TrialSpec], results: dict[str, TrialResult], out: Path, also: Collection[str] = ()
) -> dict[str, Existing]:
    """By id. also: statuses that are finished for this grid, beside done and suspect."""
    found = {}
    for trial in trials:
        status = results[trial.id].status if trial.id in results else "missing"
        finished = status in (*store.FINISHED, *also)
        step = None if finished else checkpoint_step(out, trial.id)
        found[trial.id] = Existing("running" if taken(out, trial.id) else status, step, finished)
    return found


# the table -----------------------------------------------------------------------------------------------------------


def plan_table(
    trials: list[TrialSpec],
    there: dict[str, Existing],
    counts: dict[str, dict[str, Any]],
    estimates: dict[str, Estimate],
    at_a_time: int,
) -> RenderableType:
    """A row a trial; the totals of those that are to run; how one knows. `counts`, of parameters, are by trial id."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("id", "trial", "trainable", "%", "so far", "updates", "time", "memory"):
        right = name in ("trainable", "%", "updates", "time", "memory")
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "trial", overflow="fold")
    for trial in trials:
        found, count = estimates[trial.id], counts[trial.id]
        state = there[trial.id]
        table.add_row(
            trial.id,
            escape(str(trial)),
            f"{count['trainable']:,}",
            f"{count['percent']:.2f}",
            _so_far(state),
            "–" if found.steps is None else f"{found.steps:,}",
            "–" if found.seconds is None else duration(found.seconds),
            "–" if found.peak_bytes is None else f"{found.peak_bytes / 1e9:.1f} GB",
        )
    lines = [_total(trials, there, estimates, at_a_time), *_grounds(trials, there, estimates)]
    return Group(table, Text(), *(Text(line) for line in lines))


def _so_far(state: Existing) -> str:
    status = f"[{COLOURS.get(state.status, 'dim')}]{state.status.replace('_', ' ')}[/]"
    if state.step is None:
        return status
    checkpoint = f"checkpoint at {state.step:,}"
    return checkpoint if state.status == "missing" else f"{status}, {checkpoint}"


def _total(trials, there: dict[str, Existing], estimates: dict[str, Estimate], at_a_time: int) -> str:
    """`12 trials to run, about 3 h 05 min with 2 at a time; 3 are finished`"""
    open_ = [trial.id for trial in trials if not there[trial.id].finished]
    left = {id: _left(estimates[id], there[id].step) for id in open_ if estimates[id].seconds is not None}
    finished = len(trials) - len(open_)
    rest = f"; {finished} {'is' if finished == 1 else 'are'} finished" if finished else ""
    head = f"{len(open_)} trial{'' if len(open_) == 1 else 's'} to run"
    if not left:
        return f"{head}{', time not known' if open_ else ''}{rest}"
    at_a_time = min(at_a_time, len(open_))
    whole = max(sum(left.values()) / at_a_time, *left.values(), 0.0)
    unknown = f" (without {len(open_) - len(left)} whose time is not known)" if len(left) < len(open_) else ""
    return f"{head}, about {duration(whole)} with {at_a_time} at a time{unknown}{rest}"


def _left(found: Estimate, step: int | None) -> float:
    return found.seconds * (1 - step / found.steps if step and found.steps else 1)


def _grounds(trials, there: dict[str, Existing], estimates: dict[str, Estimate]) -> list[str]:
    """How time and memory of the trials to run are known, and what of their updates is not."""
    open_ = [estimates[trial.id] for trial in trials if not there[trial.id].finished]
    lines = []
    for what, sources in (
        ("time and memory", Counter(found.cost_from for found in open_)),
        ("updates", Counter(found.steps_from for found in open_ if found.steps is None)),
    ):
        lines += [f"{what} of {n} trial{'' if n == 1 else 's'}: {source}" for source, n in sources.items()]
    return lines


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
    from pet_bench.trial.count import count_parameters

    runtime = replace(runtime, threads=runtime.threads or max(1, int(grid.resources.cpus)))
    results = store.load_all(runtime.out)
    lost, faults, counted, counts = Faults(), Faults(), {}, {}
    with console.status("counting parameters") as status:
        for trial in trials:
            key = trial.backbone, str(trial.method), trial.suite
            if key not in counted:
                counted[key] = None
                with faults:
                    counted[key] = count_parameters(trial.backbone, trial.method, trial.suite)
            counts[trial.id] = counted[key]
        faults.check(lost)
        trials = [trial for trial in trials if counts[trial.id]]
        there = existing(trials, results, runtime.out, grid.also_finished)
        if runtime.missing_features == "refuse":  # as in a run
            there |= {id: replace(there[id], finished=False) for id in there if id in results and results[id].dropped}
        if again:
            there = {id: replace(state, finished=False) for id, state in there.items()}
        finished = {id for id, state in there.items() if state.finished}
        status.update("checking the data")
        with lost:
            check_data([trial for trial in trials if trial.id not in finished], runtime, pack=False)
        known = results.values() if earlier else ()
        estimates = estimate(
            trials,
            known,
            runtime,
            measure=measure,
            finished=finished,
            say=lambda line: status.update(escape(line)),
            lost=lost,
        )
    if not trials:
        lost.check()
    view, width = plan_table(trials, there, counts, estimates, at_a_time), console.width
    if not console.is_terminal:  # a file has no width to keep to
        console.width = max(width, Console(width=1000).measure(view).maximum)
    console.print(view)
    console.width = width
    lost.check()
