"""Joint training of a trial on its suite's tasks, from wherever it was interrupted."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext
from dataclasses import asdict
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from pet_bench.backbone.interface import Model
from pet_bench.data.ahead import ahead
from pet_bench.data.batches import Batch, MultiTask, Shuffle
from pet_bench.errors import Stop
from pet_bench.pet import ask_part, autocast, trained_parameters
from pet_bench.pet.rates import factors
from pet_bench.results.schema import Point, Progress, Run, Selected
from pet_bench.spec import Recipe, Runtime
from pet_bench.trial.build import Clock, Trial
from pet_bench.trial.checkpoint import Checkpoints, State, generators, set_generators
from pet_bench.trial.compiled import Compiled
from pet_bench.trial.device import products
from pet_bench.trial.evaluate import evaluate
from pet_bench.trial.loss import per_token_loss, reduce_loss, share_of
from pet_bench.trial.optim import ReferenceAdamW, decayed, linear_schedule
from pet_bench.trial.suspect import Diverged

LOSSES = 12  # points of the training loss on the learning curve, at least: few epochs are divided
UNREAD = 20  # losses that stay on an accelerator, which is waited for when they are read


def train(trial: Trial) -> None:
    """Joint training: each step takes one batch of one task (TASKS.md section 10).

    Goes on from the trial's checkpoint. Wherever `on_progress` is called the trial is whole: of an update, and of an
    epoch's end, all has happened or nothing. Raises `Diverged`.
    """
    training = Training(trial)
    training.begin()
    try:
        while trial.epoch < training.epochs:
            training.run_epoch()
            training.close_epoch()
    except Stop:
        training.save()
        raise
    if trial.checkpoints and trial.checkpoints.wanted:
        training.save()
    training.end()


class Training:
    """What makes a trial's updates: the order of its batches, optimiser and schedule."""

    def __init__(self, trial: Trial):
        spec, recipe = trial.spec, trial.spec.recipe
        self.trial, self.recipe, self.model = trial, recipe, trial.model
        self.joint = MultiTask(
            [trial.batches(task, "train") for task in trial.data.tasks],
            batch_size=recipe.batch_size,
            seed=spec.seed,
            shuffle=Shuffle(seed=spec.seed + 1 if recipe.data_order == "seeded" else 0, bucket=recipe.bucket),
            in_turn=recipe.epochs if recipe.task_order == "sequence" else None,
        )
        self.total = len(self.joint) * recipe.epochs
        if recipe.max_steps is not None:
            self.total = min(self.total, recipe.max_steps)
        self.epochs = -(-self.total // len(self.joint))
        self.part = -(-len(self.joint) // -(-LOSSES // self.epochs))  # updates between points of the training loss
        self.trained = trained_parameters(trial.model)
        self.last: dict[str, float] = {}  # loss and throughput, to be reported
        self.unread: list[tuple[str, Tensor]] = []  # task and loss of the last updates
        self.compiled = Compiled(loss_of, trial) if trial.run.compile else None
        self.reductions = {task.name: task.loss for task in trial.data.tasks}
        self.optimizer = build_optimizer(trial.model, recipe)
        self.schedule = linear_schedule(self.optimizer, warmup=int(recipe.warmup * self.total), total=self.total)

    def begin(self) -> None:
        """Take up the trial's checkpoint, if there is one, or else make the doors ready."""
        trial = self.trial
        state, notes = trial.checkpoints.read() if trial.checkpoints else (None, [])
        if state:
            self.restore(state)
            trial.run.resumed.append(trial.steps)
        else:
            with trial.clock.timing("train"), autocast(self.model):
                for door in trial.doors:
                    batches = (batch.to(trial.device) for batch in self.joint.epoch(0))
                    ask_part(door, "before_training", self.model, batches)
        trial.run.notes += notes
        self.model.train()
        if trial.checkpoints:
            trial.checkpoints.start(trial.steps)

    def run_epoch(self) -> None:
        """What is left of the running epoch's updates."""
        trial, first = self.trial, self.trial.epoch * len(self.joint)
        last = min(first + len(self.joint), self.total)
        batches = ahead(self.joint.epoch(trial.epoch, trial.steps - first), trial.device)
        seconds, examples = trial.clock.train, trial.examples
        with products(self.recipe.precision), trial.halves.used() if trial.halves else nullcontext():
            while trial.steps < last:
                with trial.clock.timing("train"):
                    self.update(next(batches))
                    if len(self.unread) >= (1 if trial.device.type == "cpu" else UNREAD):
                        self.read()
                trial.memory.take(trial.device)
                rate = (trial.examples - examples) / (trial.clock.train - seconds)
                self.last["examples_per_second"] = rate
                due = trial.steps < last and (trial.steps - first) % self.part == 0
                self.report(self.mean_losses() if due else [])

    def update(self, batch: Batch) -> None:
        """One update on one batch, whose parts' gradients add up to its own; its loss is yet to be read."""
        trial, model, reduction = self.trial, self.model, self.reductions[batch.task]
        trial.ranks.seed(trial.spec.seed, trial.steps)
        value = torch.zeros((), dtype=torch.float64, device=trial.device)
        for part, counts in trial.ranks.parts(batch, trial.run.accumulation):
            loss = (self.compiled or loss_of)(model, part.to(trial.device), reduction, self.recipe.precision)
            penalty = sum(ask_part(door, "penalty", model, returns=Tensor | float) for door in trial.doors)
            loss = loss * (share_of(part, batch, reduction) * counts) + penalty * (len(part) / len(batch) * counts)
            value += loss.detach()
            loss.backward()
        trial.ranks.add_up([*self.trained.values()], value)
        torch.nn.utils.clip_grad_norm_(list(self.trained.values()), self.recipe.clip)
        self.optimizer.step()
        trial.steps += 1
        for door in trial.doors:
            ask_part(door, "after_step", model, trial.steps, self.total)
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.unread.append((batch.task, value))
        trial.examples += len(batch)

    def read(self) -> None:
        """Take up the losses of the last updates; raises `Diverged` where one is not finite."""
        trial, losses, self.unread = self.trial, self.unread, []
        for step, (task, loss) in enumerate(losses, start=trial.steps - len(losses)):
            if not math.isfinite(value := loss.item()):
                trial.steps = step
                raise Diverged(f"the loss of task {task} is {value} at step {step} (lr {self.recipe.lr})")
            trial.losses.setdefault(task, []).append(value)
            self.last["loss"] = value

    def close_epoch(self) -> None:
        """The epoch's mean losses and, where one is due, the validation: onto the learning curve, all at once."""
        trial, recipe, score = self.trial, self.recipe, None
        where, points = self.where(), self.mean_losses()
        if recipe.valid_every and ((trial.epoch + 1) % recipe.valid_every == 0 or trial.steps == self.total):
            score, measured = validate_all(trial, where)
            score = trial.ranks.agreed(score)
            points += measured
            if recipe.selection == "best" and (trial.best is None or score > trial.best.score):
                trial.best = Selected(**where, score=score)
                trial.kept = {name: tensor.detach().cpu().clone() for name, tensor in self.trained.items()}
        trial.epoch += 1
        self.report(points, score)

    def where(self) -> dict[str, Any]:
        return {"step": self.trial.steps, "epoch": self.trial.steps / len(self.joint)}

    def mean_losses(self) -> list[Point]:
        """The points of the mean losses since the last ones."""
        self.read()
        return [
            Point(**self.where(), split="train", task=task, loss=sum(values) / len(values))
            for task, values in self.trial.losses.items()
        ]

    def report(self, points: list[Point], score: float | None = None) -> None:
        """Put points on the learning curve and tell how far the trial is, then write a checkpoint if one is due."""
        trial = self.trial
        if points:  # an epoch may have been stopped in its validation: until here nothing of its end has happened
            trial.curve += points
            trial.losses = {}
        at = {**self.where(), **self.last}
        told = tuple(point.model_dump() for point in points)
        trial.on_progress(
            Progress(trial.spec.id, "train", total_steps=self.total, score=score, points=told, **at)
        )  # fmt: skip
        if trial.checkpoints and trial.checkpoints.due(trial.steps):
            self.save()

    def end(self) -> None:
        """Leave the model as it is to be tested."""
        for parameter in self.trained.values():
            parameter.requires_grad_(True)  # a door may have frozen some on the way; what they learnt is saved too
        with torch.no_grad():
            for name, tensor in self.trial.kept.items():
                self.trained[name].copy_(tensor)

    # checkpoints ----------------------------------------------------------------------------------------------------

    def save(self) -> None:
        self.read()
        if self.trial.checkpoints and not self.trial.ranks.rank:
            self.trial.checkpoints.write(self.trial.steps, self.state())

    def state(self) -> State:
        """All that the trial, built anew, needs to go on as if it had not been interrupted."""
        trial, moments = self.trial, self.optimizer.state
        return {
            "epoch": trial.epoch,
            "steps": trial.steps,
            "examples": trial.examples,
            "losses": trial.losses,
            "curve": [point.model_dump() for point in trial.curve],
            "best": trial.best and trial.best.model_dump(),
            "kept": trial.kept,
            "clock": asdict(trial.clock),
            "run": trial.run.model_dump(),
            "trained": self.trained,
            "optimizer": {name: moments[p] for name, p in self.trained.items() if p in moments},
            "schedule": self.schedule.state_dict(),
            "doors": {door.kind: ask_part(door, "state", self.model, returns=dict[str, Any]) for door in trial.doors},
            "generators": generators(trial.device),
        }

    def restore(self, state: State) -> None:
        trial, now = self.trial, self.trial.run
        trial.epoch, trial.steps, trial.examples = state["epoch"], state["steps"], state["examples"]
        trial.losses, trial.kept = state["losses"], state["kept"]
        trial.curve = [Point(**point) for point in state["curve"]]
        trial.best = Selected(**state["best"]) if state["best"] else None
        trial.clock, trial.run = Clock(**state["clock"]), Run(**state["run"])
        trial.run.gradient_checkpointing, trial.run.compile = now.gradient_checkpointing, now.compile
        with torch.no_grad():
            for name, tensor in state["trained"].items():
                self.trained[name].copy_(tensor)
        for name, moments in state["optimizer"].items():
            on_device = {key: m.to(trial.device) if isinstance(m, torch.Tensor) else m for key, m in moments.items()}
            self.optimizer.state[self.trained[name]] = on_device
        self.schedule.load_state_dict(state["schedule"])
        for group, rate in zip(self.optimizer.param_groups, self.schedule.get_last_lr(), strict=True):
            group["lr"] = rate
        for door in trial.doors:
            ask_part(door, "restore", self.model, state["doors"][door.kind])
        set_generators(state["generators"], trial.device)


def checkpoints_of(trial: Trial, runtime: Runtime) -> Checkpoints:
    """Of this trial in its folder, on the same data, for the same parts of batches and the same trained tensors."""
    spec, data = trial.spec, trial.data.fingerprint
    of = {"trial": spec.id, "data": data, "accumulation": runtime.accumulation, "tensors": shapes(trial.model)}
    folder = runtime.out / spec.id
    return Checkpoints(folder, of, seconds=runtime.checkpoint_seconds, steps=runtime.checkpoint_steps)


def shapes(model: Model) -> str:
    """Twelve hex digits of the names and shapes of what trains."""
    listing = [(name, *parameter.shape) for name, parameter in trained_parameters(model).items()]
    return sha256(json.dumps(listing).encode()).hexdigest()[:12]


def loss_of(model: Model, batch: Batch, reduction: str, precision: str) -> torch.Tensor:
    """The scalar to back-propagate for one batch."""
    with autocast(model, precision):
        logits = model.logits_at(batch.labels, batch.inputs, batch.targets)
    losses = per_token_loss(logits, batch.targets, batch.labels)
    return reduce_loss(losses, batch.targets, reduction, batch.scores)


def build_optimizer(model: Model, recipe: Recipe) -> ReferenceAdamW:
    """The published optimiser over the trained parameters, with and without weight decay, at their own rates."""
    norms = {id(p) for norm in model.modules() if isinstance(norm, model.family.norm) for p in norm.parameters()}
    spared = set() if recipe.decay_norms else norms
    trained, held = trained_parameters(model), {pattern: r for pattern, r in recipe.rates.items() if r}
    groups: dict[tuple[float, bool], list[torch.nn.Parameter]] = {(1.0, True): [], (1.0, False): []}
    for name, factor in factors(model, held).items():
        decays = decayed(name) and id(trained[name]) not in spared
        groups.setdefault((factor, decays), []).append(trained[name])
    params = [
        {"params": group, "weight_decay": recipe.weight_decay if decays else 0.0, "lr": recipe.lr * factor}
        for (factor, decays), group in groups.items()
    ]
    return ReferenceAdamW(params, lr=recipe.lr, betas=(recipe.beta1, recipe.beta2), eps=recipe.eps)


def validate_all(trial: Trial, where: dict[str, Any]) -> tuple[float, list[Point]]:
    """The mean primary score of all tasks that have a validation split, larger being better, and their points.

    where: step and epoch of the points.
    """
    primary, points = [], []
    for task in trial.data.tasks:
        if "valid" in trial.data.examples[task.name]:
            _, scores = evaluate(trial, task, "valid")
            if scores is None:
                continue
            primary.append(scores.primary if task.higher_is_better else -scores.primary)
            points.append(Point(**where, split="valid", task=task.name, metrics=scores.values))
    return sum(primary) / max(1, len(primary)), points
