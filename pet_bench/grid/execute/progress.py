"""What one sees while a grid runs: a live table on a terminal, otherwise one line per finished trial."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pet_bench.grid.shown import COLOURS, duration
from pet_bench.results.schema import Progress, TrialResult
from pet_bench.spec import TrialSpec

ROWS = 20  # running trials shown at most
SMOOTHING = 0.9  # share of the earlier losses in the loss shown: tasks take turns, and their losses differ
HEARTBEAT = 600.0  # seconds between two lines where there is no terminal
TRAINING = 0.95  # share of a trial's work; the rest is its test
SETTLING = 30.0  # seconds before the time left is told from running trials alone


def near(path: Path) -> str:
    """The path as one would type it here."""
    path = Path(path)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def names(specs: list[TrialSpec], room: int) -> list[str]:
    """The trials' names; where they would not fit, without backbone or suite, what all have in common going first, and
    at last with the methods' labels cut."""
    kept, dropped = ["backbone", "label", "suite"], ["backbone", "suite"]
    dropped.sort(key=lambda part: len({getattr(spec, part) for spec in specs}) > 1)
    while dropped and max((cell_len(_name(spec, kept)) for spec in specs), default=0) > room:
        kept.remove(dropped.pop(0))
    return [_name(spec, kept, room) for spec in specs]


def _name(spec: TrialSpec, parts: list[str], room: int | None = None) -> str:
    values = {part: getattr(spec, part) or str(spec.method) for part in parts}
    control = "" if spec.control == "none" else f" [{spec.control}]"
    name = " × ".join([*values.values(), f"seed {spec.seed}"]) + control
    if room is None or cell_len(name) <= room:
        return name
    label = set_cell_size(values["label"], max(1, cell_len(values["label"]) - (cell_len(name) - room) - 1)).rstrip()
    return name.replace(values["label"], f"{label}…", 1)


@dataclass
class Row:
    """A running trial. share: of its updates made; share0: those of them that a checkpoint brought, as far as the pace
    since the first report, `first` (share, time), tells."""

    spec: TrialSpec
    started: float
    progress: Progress
    loss: float | None = None
    rate: float | None = None
    share: float = 0.0
    share0: float = 0.0
    first: tuple[float, float] | None = None

    def update(self, progress: Progress, now: float) -> None:
        self.progress = progress
        if progress.phase == "train" and progress.total_steps:
            self.advance(progress.step / progress.total_steps, now)
        if progress.loss is not None:
            before = progress.loss if self.loss is None else self.loss
            self.loss = SMOOTHING * before + (1 - SMOOTHING) * progress.loss
        self.rate = progress.examples_per_second or self.rate

    def advance(self, share: float, now: float) -> None:
        self.share = share
        if self.first is None:
            self.first, self.share0 = (share, now), share
        elif pace := self.pace(now):
            self.share0 = max(0.0, self.first[0] - pace * (self.first[1] - self.started))

    def pace(self, now: float) -> float:
        """Share of the training, validation included, per second; 0 where it is not known yet."""
        if self.first is None or now <= self.first[1]:
            return 0.0
        return (self.share - self.first[0]) / (now - self.first[1])

    def left(self, now: float) -> str:
        """Time that is left of training, validation included."""
        pace = self.pace(now)
        return duration((1 - self.share) / pace) if pace > 0 and self.share < 1 else ""


