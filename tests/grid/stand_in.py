"""A loose plug-in in whose presence a trial takes no time: it stands in for the trial floor's check, run and shared.

Ray's workers load it as they load any plug-in. What a trial does is told by its learning rate (see `run_trial`), and
some of it by files in the results folder: HOLD goes on until `go` is there, without a word while `deaf` is; DIE and
DIE_LAST, after its result is written, are killed while `die` is there; OOM wants more parts than `parts` says, 1
without it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from types import ModuleType

from pet_bench.results import store
from pet_bench.results.provenance import now, provenance
from pet_bench.results.schema import Cost, Parameters, Progress, Run, Score, TrialResult

FAIL, DIE, SILENT, INTERRUPT = 0.5, 0.25, 0.125, 0.0625
HOLD, DIE_LAST, OOM, NAN = 0.03, 0.015, 0.007, 0.0035
STEPS = 100_000


class OutOfMemoryError(RuntimeError):
    """As torch has one."""


class Nothing:
    plugin_kind = "metric"
    name = "stand-in"


def check_designs(specs):
    pass


def check_data(specs, runtime, progress=None, shared=None):
    pass


def check_backbones(specs, shared, fed=None):
    pass


class Shared:
    """Of nothing; the true one imports torch and transformers into every worker."""

    def __init__(self, most=2):
        self.kept = {}


def run_trial(spec, runtime, on_progress=lambda progress: None, shared=None):
    started, rate, out = now(), spec.recipe.lr, runtime.out
    with (out / "attempts.txt").open("a") as file:
        file.write(f"{spec.id} {os.getpid()} threads={runtime.threads} OMP={os.environ.get('OMP_NUM_THREADS')}\n")
    on_progress(Progress(spec.id, "train", 1, 2, loss=1.5, examples_per_second=10.0))
    if rate == FAIL:
        raise RuntimeError("the loss is not a number\nsecond line")
    if rate == DIE and (out / "die").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if rate == INTERRUPT:
        raise KeyboardInterrupt
    if rate == OOM and runtime.accumulation <= parts(out):
        raise OutOfMemoryError("tried to allocate 20.00 GiB")
    if rate == HOLD:
        for step in range(1, STEPS):
            if not (out / "deaf").exists():
                on_progress(Progress(spec.id, "train", step, STEPS, loss=1.5))
            if (out / "go").exists():
                break
            time.sleep(0.01)  # what an update takes
    result = finished(spec, started=started)
    result.run.accumulation = runtime.accumulation
    if rate == NAN:
        lost = {"metrics": {}, "average": None}
        result = result.model_copy(update={"status": "suspect", "error": "the loss is nan", **lost})
    if rate != SILENT:
        store.save(result, out)
    if rate == DIE_LAST and (out / "die").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return result


def parts(out):
    return int((out / "parts").read_text()) if (out / "parts").exists() else 1


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
        run=Run(),
        cost=Cost(
            train_seconds=1.0, eval_seconds=1.0, peak_memory_bytes=1, examples_per_second=1.0, steps=2, adapter_bytes=40
        ),
    )


for name, functions in (
    ("check", (check_designs, check_data, check_backbones)),
    ("run", (run_trial,)),
    ("shared", (Shared,)),
):
    module = sys.modules[f"pet_bench.trial.{name}"] = ModuleType(f"pet_bench.trial.{name}")
    for function in functions:
        setattr(module, function.__name__, function)
