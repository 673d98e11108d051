"""What a trial has to do, and what that costs on this machine, by doing a little of it."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, count, islice

import numpy as np
import torch

from pet_bench.data.batches import Batch, TaskBatches
from pet_bench.data.task import Example, Split, Task
from pet_bench.spec import Runtime, TrialSpec
from pet_bench.trial.build import Trial, build_trial, prepare_device
from pet_bench.trial.checkpoint import generators, set_generators
from pet_bench.trial.evaluate import predict
from pet_bench.trial.memory import peak_memory
from pet_bench.trial.shared import Shared
from pet_bench.trial.tower import keep_tower
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

    The batch predicted is of texts of middling length. Nothing is written but what the cache holds of images, and this
    process's generators and threads are as before. Raises UserError for unusable data or backbones.
    """
    with _undisturbed(runtime):
        trial = build_trial(spec, replace(runtime, keep_tower=False, compile=False), shared=shared)
        training = Training(trial)
        updates = {task: _batches(training, task, steps) for task in trial.data.tasks}
        tests = {task: _middling(trial, task) for task in trial.data.tasks}
        tower = _tower(trial, runtime, updates.values(), tests.values())
        training.begin()
        before = trial.clock.train + tower
        update = {task.name: _update(training, batches) for task, batches in updates.items()}
        evaluation = {task.name: _evaluation(trial, task, examples) for task, examples in tests.items()}
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


def _tower(
    trial: Trial, runtime: Runtime, updates: Iterable[Sequence[Batch]], tests: Iterable[Sequence[Example]]
) -> float:
    """Seconds that a frozen tower, of which all is to be kept, takes for the trial; what these see is kept then."""
    rows = [batch.tensors["pictures"] for batches in updates for batch in batches if "pictures" in batch.tensors]
    wanted = [*(trial.data.store.rows(examples) for examples in tests), *map(np.asarray, rows)]
    began = _now(trial.device)
    looked, left = keep_tower(trial, runtime, (int(row) for some in wanted for row in some.flat))
    return (_now(trial.device) - began) / looked * left if looked else 0.0


def _batches(training: Training, task: Task, steps: int) -> list[Batch]:
    """Of so many updates, and of one before them."""
    trial, recipe = training.trial, training.recipe
    batches = trial.batches(task, "train")
    epochs = (
        batches.train_batches(epoch, recipe.batch_size, trial.spec.seed, shuffle=training.joint.shuffle)
        for epoch in count()
    )
    return [*islice(chain.from_iterable(epochs), steps + 1)]


def _update(training: Training, batches: Sequence[Batch]) -> float:
    trial, (first, *others) = training.trial, batches
    training.update(first)  # the first of a kind takes longer
    began = _now(trial.device)
    for batch in others:
        trial.steps = 0  # what a door does at a later step is not for now
        training.update(batch)
    return (_now(trial.device) - began) / len(others)


def _middling(trial: Trial, task: Task) -> list[Example]:
    """A batch of the test split."""
    recipe, split = trial.spec.recipe, trial.data.examples[task.name]["test"]
    size = -(-recipe.batch_size // trial.run.accumulation)
    middle = max(0, len(split) - size) // 2
    return sorted(split, key=lambda example: len(example.text))[middle : middle + size]


def _evaluation(trial: Trial, task: Task, examples: Sequence[Example]) -> float:
    for part in examples[:1], examples:  # the first of a kind takes longer
        batches = TaskBatches(task, part, trial.reader, trial.data.store, control=trial.spec.control)
        began = _now(trial.device)
        predict(trial.model, trial.reader, batches, len(part), trial.spec.recipe)
        seconds = _now(trial.device) - began
    return seconds


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
