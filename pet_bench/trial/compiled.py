"""The loss of a train step captured as a whole, one graph for each task and shape of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from pet_bench.backbone.interface import Model
from pet_bench.data.batches import Batch, TaskBatches
from pet_bench.pet import Door, Method, build_method
from pet_bench.pet.method import restored
from pet_bench.trial.build import Trial

Loss = Callable[[Model, Batch, str, str], Tensor]  # of model, batch, reduction and precision
TEXT = 8  # texts are as long as a multiple of it, or as the task's longest one
GRAPHS = 64  # further shapes are not captured


class Compiled:
    """A `Loss` that is compiled, forward and backward pass, for batches padded to a few fixed lengths (`fixed`).

    What is smaller than a task's batches, as the last one of an epoch is, is not captured. Where that cannot be done
    at all, a note of the trial says why, and the loss is computed as without. backend: of `torch.compile`.
    """

    def __init__(self, loss: Loss, trial: Trial, backend: str = "inductor"):
        torch.compiler.reset()  # graphs of an earlier trial
        from torch._dynamo import config, exc  # which takes seconds

        self.failure = exc.TorchDynamoException
        config.recompile_limit = max(GRAPHS, config.recompile_limit)
        self.loss, self.trial = loss, trial
        self.shapes: set[tuple[str, int, int, int]] = set()
        self.tasks = {task.name: trial.batches(task, "train") for task in trial.data.tasks}
        # CUDA graphs keep gradients in memory of their own, where those of a second part would take their place
        graphs = trial.device.type == "cuda" and backend == "inductor" and trial.run.accumulation == 1
        how: dict[str, Any] = {"mode": "reduce-overhead"} if graphs else {}
        penalised = any(type(door).penalty is not Door.penalty for door in trial.doors)
        whole = loss if penalised else partial(alone, loss)
        self.captured: Loss = torch.compile(whole, fullgraph=True, dynamic=False, backend=backend, **how)
        self.possible = True
        method = build_method(restored(trial.spec.method), trial.model.anatomy)
        if reason := unfixed(trial.model, method, trial.doors):
            self._without(reason)

    def __call__(self, model: Model, batch: Batch, reduction: str, precision: str) -> Tensor:
        of = self.tasks[batch.task]
        if not self.possible or len(batch) < self._rows(of):
            return self.loss(model, batch, reduction, precision)
        padded = fixed(batch, model.pad, text=int(of.texts.lengths.max()), target=int(of.targets.lengths.max()))
        shape = batch.task, len(batch), cast(Tensor, padded.tensors["text"]).shape[1], len(padded.labels)
        if len(self.shapes | {shape}) > GRAPHS:
            return self.loss(model, batch, reduction, precision)
        self.shapes.add(shape)
        torch.compiler.cudagraph_mark_step_begin()
        try:
            return self.captured(model, padded, reduction, precision)
        except self.failure as error:
            why = getattr(error, "inner_exception", error)  # what the backend raised
            self._without(f"{type(why).__name__}: {next(iter(str(why).splitlines()), '')}")
            return self.loss(model, batch, reduction, precision)

    def _rows(self, of: TaskBatches) -> int:
        """The fewest that a part of a whole batch has."""
        trial = self.trial
        whole = min(of.task.batch_size(trial.spec.recipe.batch_size), len(of))
        return whole // (trial.run.accumulation * trial.ranks.world)

    def _without(self, reason: str) -> None:
        self.possible = False
        note = f"not compiled: {reason}"
        if note not in self.trial.run.notes:
            self.trial.run.notes.append(note)


def alone(loss: Loss, model: Model, batch: Batch, reduction: str, precision: str) -> Tensor:
    """What the model kept of the pass, which no penalty reads, is no output of the graph, hence has no gradient."""
    value = loss(model, batch, reduction, precision)
    model.context.forget()
    return value


def unfixed(model: Model, method: Method, doors: Iterable[Door]) -> str:
    """Why the lengths of batches cannot be fixed; nothing where they can."""
    if not model.aligned or model.family.fed != "features":
        return f"{model.family.name} is no encoder-decoder fed with features"
    if not method.batch_invariant or any(door.counts_padding for door in doors):
        return f"what {method.name} computes depends on how far a batch is padded"
    return ""


def fixed(batch: Batch, pad: int, *, text: int, target: int) -> Batch:
    """The batch in one of a few shapes: nothing that counts is changed.

    text, target: the lengths of the task's longest ones. Texts (B, L) are padded to a multiple of `TEXT`, targets to
    (B, target + 1), so that there is padding, and labels (n,) to a multiple of B, with a position of padding, whose
    loss is 0.
    """
    words, (rows, width) = cast(Tensor, batch.tensors["text"]), batch.targets.shape
    length = min(-(-words.shape[1] // TEXT) * TEXT, max(text, words.shape[1]))
    labels = batch.labels // width * (target + 1) + batch.labels % width
    return replace(
        batch,
        tensors=batch.tensors | {"text": F.pad(words, (0, length - words.shape[1]), value=pad)},
        targets=F.pad(batch.targets, (0, target + 1 - width), value=-100),
        labels=F.pad(labels, (0, -len(labels) % rows), value=target),
    )
