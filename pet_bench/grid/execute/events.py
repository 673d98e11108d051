"""What a run of a grid is made of: the trials that are to run, and what happens to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pet_bench.results.schema import Progress
from pet_bench.spec import TrialSpec


@dataclass(frozen=True)
class Job:
    """A trial to run. replaces: when the result was made that it has and that is not to keep it from running."""

    spec: TrialSpec
    accumulation: int = 1
    replaces: str | None = None

    @property
    def id(self) -> str:
        return self.spec.id

    def to_dict(self) -> dict[str, Any]:
        return {"spec": self.spec.to_dict(), "accumulation": self.accumulation, "replaces": self.replaces}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Job:
        return cls(TrialSpec.from_dict(data["spec"]), data["accumulation"], data["replaces"])


REPORT_SECONDS = 1.0  # between two progress reports of a trial: each wakes the scheduler


@dataclass(frozen=True)
class Started:
    id: str


@dataclass(frozen=True)
class Retried:
    """The trial's process died; it goes back to the queue."""

    id: str
    reason: str


@dataclass(frozen=True)
class Note:
    """Something for the user to read."""

    text: str


@dataclass(frozen=True)
class Ended:
    """How an attempt ended.

    result: its file says how; reason: what is to be said beside. failed: with an error of its own. elsewhere: another
    process runs it. stopped: as asked, with a checkpoint. storage: results cannot be written, nothing was. died: the
    process did, every time. early: a search has seen enough of it.
    """

    id: str
    how: Literal["result", "failed", "elsewhere", "stopped", "storage", "died", "early"]
    reason: str = ""


Event = Started | Progress | Retried | Note | Ended
