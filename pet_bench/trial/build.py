"""A trial before its first update: model, data and all that it will come to."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from pet_bench.backbone.interface import Model
from pet_bench.backbone.known import find_backbone
from pet_bench.backbone.loading import load
from pet_bench.backbone.reader import Reader
from pet_bench.data.batches import TaskBatches
from pet_bench.data.reading import TrialData
from pet_bench.data.task import Split, Task
from pet_bench.errors import UserError
from pet_bench.pet import Door, attach_frozen, build_method, design_of
from pet_bench.pet.halves import Halves
from pet_bench.pet.large import check_package, recompute_activations
from pet_bench.pet.method import restored
from pet_bench.pet.sharded import layers_of, place
from pet_bench.results.schema import Point, Progress, Run, Selected
from pet_bench.spec import Runtime, TrialSpec
from pet_bench.trial.checkpoint import Checkpoints
from pet_bench.trial.device import check_precision, find_device
from pet_bench.trial.memory import Samples, forget_peak
from pet_bench.trial.ranks import ALONE, Ranks
from pet_bench.trial.shared import Shared
from pet_bench.trial.tower import keep_tower

OnProgress = Callable[[Progress], None]


@dataclass
class Clock:
    """Seconds of training and of evaluation, kept apart."""

    train: float = 0.0
    evaluate: float = 0.0

    @contextmanager
    def timing(self, what: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, what, getattr(self, what) + time.perf_counter() - started)


class Pace(NamedTuple):
    """Of a batch that was answered."""

    examples: int
    seconds: float


@dataclass
class Trial:
    """A trial under way: the model, its data as batches, and what it has come to.

    epoch: those behind it; steps: updates made. losses: by task, of the updates in the running epoch. best, kept: the
    best validation and the trained tensors of that moment, where they are what is to be tested. halves: what updates
    compute with in the place of frozen weights. memory: at every update and batch of evaluation. paces: by task, of the
    batches of its last evaluation.
    """

    spec: TrialSpec
    model: Model
    reader: Reader
    data: TrialData
    device: torch.device
    on_progress: OnProgress
    doors: tuple[Door, ...] = ()
    halves: Halves | None = None
    ranks: Ranks = ALONE
    checkpoints: Checkpoints | None = None
    run: Run = field(default_factory=Run)
    clock: Clock = field(default_factory=Clock)
    epoch: int = 0
    steps: int = 0
    examples: int = 0
    losses: dict[str, list[float]] = field(default_factory=dict)
    curve: list[Point] = field(default_factory=list)
    best: Selected | None = None
    kept: dict[str, torch.Tensor] = field(default_factory=dict)
    tokenised: dict[tuple[str, str], TaskBatches] = field(default_factory=dict)
    memory: Samples = field(default_factory=Samples)
    paces: dict[str, list[Pace]] = field(default_factory=dict)

    def batches(self, task: Task, split: Split) -> TaskBatches:
        """One task's split as batches, tokenised once in a trial."""
        key = task.name, split
        if key not in self.tokenised:
            examples, control = self.data.examples[task.name][split], self.spec.control
            self.tokenised[key] = TaskBatches(task, examples, self.reader, self.data.store, control=control)
        return self.tokenised[key]


def build_trial(
    spec: TrialSpec,
    runtime: Runtime,
    on_progress: OnProgress = lambda progress: None,
    shared: Shared | None = None,
) -> Trial:
    """A trial before its first update, without a checkpoint; raises UserError for unusable data or backbones."""
    shared = shared or Shared()
    gc.collect()  # the model of an earlier trial in this process stands in cycles with its hooks
    device = prepare_device(runtime)
    check_precision(spec.recipe.precision, device)
    check_package(spec.recipe.frozen)
    data = shared.data(spec, runtime, lambda done, total: on_progress(Progress(spec.id, "prepare", done, total)))
    backbone, stock = find_backbone(spec.backbone), shared.stock(spec)
    seed_everything(spec.initial)
    model, tokenizer = load(backbone, spec.visual, stock, spec.method.scope)
    design = design_of(build_method(restored(spec.method), model.anatomy), model.anatomy)
    attach_frozen(model, design, spec.tasks, spec.recipe.frozen, spec.recipe.rates)
    if spec.recipe.init_seed is not None:
        seed_everything(spec.seed)  # what training draws is not the same for all that start alike
    if runtime.gradient_checkpointing:
        recompute_activations(model)
    model.masks_empty = frozenset(task.name for task in data.tasks if task.masks_empty)
    if runtime.shard:  # what is to be divided may not fit
        place(model, device, but=layers_of(model))
    else:
        model.to(device)
    if spec.control == "none" and runtime.resident:
        data.store.to(device)
    trial = Trial(spec, model, model.family.reader(tokenizer), data, device, on_progress, design.doors)
    if spec.recipe.precision == "bfloat16" and spec.recipe.frozen == "float32" and not runtime.shard:
        trial.halves = Halves(model, keeps=any(part.reads_weights for part in design.parts()))
    trial.run.accumulation = runtime.accumulation
    trial.run.gradient_checkpointing, trial.run.compile = runtime.gradient_checkpointing, runtime.compile
    keep_tower(trial, runtime)
    return trial


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def prepare_device(runtime: Runtime) -> torch.device:
    """The device to train on, with the trial's share of threads; raises UserError where it is not there."""
    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    device = find_device(runtime.device)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f'device "{device}" cannot be used: {str(error).splitlines()[0]}') from None
    if device.type == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
        # nothing here reads memory that it did not write
        filling: Any = torch.utils.deterministic
        filling.fill_uninitialized_memory = False
    forget_peak(device)
    return device


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
