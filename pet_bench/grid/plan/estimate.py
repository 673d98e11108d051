"""What a grid is going to cost, before it runs: updates, time and memory of each trial, and how one knows."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pet_bench.errors import Faults, PluginError, UserError, foreign
from pet_bench.grid.plan.costs import Timed, alike, seconds, setup, whole
from pet_bench.results.schema import TrialResult
from pet_bench.spec import Fed, Runtime, TrialSpec

if TYPE_CHECKING:
    from pet_bench.trial.measure import Measured, Sizes, Workload

MEASURED = "measured here"
UNKNOWN = "not known"


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
    timed, by_id = whole(results), {}
    estimator = _Estimator(runtime, say, Faults() if lost is None else lost)
    known: dict[tuple[tuple[str, str], bool], Estimate] = {}
    for spec in trials:
        measured = measure and spec.id not in finished
        key = spec.but_seed, measured
        if key not in known:
            known[key] = estimator(spec, alike(spec, timed), measured)
        by_id[spec.id] = known[key]
    return by_id


class _Estimator:
    """What has been read and measured so far, each thing once."""

    def __init__(self, runtime: Runtime, say: Callable[[str], None], lost: Faults):
        from pet_bench.trial.shared import Shared

        self.runtime, self.say, self.lost, self.shared = runtime, say, lost, Shared()
        self.sizes: dict[str, Sizes | str] = {}  # or why there are none
        self.measured: dict[str, Measured | str] = {}
        self.unreadable: dict[str, str] = {}  # data and backbones → why

    def __call__(self, spec: TrialSpec, earlier: list[Timed], measure: bool) -> Estimate:
        work = self._workload(spec)
        steps, steps_from = (None, f"{UNKNOWN}: {work}") if isinstance(work, str) else (work.steps, "from the data")
        if earlier:
            n = len(earlier)
            since = f"from {n} earlier result{'s' if n > 1 else ''}"
            if isinstance(work, str):
                steps, steps_from = round(sum(cost.steps for _, cost in earlier) / n), since
            peak = max(result.run.peak_memory_bytes or cost.peak_memory_bytes for result, cost in earlier)
            return Estimate(steps, sum(seconds(cost) for _, cost in earlier) / n, peak, steps_from, since)
        if not measure:
            return Estimate(steps, None, None, steps_from, f"{UNKNOWN}: no earlier results, and nothing was measured")
        if isinstance(work, str):
            return Estimate(steps, None, None, steps_from, f"{UNKNOWN}: no data")
        measured = self._measured(spec)
        if isinstance(measured, str):
            return Estimate(steps, None, None, steps_from, f"{UNKNOWN}: {measured}")
        return Estimate(steps, measured.seconds(work), measured.peak_memory_bytes, steps_from, MEASURED)

    def _workload(self, spec: TrialSpec) -> Workload | str:
        """How much there is to do, or why that is not known."""
        from pet_bench.data.reading import build_tasks
        from pet_bench.trial.measure import workload

        sizes = self._sizes(spec)
        if isinstance(sizes, str):
            return sizes
        try:
            with foreign(f"{spec.suite}: counting updates raised"):
                tasks = build_tasks(spec.tasks, spec.protocol)
                return workload(spec, tasks, sizes, self.runtime.accumulation)
        except UserError as error:
            return self._why(error)

    def _sizes(self, spec: TrialSpec) -> Sizes | str:
        """Examples by task and split, from the annotations alone; or what is wrong with those."""
        key = _data_of(spec)
        if key not in self.sizes:
            from pet_bench.data.albums import Albums
            from pet_bench.data.reading import SPLITS, build_tasks, data_root

            self.say(f"counting examples: {spec.suite}")
            try:
                root = data_root(spec.suite, self.runtime)
                splits = SPLITS if spec.recipe.valid_every else ("train", "test")
                albums = Albums() if _fed(spec) == "pixels" else None
                self.sizes[key] = {
                    task.name: {
                        s: len(task.used(root, s, self.runtime.missing_features, albums)[0])
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
        key = json.dumps(setup(replace(spec, recipe=alike).to_dict()), sort_keys=True)
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
    return json.dumps([_fed(spec), spec.suite, spec.protocol, bool(spec.recipe.valid_every)], sort_keys=True)


def _fed(spec: TrialSpec) -> Fed:
    from pet_bench.backbone.known import family_of, find_backbone

    return family_of(find_backbone(spec.backbone)).fed
