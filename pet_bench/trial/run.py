"""One trial: build, train on the suite's tasks jointly, evaluate, record."""

from __future__ import annotations

import gc
import json
import random
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from pet_bench.backbone.known import find_backbone
from pet_bench.backbone.load import load
from pet_bench.backbone.model import VisionLanguageModel
from pet_bench.data.batches import Batch, MultiTask, Shuffle, TaskBatches
from pet_bench.data.task import Task
from pet_bench.errors import UserError
from pet_bench.metrics.scores import Scores, breakdowns
from pet_bench.pet import Door, attach, build_method, count, save_trained, trained_parameters
from pet_bench.results import store
from pet_bench.results.provenance import now, provenance
from pet_bench.results.schema import Cost, Parameters, Part, Point, Progress, Score, Selected, TrialResult
from pet_bench.spec import Recipe, Runtime, TrialSpec
from pet_bench.trial.data import TrialData, read_data
from pet_bench.trial.evaluate import predict
from pet_bench.trial.loss import per_token_loss, reduce_loss
from pet_bench.trial.optim import ReferenceAdamW, decayed, linear_schedule

OnProgress = Callable[[Progress], None]
PROCESS = Path("/proc/self")


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


@dataclass
class Trial:
    """A trial under way: the model, its data as batches, and what has been measured so far."""

    spec: TrialSpec
    model: VisionLanguageModel
    tokenizer: object
    data: TrialData
    device: torch.device
    on_progress: OnProgress
    doors: tuple[Door, ...] = ()
    clock: Clock = field(default_factory=Clock)
    curve: list[Point] = field(default_factory=list)
    best: Selected | None = None
    steps: int = 0
    examples: int = 0
    tokenised: dict[tuple[str, str], TaskBatches] = field(default_factory=dict)

    def batches(self, task: Task, split: str) -> TaskBatches:
        """One task's split as batches, tokenised once in a trial."""
        key = task.name, split
        if key not in self.tokenised:
            examples, control = self.data.examples[task.name][split], self.spec.control
            self.tokenised[key] = TaskBatches(task, examples, self.tokenizer, self.data.store, control=control)
        return self.tokenised[key]


def run_trial(spec: TrialSpec, runtime: Runtime, on_progress: OnProgress = lambda progress: None) -> TrialResult:
    """Train and evaluate one trial and write its result to `<out>/<id>.json`, last of all.

    Beside it, in `<out>/<id>/`, are the trained tensors (`adapter.safetensors`) and the test predictions with their
    scores (`predictions.<task>.jsonl`). Equal specs give equal numbers on one machine.
    Raises UserError for unusable data or backbones, before training, and for a loss that is not finite.
    """
    started = now()
    on_progress(Progress(spec.id, "prepare"))
    gc.collect()  # the model of an earlier trial in this process stands in cycles with its hooks
    device = prepare_device(runtime)
    data = read_data(spec, runtime, lambda done, total: on_progress(Progress(spec.id, "prepare", done, total)))
    seed_everything(spec.seed)
    backbone = find_backbone(spec.backbone)
    model, tokenizer = load(backbone, spec.visual)
    method = build_method(spec.method, backbone.shape)
    design = method.design(backbone.shape)
    attach(model, design, spec.tasks)
    model.masks_empty = frozenset(task.name for task in data.tasks if task.masks_empty)
    model.to(device)
    if spec.control == "none":
        data.store.to(device)
    trial = Trial(spec, model, tokenizer, data, device, on_progress, design.doors)

    train(trial)
    folder = runtime.out / spec.id
    folder.mkdir(parents=True, exist_ok=True)
    about = json.dumps({"trial": spec.id, "backbone": spec.backbone, "method": str(spec.method)})
    adapter_bytes = save_trained(model, folder / "adapter.safetensors", {"pet-bench": about})
    for door in design.doors:
        door.export(model, folder)
    scores = {
        task.name: evaluate(trial, task, "test", keep=folder / f"predictions.{task.name}.jsonl") for task in data.tasks
    }

    metrics = {}
    for task in data.tasks:
        parts = data.examples[task.name]
        majority = task.majority(parts["train"], parts["test"])
        options = {key: str(value) for key, value in task.metric_options.items()}
        metrics[task.name] = {
            name: Score(
                value=value, split=task.test, n=len(parts["test"]), majority=None if i else majority, options=options
            )
            for i, (name, value) in enumerate(scores[task.name].values.items())
        }
    result = TrialResult(
        id=spec.id,
        status="done",
        spec=spec.to_dict(),
        provenance=provenance(
            started, device=device_name(device), threads=torch.get_num_threads(), data=data.fingerprint
        ),
        parameters=Parameters(**count(model)),
        metrics=metrics,
        breakdowns={
            task.name: {
                group: {value: Part(value=score, n=n) for value, (score, n) in parts.items()}
                for group, parts in breakdowns(scores[task.name], data.examples[task.name]["test"]).items()
            }
            for task in data.tasks
        },
        average=sum(found.primary for found in scores.values()) / len(scores),
        behaviour=method.behaviour(backbone.shape),
        cost=Cost(
            train_seconds=trial.clock.train,
            eval_seconds=trial.clock.evaluate,
            peak_memory_bytes=peak_memory(device) - data.store.bytes_on_device,
            examples_per_second=trial.examples / max(trial.clock.train, 1e-9),
            steps=trial.steps,
            adapter_bytes=adapter_bytes,
        ),
        curve=trial.curve,
        selected=trial.best,
        predictions={task.name: f"{spec.id}/predictions.{task.name}.jsonl" for task in data.tasks},
    )
    store.save(result, runtime.out)
    return result


