"""What a trained model takes to answer an example: time and operations, as it was trained and merged."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from pet_bench.backbone.interface import Model
from pet_bench.data.batches import Batch
from pet_bench.data.task import Task
from pet_bench.errors import UserError
from pet_bench.pet import merge
from pet_bench.results.schema import Inference
from pet_bench.spec import Precision
from pet_bench.trial.build import Pace, Trial
from pet_bench.trial.evaluate import answers, evaluating

FEW = 3  # batches of a task that the merged model is timed on
COUNTED = 32  # examples, at most, of the batch whose operations are counted: all of its logits are made


def inference(trial: Trial) -> dict[str, Inference]:
    """By task, after it was tested. What was merged for that is as it was, to the last bit."""
    return {task.name: _of_task(trial, task) for task in trial.data.tasks if trial.paces.get(task.name)}


def _of_task(trial: Trial, task: Task) -> Inference:
    paces, model, recipe = trial.paces[task.name], trial.model, trial.spec.recipe
    size = max(pace.examples for pace in paces)
    (middling,) = _middling(trial, task, min(size, COUNTED), 1)
    measured: dict[str, Any] = {
        "batch_size": size,
        "latency_seconds": latency(paces),
        "flops": flops(model, middling, recipe.evaluation),
    }
    if (undo := merged(model, task.name)) is None:
        return Inference(**measured)
    try:
        timed = [_timed(trial, task, batch) for batch in _middling(trial, task, size, FEW)]
        return Inference(
            **measured,
            merged_latency_seconds=latency(timed),
            merged_flops=flops(model, middling, recipe.evaluation),
        )
    finally:
        undo()


def latency(paces: list[Pace]) -> float:
    """Seconds an example, the median over batches."""
    return median(pace.seconds / pace.examples for pace in paces)


def flops(model: Model, batch: Batch, precision: Precision = "float32") -> float:
    """Floating-point operations an example of one teacher-forced pass over a batch, on the model's device.

    Those of products of matrices, (m, k) by (k, n) being 2·m·n·k, of convolutions and of attention, whichever kernel
    computes it; sums, norms, activations and tables count nothing. Pictures are looked at, also where what a frozen
    tower gives of them is kept.
    """
    inputs = {name: rows for name, rows in batch.inputs.items() if name != "pictures"}
    with evaluating(model, precision), FlopCounterMode(display=False, custom_mapping=KERNELS) as counter:
        model.logits(inputs, batch.targets)
    return counter.get_total_flops() / len(batch)


def _attention_flops(query: Any, key: Any, value: Any, *args: Any, **named: Any) -> int:
    """Of shapes (B, heads, T, d), (B, …, S, d) and (B, …, S, d_v): each query with each key, also those it is masked
    from, and the values summed, as `torch.utils.flop_counter` counts the kernels that it knows."""
    batch, heads, length, width = query
    return 2 * batch * heads * length * key[2] * (width + value[3])


# kernels of attention on a CPU and on other accelerators, which `torch.utils.flop_counter` does not know
KERNELS: dict[Any, Callable[..., int]] = {
    getattr(torch.ops.aten, name): _attention_flops
    for name in (
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_fused_attention_overrideable",
    )
    if hasattr(torch.ops.aten, name)
}


def merged(model: Model, task: str) -> Callable[[], None] | None:
    """Merge what the method has added for a task, and give what undoes that; None where nothing can be merged."""
    if not len(model.pet):
        return None
    try:
        return merge(model, task)
    except UserError:
        return None


def _middling(trial: Trial, task: Task, size: int, count: int) -> list[Batch]:
    """So many batches of the test, or all, from the middle of their order by length."""
    batches = trial.batches(task, "test")
    total = -(-len(batches) // size)
    made = batches.eval_batches(size, first=max(0, total - count) // 2)
    return [batch.to(trial.device) for batch in islice(made, count)]


def _timed(trial: Trial, task: Task, batch: Batch) -> Pace:
    with evaluating(trial.model, trial.spec.recipe.evaluation):
        began = time.perf_counter()
        answers(trial.model, trial.reader, batch, task.decoding, trial.spec.recipe)
        return Pace(len(batch), time.perf_counter() - began)
