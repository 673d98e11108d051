"""What a trial has to do, and what that costs on this machine, by doing a little of it."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count, islice

import torch

from pet_bench.data.batches import TaskBatches
from pet_bench.data.task import Split, Task
from pet_bench.spec import Runtime, TrialSpec
from pet_bench.trial.build import Trial, build_trial, prepare_device
from pet_bench.trial.checkpoint import generators, set_generators
from pet_bench.trial.evaluate import predict
from pet_bench.trial.memory import peak_memory
from pet_bench.trial.shared import Shared
from pet_bench.trial.train import Training

Sizes = Mapping[str, Mapping[Split, int]]  # task → split → examples


@dataclass(frozen=True)
class Workload:
    """A trial's work by task: updates in an epoch, and evaluation batches of all validations and of the test; and the
    number of updates in all."""

    epoch: dict[str, int]
    evaluation: dict[str, int]
    steps: int


def workload(spec: TrialSpec, tasks: Sequence[Task], sizes: Sizes, accumulation: int = 1) -> Workload:
    """Exactly what `run_trial` will do."""
    recipe = spec.recipe
    epoch = {task.name: -(-sizes[task.name]["train"] // task.batch_size(recipe.batch_size)) for task in tasks}
    a_whole, at_once = sum(epoch.values()), -(-recipe.batch_size // accumulation)
    steps = min(a_whole * recipe.epochs, recipe.max_steps or a_whole * recipe.epochs)
    epochs = -(-steps // a_whole)
    validations = -(-epochs // recipe.valid_every) if recipe.valid_every else 0
    evaluation = {
        name: validations * -(-parts.get("valid", 0) // at_once) + -(-parts["test"] // at_once)
        for name, parts in sizes.items()
    }
    return Workload(epoch, evaluation, steps)


@dataclass(frozen=True)
class Measured:
    """Seconds of an update and of an evaluation batch by task, and those before the first update that doors take;
    peak_memory_bytes: of the device, features included, or of this process."""

    update: dict[str, float]
    evaluation: dict[str, float]
    before: float
    peak_memory_bytes: int

    def seconds(self, work: Workload) -> float:
        """Of the whole trial, without reading its data."""
        epoch = sum(self.update[task] * updates for task, updates in work.epoch.items())
        evaluation = sum(self.evaluation[task] * batches for task, batches in work.evaluation.items())
        return self.before + epoch * work.steps / sum(work.epoch.values()) + evaluation


def measure(spec: TrialSpec, runtime: Runtime, steps: int = 3, shared: Shared | None = None) -> Measured:
    """Build the trial, make a few updates on each task and predict one batch of it, and forget it all.

    The batch predicted is of texts of middling length. Nothing is written but packed features, and this process's
    generators and threads are as before. Raises UserError for unusable data or backbones.
    """
    with _undisturbed(runtime):
        trial = build_trial(spec, runtime, shared=shared)
        training = Training(trial)
        training.begin()
        before = trial.clock.train
        update = {task.name: _update(training, task, steps) for task in trial.data.tasks}
        evaluation = {task.name: _evaluation(trial, task) for task in trial.data.tasks}
        return Measured(update, evaluation, before, peak_memory(trial.device))


@contextmanager
def _undisturbed(runtime: Runtime) -> Iterator[None]:
    threads = torch.get_num_threads()
    device = prepare_device(runtime)
    before = generators(device)
    try:
        yield
    finally:
        set_generators(before, device)
        torch.set_num_threads(threads)
        gc.collect()  # models stand in cycles with their hooks
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _update(training: Training, task: Task, steps: int) -> float:
    trial, recipe = training.trial, training.recipe
    batches = trial.batches(task, "train")
    epochs = (
        batches.train_batches(epoch, recipe.batch_size, trial.spec.seed, shuffle=training.joint.shuffle)
        for epoch in count()
    )
    stream = islice(chain.from_iterable(epochs), steps + 1)
    training.update(next(stream))  # the first of a kind takes longer
    began = _now(trial.device)
    for batch in stream:
        trial.steps = 0  # what a door does at a later step is not for now
        training.update(batch)
    return (_now(trial.device) - began) / steps


def _evaluation(trial: Trial, task: Task) -> float:
    recipe, split = trial.spec.recipe, trial.data.examples[task.name]["test"]
    size = -(-recipe.batch_size // trial.run.accumulation)
    middle = max(0, len(split) - size) // 2
    examples = sorted(split, key=lambda example: len(example.text))[middle : middle + size]
    for part in examples[:1], examples:  # the first of a kind takes longer
        batches = TaskBatches(task, part, trial.reader, trial.data.store, control=trial.spec.control)
        began = _now(trial.device)
        predict(trial.model, trial.reader, batches, size, plain=recipe.generation == "plain")
        seconds = _now(trial.device) - began
    return seconds


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