def train(trial: Trial) -> None:
    """Joint training: each step takes one batch of one task (TASKS.md section 10)."""
    spec, recipe, model = trial.spec, trial.spec.recipe, trial.model
    joint = MultiTask(
        [trial.batches(task, "train") for task in trial.data.tasks],
        batch_size=recipe.batch_size,
        seed=spec.seed,
        shuffle=Shuffle(seed=spec.seed + 1 if recipe.data_order == "seeded" else 0, bucket=recipe.bucket),
    )
    total = len(joint) * recipe.epochs
    if recipe.max_steps is not None:
        total = min(total, recipe.max_steps)
    optimizer = build_optimizer(model, recipe)
    schedule = linear_schedule(optimizer, warmup=int(recipe.warmup * total), total=total)
    losses = {task.name: task.loss for task in trial.data.tasks}
    trained = list(trained_parameters(model).values())
    kept: dict[str, torch.Tensor] = {}  # what is to be tested, where that is not the last update's

    with trial.clock.timing("train"):
        for door in trial.doors:
            door.before_training(model, (batch.to(trial.device) for batch in joint.epoch(0)))
    model.train()
    for epoch in range(-(-total // len(joint))):
        seen: dict[str, list[float]] = defaultdict(list)
        began, before = time.perf_counter(), trial.examples
        with trial.clock.timing("train"):
            for batch in joint.epoch(epoch):
                if trial.steps == total:
                    break
                loss = loss_of(model, batch.to(trial.device), losses[batch.task], recipe.precision)
                loss = loss + sum(door.penalty(model) for door in trial.doors)
                value = loss.item()
                if not np.isfinite(value):
                    raise UserError(f"the loss of task {batch.task} is {value} at step {trial.steps} (lr {recipe.lr})")
                loss.backward()
                torch.nn.utils.clip_grad_norm_(trained, recipe.clip)
                optimizer.step()
                trial.steps += 1
                for door in trial.doors:
                    door.after_step(model, trial.steps, total)
                schedule.step()
                optimizer.zero_grad(set_to_none=True)
                seen[batch.task].append(value)
                trial.examples += len(batch)
                rate = (trial.examples - before) / (time.perf_counter() - began)
                trial.on_progress(Progress(spec.id, "train", trial.steps, total, value, rate))
        done = trial.steps / len(joint)
        for task, values in seen.items():
            mean = sum(values) / len(values)
            trial.curve.append(Point(step=trial.steps, epoch=done, split="train", task=task, loss=mean))
        if recipe.valid_every and ((epoch + 1) % recipe.valid_every == 0 or trial.steps == total):
            score = validate_all(trial, done)
            if recipe.selection == "best" and (trial.best is None or score > trial.best.score):
                trial.best = Selected(step=trial.steps, epoch=done, score=score)
                kept = {name: tensor.detach().cpu().clone() for name, tensor in trained_parameters(model).items()}
    with torch.no_grad():
        for name, tensor in kept.items():
            model.get_parameter(name).copy_(tensor)


def loss_of(model: VisionLanguageModel, batch: Batch, reduction: str, precision: str) -> torch.Tensor:
    """The scalar to back-propagate for one batch."""
    with torch.autocast(batch.input_ids.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        logits = model(batch.input_ids, batch.visual, batch.target_ids, task=batch.task)
    return reduce_loss(per_token_loss(logits, batch.target_ids), batch.target_ids, reduction, batch.scores)


def build_optimizer(model: VisionLanguageModel, recipe: Recipe) -> ReferenceAdamW:
    """The published optimiser over the trained parameters, with and without weight decay."""
    norms = {id(p) for norm in model.modules() if isinstance(norm, model.family.norm) for p in norm.parameters()}
    spared = set() if recipe.decay_norms else norms
    groups: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
    for name, parameter in trained_parameters(model).items():
        groups[decayed(name) and id(parameter) not in spared].append(parameter)
    groups = [
        {"params": groups[decay], "weight_decay": recipe.weight_decay if decay else 0.0} for decay in (True, False)
    ]
    return ReferenceAdamW(groups, lr=recipe.lr, betas=(recipe.beta1, recipe.beta2), eps=recipe.eps)


def validate_all(trial: Trial, epoch: float) -> float:
    """Scores of every task that has a validation split, onto the learning curve; returns the primary ones' mean."""
    primary = []
    for task in trial.data.tasks:
        if "valid" in trial.data.examples[task.name]:
            scores = evaluate(trial, task, "valid")
            primary.append(scores.primary if task.higher_is_better else -scores.primary)
            trial.curve.append(
                Point(step=trial.steps, epoch=epoch, split="valid", task=task.name, metrics=scores.values)
            )
    return sum(primary) / max(1, len(primary))


def evaluate(trial: Trial, task: Task, split: str, keep: Path | None = None) -> Scores:
    """Scores of one task on one split. keep: a file that gets the predictions before they are scored."""

    def report(done: int, total: int) -> None:
        trial.on_progress(Progress(trial.spec.id, "evaluate", done, total))

    with trial.clock.timing("evaluate"):
        batches = trial.batches(task, split)
        recipe = trial.spec.recipe
        plain = recipe.generation == "plain"
        predictions = predict(trial.model, trial.tokenizer, batches, recipe.batch_size, report, plain=plain)
        if keep:
            store.write_text(keep, _lines(predictions, {}))
        scores = task.score(predictions, batches.examples)
        if keep:
            store.write_text(keep, _lines(predictions, scores.per_example))
        return scores


def _lines(predictions: dict[str, str], scores: dict[str, float]) -> str:
    """One JSON object an example: its id, the prediction and, once known, the score of the primary metric."""
    rows = ({"id": key, "prediction": text, "score": scores.get(key)} for key, text in predictions.items())
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def prepare_device(runtime: Runtime) -> torch.device:
    """The device to train on, with the trial's share of threads; raises UserError where it is not there."""
    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    name = runtime.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f'device "{name}" cannot be used: {str(error).splitlines()[0]}') from None
    if device.type == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
    forget_peak(device)
    return device


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def peak_memory(device: torch.device) -> int:
    """Bytes since `forget_peak`: of device memory, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError):
        status = dict(line.split(":", 1) for line in PROCESS.joinpath("status").read_text().splitlines())
        return int(status["VmHWM"].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak(device: torch.device) -> None:
    """Start counting anew: a worker process may have run another trial before. Not possible on a CPU but Linux's."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            PROCESS.joinpath("clear_refs").write_text("5")