class Display:
    """Progress of a grid of `total` trials, `finished` of which have results already.

    weights: what each trial that is to run is expected to cost, in any unit; they make the time left more exact.
    On a terminal the table is drawn anew, from another thread, four times a second; elsewhere nothing is ever
    overwritten: a line for each trial that ends and, where none does, one every ten minutes. clock: seconds.
    """

    def __init__(
        self,
        console: Console,
        out: Path,
        *,
        total: int,
        finished: int,
        weights: dict[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.console, self.out, self.total, self.before = console, out, total, finished
        self.weights, self.clock = weights or {}, clock
        self.mean = sum(self.weights.values()) / len(self.weights) if self.weights else 1.0
        self.ended: dict[str, str] = {}  # trials that ended here, by id → status
        self.elsewhere: set[str] = set()  # trials that another process runs
        self.running: dict[str, Row] = {}
        self.done = 0.0  # weight of the work done here by trials that no longer run
        self.begun = self.spoke = clock()
        self.live = Live(get_renderable=self.render, console=console, refresh_per_second=4, transient=True)
        self.drawn = console.is_terminal and not console.is_dumb_terminal

    def __enter__(self) -> Display:
        self.begun = self.spoke = self.clock()
        before = f", {self.before} finished before" if self.before else ""
        self._say(f"{self.total} trials{before}; results in {escape(near(self.out))}")
        if self.drawn:
            self.live.start()
        return self

    def __exit__(self, *error) -> None:
        self.live.stop()
        if error[0] is None:
            self.close()

    def close(self) -> None:
        """The last line: what there is now, and where."""
        done = self.before + self.counts["done"]
        rest = "".join(f", {part}" for part in self._others())
        self._say(f"{done} of {self.total} trials done{rest}; results in {escape(near(self.out))}")

    def note(self, line: str) -> None:
        """A line above the table."""
        self._say(escape(line))

    def start(self, spec: TrialSpec) -> None:
        self.running[spec.id] = Row(spec, self.clock(), Progress(spec.id, "prepare"))

    def update(self, progress: Progress) -> None:
        now = self.clock()
        if progress.id in self.running:
            self.running[progress.id].update(progress, now)
        if not self.drawn and now - self.spoke >= HEARTBEAT:
            self._say(", ".join(self._standing()))

    def retry(self, spec: TrialSpec, reason: str) -> None:
        """The trial, running or ended, goes back to those that wait."""
        self.running.pop(spec.id, None)
        self.ended.pop(spec.id, None)
        self.elsewhere.discard(spec.id)
        self._say(f"[dim]again later  {escape(f'{spec}  {reason}')}[/dim]")

    def leave(self, spec: TrialSpec, how: str) -> None:
        """The trial runs here no longer and has no result of ours. how: "elsewhere", "stopped", "storage"."""
        self.running.pop(spec.id, None)
        if how == "elsewhere":
            self.elsewhere.add(spec.id)
        self._say(f"[dim]{how}  {escape(str(spec))}[/dim]")

    def finish(self, spec: TrialSpec, result: TrialResult) -> None:
        row = self.running.pop(spec.id, None) or Row(spec, self.begun, Progress(spec.id, "prepare"))
        self.elsewhere.discard(spec.id)
        if result.status not in ("failed", "oom"):
            if row.first:
                row.advance(1.0, self.clock())
            row.share = 1.0
        self.done += self._weight(spec.id) * (row.share - row.share0)
        self.ended[spec.id] = result.status
        colour = COLOURS[result.status]
        parts = [
            f"{self.before + len(self.ended)}/{self.total} [{colour}]{result.status}[/{colour}]",
            escape(str(spec)),
            "" if result.average is None else f"average {result.average:.2f}",
            duration(self.clock() - row.started),
            f"[{colour}]{escape(result.error)}[/{colour}]" if result.error else "",
            self.eta(),
        ]
        self._say("  ".join(part for part in parts if part))
        for line in result.run.notes:
            self._say(f"[dim]    {escape(line)}[/dim]")

    def eta(self) -> str:
        """Time left, from the share of the work done since the start; empty where it cannot be told yet."""
        now, rows = self.clock(), list(self.running.values())
        done = self.done + sum(self._weight(row.spec.id) * TRAINING * (row.share - row.share0) for row in rows)
        gone = {*list(self.ended), *self.elsewhere}
        left = self.mean * (self.total - self.before) - sum(map(self._weight, gone))
        left -= sum(self._weight(row.spec.id) * TRAINING * row.share for row in rows)
        if done <= 0 or left <= 0 or not (self.ended or now - self.begun >= SETTLING):
            return ""
        return f"about {duration((now - self.begun) * left / done)} left"

    @property
    def counts(self) -> Counter[str]:
        """Trials that ended here, by status."""
        return Counter(list(self.ended.values()))

    def _weight(self, id: str) -> float:
        return self.weights.get(id, self.mean)

    def _say(self, line: str) -> None:
        self.spoke = self.clock()
        self.console.print(line, highlight=False, soft_wrap=True)

    def _others(self) -> list[str]:
        """How many ended otherwise than done: `2 failed`, coloured."""
        counts = self.counts + Counter(elsewhere=len(self.elsewhere))
        shown = [status for status in [*COLOURS, "elsewhere"] if counts[status] and status != "done"]
        texts = {status: f"{counts[status]} {status.replace('_', ' ')}" for status in shown}
        return [f"[{COLOURS.get(status, 'dim')}]{text}[/]" for status, text in texts.items()]

    def _standing(self) -> list[str]:
        """`3 running`, `12 of 40 done`, `1 failed`, `about 2 h 05 min left`."""
        done = self.before + self.counts["done"]
        parts = [f"{len(self.running)} running", f"{done} of {self.total} done", *self._others(), self.eta()]
        return [part for part in parts if part]

    # the table ------------------------------------------------------------------------------------------------------

    def render(self) -> RenderableType:
        """The running trials and a line for the grid, for the console's width."""
        now, rows = self.clock(), list(self.running.values())
        width, height = self.console.size
        shown = rows[: max(1, min(ROWS, height - 4))]
        wide, bar = width >= 100, 16 if width >= 120 else 8
        columns = {
            "phase": 8, "bar": bar, "%": 4, "updates": max([7, *(len(_steps(row)) for row in shown)]), "epoch": 5,
            "loss": 6, "examples/s": 10, "left": 11,
        }  # fmt: skip
        hidden = () if width >= 120 else ("epoch",) if wide else ("bar", "updates", "epoch", "examples/s")
        columns = {name: size for name, size in columns.items() if name not in hidden}
        room = width - sum(size + 2 for size in columns.values())
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        table.add_column("running", no_wrap=True, overflow="ellipsis", width=room)
        for name, size in columns.items():
            side: Literal["left", "right"] = "left" if name in ("phase", "bar") else "right"
            table.add_column("" if name in ("bar", "%") else name, justify=side, no_wrap=True, width=size)
        for row, label in zip(shown, names([row.spec for row in shown], room), strict=True):
            cells = _cells(row, now, bar)
            table.add_row(Text(label), *(cells[name] for name in columns))
        parts: list[RenderableType] = [table] if rows else []
        if len(rows) > len(shown):
            parts.append(Text(f"… and {len(rows) - len(shown)} more", style="dim"))
        ended = self.before + len(self.ended)
        last = Table.grid(padding=(0, 1))
        last.add_column(width=16 if wide else 8)
        last.add_column(overflow="fold")
        standing = " · ".join([*self._standing(), f"{duration(now - self.begun)} so far"])
        last.add_row(ProgressBar(total=self.total, completed=ended), Text.from_markup(standing))
        return Group(*parts, last)


def _steps(row: Row) -> str:
    progress = row.progress
    return f"{progress.step:,}/{progress.total_steps:,}" if progress.total_steps else ""


def _cells(row: Row, now: float, bar: int) -> dict[str, RenderableType]:
    progress, total = row.progress, row.progress.total_steps
    training = progress.phase == "train"
    return {
        "phase": Text(progress.phase, style="" if training else "dim"),
        "bar": ProgressBar(
            total=total or None, completed=progress.step, width=bar, pulse=not total, animation_time=now
        ),
        "%": f"{progress.step / total:.0%}" if total else "",
        "updates": _steps(row),
        "epoch": f"{progress.epoch:.1f}" if training and progress.epoch is not None else "",
        "loss": "" if row.loss is None else f"{row.loss:.3f}",
        "examples/s": "" if row.rate is None else f"{row.rate:,.0f}",
        "left": row.left(now),
    }
