"""One job in a Ray worker: everything arrives as names and plain data, plug-ins are loaded here."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

from pet_bench.errors import UserError
from pet_bench.grid.execute.attempt import attempt
from pet_bench.grid.execute.events import REPORT_SECONDS, Ended, Job
from pet_bench.grid.execute.stop import StopFlag
from pet_bench.registry import load_plugin
from pet_bench.results.schema import Progress
from pet_bench.spec import Runtime, validate

if TYPE_CHECKING:
    from pet_bench.trial.shared import Shared

kept: list[Shared] = []  # by this process between trials, where it runs several


def trainable(refs: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """What Tune runs, with references to what is read once a node: a worker fetches what its trial needs."""

    def trial(config: dict[str, Any]) -> None:
        work(config, refs)

    return trial


def work(config: dict[str, Any], refs: dict[str, Any]) -> None:
    """Run the job of a configuration to its end, and report that."""
    if config["folder"]:  # relative paths, as of a backbone, mean what they mean in the command
        os.chdir(config["folder"])
    runtime, job = validate(Runtime, config["runtime"], "runtime"), Job.from_dict(config["job"])
    ended = _unable(job, runtime)
    if ended is None:
        stop = StopFlag(Path(config["stop"]))
        ended = attempt(job, runtime, _Report(), stop, lambda: _shared(refs))
    tune.report({"ended": asdict(ended)})


def _unable(job: Job, runtime: Runtime) -> Ended | None:
    """How the job ends where this node cannot run it: again would be the same."""
    try:
        for plugin in runtime.plugins:
            load_plugin(plugin)
    except UserError as error:
        return Ended(job.id, "died", f"node {platform.node()}: {error}")
    if not runtime.out.is_dir():  # a node that came late
        return Ended(job.id, "storage", f"node {platform.node()} does not see it: it must be shared")
    return None


class _Report:
    """A trial's progress to the scheduler, now and then; a score at once, for a search decides by it."""

    def __init__(self) -> None:
        self.last = 0.0

    def __call__(self, progress: Progress) -> None:
        if progress.score is not None:
            tune.report({"progress": asdict(progress), "epoch": progress.epoch, "score": progress.score})
        elif time.monotonic() - self.last >= REPORT_SECONDS:
            self.last = time.monotonic()
            tune.report({"progress": asdict(progress)})


def _shared(refs: dict[str, Any]) -> Shared:
    from pet_bench.trial.shared import Shared

    if not kept:
        kept.append(Shared())
    kept[0].get = lambda key: ray.get(refs[key])
    return kept[0]
