"""What of a grid is done, failed or missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pet_bench.results import store
from pet_bench.spec import TrialSpec


@dataclass(frozen=True)
class State:
    """status: a result's, or "missing", or "unreadable" where the file is not a whole result."""

    trial: TrialSpec
    status: str
    note: str = ""


def status(trials: list[TrialSpec], out: Path) -> list[State]:
    """The state of each trial, in the grid's order."""
    results, _ = store.scan(out)
    return [_state(trial, results.get(trial.id), out) for trial in trials]


def _state(trial: TrialSpec, result, out: Path) -> State:
    if result is not None:
        average = "" if result.average is None else f"average {result.average:.2f}"
        return State(trial, result.status, result.error or average)
    path = out / f"{trial.id}.json"
    return State(trial, "unreadable", str(path)) if path.exists() else State(trial, "missing")
