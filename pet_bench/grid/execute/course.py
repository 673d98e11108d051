"""What happens in a run, as it happens: to the display, and onto disk what no worker could write."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from rich.console import Console

from pet_bench.errors import UserError
from pet_bench.files import write_text
from pet_bench.grid.claim import Taken, claim, taken
from pet_bench.grid.execute.attempt import is_finished
from pet_bench.grid.execute.early import stopped
from pet_bench.grid.execute.events import Ended, Event, Job, Note, Retried, Started
from pet_bench.grid.execute.progress import Display
from pet_bench.grid.execute.storage import writing
from pet_bench.grid.plan.spec import Grid, load
from pet_bench.results import store
from pet_bench.results.provenance import now
from pet_bench.results.schema import Point, Progress, Run, Status, TrialResult
from pet_bench.spec import TrialSpec


@dataclass(frozen=True)
class Outcome:
    """Trial ids by what became of them.

    skipped: had finished results before. elsewhere: another process runs them. stopped: left when the run was asked to
    stop, begun ones with a checkpoint.
    """

    done: tuple[str, ...] = ()
    suspect: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    early: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    stopped: tuple[str, ...] = ()
    interrupted: bool = False


class Screen:
    """What is seen of a run: that designs and data are checked; then, once a trial has begun, the display."""

    def __init__(self, display: Display, console: Console):
        self.display, self.console, self.live, self.showing = display, console, ExitStack(), False

    def __enter__(self) -> Screen:
        self.reading = self.live.enter_context(self.console.status("checking designs and data, then starting"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.show()
        self.live.__exit__(kind, error, traceback)

    def show(self) -> None:
        if not self.showing:
            self.live.close()
            self.live.enter_context(self.display)
            self.showing = True

    def pack(self, progress: Progress) -> None:
        """Where packing stands, before the first trial begins."""
        if not self.showing:
            self.reading.update(f"packing features {progress.step}/{progress.total_steps}")


class Course:
    """Hears of every event; knows how each trial ended, and which are worth another pass."""

    def __init__(self, grid: Grid, out: Path, jobs: list[Job], screen: Screen):
        self.grid, self.out, self.screen, self.display = grid, out, screen, screen.display
        self.begun = now()
        self.jobs = {job.id: job for job in jobs}  # of a trial that is tried again, the last
        self.ends: dict[str, Ended] = {}
        self.results: dict[str, TrialResult] = {}
        self.curves: dict[str, list[Point]] = {}
        self.retried: set[str] = set()
        self.storage = ""  # what is wrong with it

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress) and not event.id:
            self.screen.pack(event)
            return
        self.screen.show()
        match event:
            case Note(text):
                self.display.note(text)
            case Started(id):
                self._start(id)
            case Progress():
                self.curves[event.id] += [Point(**point) for point in event.points]
                self.display.update(event)
            case Retried(id, reason):
                self.display.retry(self._spec(id), reason)
            case Ended():
                self._end(event)

    def _spec(self, id: str) -> TrialSpec:
        return self.jobs[id].spec

    def _start(self, id: str) -> None:
        if not self.curves:  # everything was checked
            keep_grid(self.grid, self.out)
        self.curves[id] = []
        self.display.start(self._spec(id))

    # how trials end --------------------------------------------------------------------------------------------------

    def _end(self, ended: Ended) -> None:
        ended = self.ends[ended.id] = self._settled(ended)
        if ended.id in self.results:
            self.display.finish(self._spec(ended.id), self.results[ended.id])
        else:
            self.display.leave(self._spec(ended.id), ended.how)

    def _settled(self, ended: Ended) -> Ended:
        """How it ended after all, its result taken or written."""
        if ended.how in ("result", "failed"):
            ended = self._read(ended)
        if ended.how == "died":
            ended = self._bury(ended)
        elif ended.how == "early":
            self._cut_short(ended)
        elif ended.how == "storage":
            self.storage = ended.reason
        return ended

    def _read(self, ended: Ended) -> Ended:
        """Take the result that the trial left; one whose file is gone or was damaged has died."""
        spec = self._spec(ended.id)
        try:
            result = store.load(self.out / f"{ended.id}.json")
        except UserError as error:
            return replace(ended, how="died", reason=f"the trial left no result: {error}")
        if ended.how == "result" and ended.reason:
            self.display.note(f"{spec}: {ended.reason}")
        if ended.how == "failed" and result.status not in ("failed", "oom"):
            self.display.note(f"{spec}: its earlier result ({result.status}) is kept")
            result = result.model_copy(update={"status": "failed", "error": ended.reason})
        self.results[ended.id] = result
        return ended

    def _bury(self, ended: Ended) -> Ended:
        """Write the result that a dead trial did not, unless another grid run tries its own luck with it."""
        id, job = ended.id, self.jobs[ended.id]
        status: Status = "oom" if ended.reason.startswith("out of memory") else "failed"
        try:
            with writing(self.out), claim(self.out, id):
                if is_finished(job, self.out):  # it died with all work done
                    self.results[id] = store.load(self.out / f"{id}.json")
                else:
                    self.results[id] = store.save_failure(
                        job.spec, self.out, ended.reason, status=status, started=self.begun, run=self._run(id)
                    )
        except Taken:
            return replace(ended, how="elsewhere")
        return ended

    def _cut_short(self, ended: Ended) -> None:
        id = ended.id
        result = self.results[id] = stopped(self._spec(id), self.curves[id], self.begun, self._run(id))
        with writing(self.out):
            store.save(result, self.out)
            (self.out / id / store.CHECKPOINT).unlink(missing_ok=True)

    def _run(self, id: str) -> Run:
        return Run(accumulation=self.jobs[id].accumulation)

    # another pass ----------------------------------------------------------------------------------------------------

    def next_jobs(self) -> list[Job]:
        """What is worth another pass: once, what ran out of memory, in twice as many parts; what others let go."""
        for id in [id for id, ended in self.ends.items() if ended.how == "elsewhere" and not taken(self.out, id)]:
            if is_finished(self.jobs[id], self.out):
                self._end(Ended(id, "result"))
        again = [job for id in self.ends if (job := self._another(id))]
        for job in again:
            del self.ends[job.id]
            self.results.pop(job.id, None)
            self.jobs[job.id] = job
        return again

    def _another(self, id: str) -> Job | None:
        """The trial's next attempt, of which the display is told, if it is worth one."""
        job, result = self.jobs[id], self.results.get(id)
        if self.ends[id].how == "elsewhere" and not taken(self.out, id):
            self.display.retry(job.spec, "another process let it go")
            return job
        parts = doubled(job.accumulation, job.spec)
        if result is None or result.status != "oom" or id in self.retried or parts == job.accumulation:
            return None
        self.retried.add(id)
        self.display.retry(job.spec, f"out of memory: batches in {parts} parts")
        return replace(job, accumulation=parts)

    def outcome(self, skipped: tuple[str, ...], interrupted: bool) -> Outcome:
        def those(*statuses: Status) -> tuple[str, ...]:
            return tuple(id for id in self.jobs if id in self.results and self.results[id].status in statuses)

        elsewhere = tuple(id for id, ended in self.ends.items() if ended.how == "elsewhere")
        left = tuple(id for id in self.jobs if id not in self.results and id not in elsewhere)
        return Outcome(
            those("done"), those("suspect"), those("failed", "oom"), those("stopped_early"), skipped, elsewhere, left,
            interrupted,
        )  # fmt: skip


def doubled(parts: int, spec: TrialSpec) -> int:
    """Twice as many parts of a batch, as far as it has examples."""
    return min(2 * parts, spec.recipe.batch_size)


def whole(grid: Grid, out: Path) -> Grid:
    """The grid of all that was ever run into the folder; raises UserError where it cannot take this one too."""
    return load(out).joined(grid) if (out / "grid.yaml").is_file() else grid


def keep_grid(grid: Grid, out: Path) -> None:
    """Put a copy of the grid beside its results, unless another process is just about to."""
    name = "grid.yaml"
    with writing(out), suppress(Taken), claim(out, name):
        for torn in out.glob(f".{name}.*"):  # of a process that was killed while it wrote
            torn.unlink()
        write_text(out / name, whole(grid, out).dump())
