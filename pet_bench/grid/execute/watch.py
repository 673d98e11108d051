"""Tune's events as ours, and the end of its run when ours ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune

from pet_bench.grid.execute.asha import Asha
from pet_bench.grid.execute.events import Ended, Event, Job, Retried, Started
from pet_bench.grid.execute.process import INSTEAD, last_words, start_seconds
from pet_bench.grid.execute.stop import StopFlag
from pet_bench.results.schema import Progress


class Watch(tune.Callback):
    """Hears of Tune's trials and tells what that means. leaving: those that ran when the stop flag was seen."""

    def __init__(self, scheduler: Asha | None, emit: Callable[[Event], None]):
        self.scheduler, self.emit = scheduler, emit
        self.running: set[str] = set()
        self.leaving: set[str] | None = None
        self.said: dict[str, Ended] = {}
        self.idle_since = time.monotonic()

    def __reduce__(self) -> tuple[Any, ...]:  # Tune saves its callbacks; nobody reads that
        return tune.Callback, ()

    def on_trial_start(self, iteration, trials, trial, **info):
        self.running.add(_id(trial))
        self.emit(Started(_id(trial)))

    def on_trial_result(self, iteration, trials, trial, result, **info):
        if "ended" in result:
            self.said[_id(trial)] = Ended(**result["ended"])
        elif "progress" in result:
            self.emit(Progress(**result["progress"]))

    def on_trial_recover(self, iteration, trials, trial, **info):
        self._over(_id(trial))
        self.emit(Retried(_id(trial), _reason(trial)))

    def on_trial_complete(self, iteration, trials, trial, **info):
        id = _id(trial)
        if id in self.running:  # others never began
            self._end(self.said.get(id) or self._unsaid(id))

    def on_trial_error(self, iteration, trials, trial, **info):
        self._end(self.said.get(_id(trial)) or Ended(_id(trial), "died", _reason(trial)))

    def _unsaid(self, id: str) -> Ended:
        """What became of a trial whose worker did not say it."""
        if self.leaving is not None:
            return Ended(id, "stopped")
        early = self.scheduler is not None and self.scheduler.stopped(id)
        return Ended(id, "early") if early else Ended(id, "died", "the worker left no result")

    def _end(self, ended: Ended) -> None:
        self._over(ended.id)
        self.emit(ended)

    def _over(self, id: str) -> None:
        self.running.discard(id)
        self.idle_since = time.monotonic()

    def close(self) -> None:
        """Tune says nothing of the trials that it ends with the run."""
        for id in [*self.running]:
            self._end(self.said.get(id, Ended(id, "stopped")))


class Halt(tune.Stopper):
    """Ends the run: at once where results cannot be written or no worker starts, or when those running at the stop flag
    are done. own: the folder of a Ray whose workers have no others to wait for."""

    def __init__(self, watch: Watch, stop: StopFlag, own: Path | None = None):
        self.watch, self.stop, self.own, self.fault = watch, stop, own, ""

    def __call__(self, trial_id, result):
        return False

    def stop_all(self) -> bool:
        watch = self.watch
        if self.own and not watch.running and time.monotonic() - watch.idle_since > start_seconds():
            self.fault = none_started(self.own)
        if self.fault or any(ended.how == "storage" for ended in watch.said.values()):
            return True
        if watch.leaving is None and self.stop.is_up:
            watch.leaving = set(watch.running)
        return watch.leaving is not None and not watch.leaving & watch.running


def none_started(folder: Path) -> str:
    """What is said of the Ray in this folder, whose workers do not start."""
    words = last_words(folder)
    within = f"no worker has started within {start_seconds():g} s (PET_BENCH_START_SECONDS), {INSTEAD}"
    return f"{within}: {words}" if words else within


def _id(trial: Any) -> str:
    return Job.from_dict(trial.config["job"]).id


def _reason(trial: Any) -> str:
    """Why a worker is gone, in one line: Tune notes each failure at the end of a file of the trial's."""
    path = Path(trial.error_file or "")
    text = path.read_text().rpartition("Failure # ")[2].partition("\n")[2].strip() if path.is_file() else ""
    if "running low on memory" in text or "OutOfMemoryError" in text:
        return "out of memory: the node ran low and Ray ended the worker"
    if "node has died" in text or "node was terminated" in text:
        return "its node is gone"
    if not text or text.startswith(("The actor", "The worker")):
        return "the worker process died: killed, perhaps for want of memory"
    return text.splitlines()[-1]
