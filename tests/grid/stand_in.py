"""A loose plug-in in whose presence a trial takes no time: it stands in for the trial floor's check and run.

Ray's workers load it as they load any plug-in. What a trial does is told by its learning rate (see `run_trial`).
"""

from __future__ import annotations

import os
import signal
import sys
from types import ModuleType

from pet_bench.results import store
from pet_bench.results.provenance import now, provenance
from pet_bench.results.schema import Cost, Parameters, Progress, Score, TrialResult

FAIL, DIE, SILENT, INTERRUPT = 0.5, 0.25, 0.125, 0.0625


class Nothing:
    plugin_kind = "metric"
    name = "stand-in"


def check_designs(specs):
    pass


def check_data(specs, runtime, progress=None):
    pass


def run_trial(spec, runtime, on_progress=lambda progress: None):
    started = now()
    with (runtime.out / "attempts.txt").open("a") as file:
        file.write(f"{spec.id} threads={runtime.threads} OMP={os.environ.get('OMP_NUM_THREADS')}\n")
    on_progress(Progress(spec.id, "train", 1, 2, loss=1.5, examples_per_second=10.0))
    if spec.recipe.lr == FAIL:
        raise RuntimeError("the loss is not a number\nsecond line")
    if spec.recipe.lr == DIE and (runtime.out / "die").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if spec.recipe.lr == INTERRUPT:
        raise KeyboardInterrupt
    result = finished(spec, started=started)
    if spec.recipe.lr != SILENT:
        store.save(result, runtime.out)
    return result


def finished(spec, value=50.0, started="2026-01-01T00:00:00+00:00", data="d0"):
    """A done result with one metric of `value` per task."""
    return TrialResult(
        id=spec.id,
        status="done",
        spec=spec.to_dict(),
        provenance=provenance(started, device="none", threads=1, data=data),
        parameters=Parameters(trainable=10, total=1000, percent=1.0, groups={"visual": 10}),
        metrics={task: {"accuracy": Score(value=value, split="test", n=4, majority=25.0)} for task in spec.tasks},
        average=value,
        cost=Cost(
            train_seconds=1.0, eval_seconds=1.0, peak_memory_bytes=1, examples_per_second=1.0, steps=2, adapter_bytes=40
        ),
    )


for name, functions in (("check", (check_designs, check_data)), ("run", (run_trial,))):
    module = sys.modules[f"pet_bench.trial.{name}"] = ModuleType(f"pet_bench.trial.{name}")
    for function in functions:
        setattr(module, function.__name__, function)
