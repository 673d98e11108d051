"""What one sees while a grid runs: bars on a terminal, otherwise one line per finished trial."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as Bars

from pet_bench.results.schema import Progress, TrialResult
from pet_bench.spec import TrialSpec


def duration(seconds: float) -> str:
    """`42 s`, `12 min`, `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


class Display:
    """Progress of a grid of `total` trials, `finished` of which have results already."""

    def __init__(self, console: Console, out: Path, *, total: int, finished: int):
        self.console, self.out, self.total, self.skipped = console, out, total, finished
        self.ended, self.failed = 0, 0
        self.running: dict[str, float] = {}  # trial id → fraction done
        self.starts: dict[str, float] = {}
        self.bars = Bars(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=console, disable=not console.is_terminal, transient=True,
        )  # fmt: skip
        self.all = self.bars.add_task("trials", total=total, completed=finished, note="")
        self.tasks: dict[str, int] = {}

    def __enter__(self) -> Display:
        self.begun = time.monotonic()
        note = f", {self.skipped} finished before" if self.skipped else ""
        self.console.print(f"{self.total} trials{note}; results in {self.out}", highlight=False, soft_wrap=True)
        self.bars.start()
        return self

    def __exit__(self, *error) -> None:
        self.bars.stop()
        if error[0] is None:
            self.close()

    def close(self) -> None:
        """The last line: what there is now, and where."""
        done = self.skipped + self.ended - self.failed
        failed = f", [red]{self.failed} failed[/red]" if self.failed else ""
        self.console.print(f"{done} of {self.total} trials done{failed}; results in {self.out}", soft_wrap=True)

    def start(self, spec: TrialSpec) -> None:
        self.running[spec.id], self.starts[spec.id] = 0.0, time.monotonic()
        self.tasks[spec.id] = self.bars.add_task(f"  {escape(str(spec))}", total=None, note="prepare")

    def update(self, progress: Progress) -> None:
        note = progress.phase
        note += f", loss {progress.loss:.3f}" if progress.loss is not None else ""
        note += f", {progress.examples_per_second:.0f} examples/s" if progress.examples_per_second else ""
        if progress.phase == "train" and progress.total_steps:
            self.running[progress.id] = progress.step / progress.total_steps
        if progress.id in self.tasks:
            self.bars.update(
                self.tasks[progress.id],
                completed=progress.step,
                total=progress.total_steps or None,
                note=note,
            )
        self.bars.update(self.all, note=self.eta())

    def finish(self, spec: TrialSpec, result: TrialResult) -> None:
        self.ended += 1
        self.failed += result.status != "done"
        self.running.pop(spec.id, None)
        took = duration(time.monotonic() - self.starts.get(spec.id, self.begun))
        if spec.id in self.tasks:
            self.bars.remove_task(self.tasks.pop(spec.id))
        score = "" if result.average is None else f"  average {result.average:.2f}"
        color = "green" if result.status == "done" else "red"
        reason = f"  {escape(result.error)}" if result.error else ""
        self.bars.update(self.all, completed=self.skipped + self.ended, note=self.eta())
        self.console.print(
            f"{self.skipped + self.ended}/{self.total} [{color}]{result.status}[/{color}]  "
            f"{escape(str(spec))}{score}  {took}{reason}  {self.eta()}".rstrip(),
            highlight=False,
            soft_wrap=True,
        )

    def eta(self) -> str:
        """Time left, from the share of the work done since the start."""
        todo = self.total - self.skipped
        share = (self.ended + sum(self.running.values())) / todo
        if not share or self.ended == todo:
            return ""
        return f"about {duration((time.monotonic() - self.begun) * (1 - share) / share)} left"
