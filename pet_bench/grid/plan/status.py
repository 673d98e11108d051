"""What of a grid is done, failed, running or missing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from pet_bench.errors import Faults
from pet_bench.grid.claim import taken
from pet_bench.results import store
from pet_bench.results.schema import TrialResult
from pet_bench.spec import TrialSpec


@dataclass(frozen=True)
class State:
    """status: a result's, or "running", "interrupted" (there is a checkpoint), "missing", "unreadable" (the file is no
    valid result)."""

    trial: TrialSpec
    status: str
    note: str = ""


def status(trials: list[TrialSpec], out: Path, faults: Faults | None = None) -> list[State]:
    """The state of each trial, in the grid's order. faults: gets those of the files in `out` that are no results."""
    results, unreadable = store.scan(out)
    if faults is not None:
        for fault in unreadable:
            faults.add(fault)
    files = {path.stem for path in store.files(out)}
    return [
        _state(trial, results.get(trial.id), results.stands_in(trial.id), trial.id in files, out) for trial in trials
    ]


def _state(trial: TrialSpec, result: TrialResult | None, instead: str, there: bool, out: Path) -> State:
    step = checkpoint_step(out, trial.id)
    begun = "" if step is None else f"checkpoint at step {step}"
    if taken(out, trial.id):
        return State(trial, "running", begun)
    if result is not None:
        average = "" if result.average is None else f"average {result.average:.2f}"
        return State(trial, result.status, "; ".join(filter(None, (result.error or average, instead, begun))))
    if there:
        return State(trial, "unreadable", str(out / f"{trial.id}.json"))
    return State(trial, "interrupted" if begun else "missing", begun)


def checkpoint_step(out: Path, id: str) -> int | None:
    """The update after which a trial's checkpoint was written; None where there is no readable one."""
    try:
        with safe_open(out / id / store.CHECKPOINT, "numpy") as file:
            return json.loads(file.metadata()["pet-bench"])["about"]["step"]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        return None
