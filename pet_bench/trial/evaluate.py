"""Predictions by generation, or by choosing between words, and their scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from pet_bench.backbone.interface import Model
from pet_bench.backbone.reader import Reader
from pet_bench.data.ahead import ahead
from pet_bench.data.batches import Batch, TaskBatches
from pet_bench.data.task import Choose, Generate, Split, Task
from pet_bench.metrics.scores import Scores
from pet_bench.pet import autocast
from pet_bench.registry import ask
from pet_bench.results import predictions as saved
from pet_bench.results.schema import Progress
from pet_bench.spec import Precision, Recipe
from pet_bench.trial.build import Pace, Trial
from pet_bench.trial.memory import is_out_of_memory
from pet_bench.trial.ranks import ALONE, Ranks

OnBatch = Callable[[int, int], None]


def unheard(done: int, total: int) -> None:
    """Of progress that nobody follows."""


def evaluate(trial: Trial, task: Task, split: Split, keep: Path | None = None) -> tuple[dict[str, str], Scores | None]:
    """Predictions and scores of one task on one split. keep: a file that gets predictions before they are scored.

    On an accelerator batches are as large as fits, up to 16 times those of training. Of several processes each predicts
    its share of the batches, and the first one scores.
    """

    def report(done: int, total: int) -> None:
        trial.memory.take(trial.device)
        trial.on_progress(Progress(trial.spec.id, "evaluate", done, total))

    with trial.clock.timing("evaluate"):
        batches, recipe = trial.batches(task, split), trial.spec.recipe
        size = -(-recipe.batch_size // trial.run.accumulation)
        sizes = sizes_of(size, trial.device) if trial.ranks.world == 1 else (size,)
        paces = trial.paces[task.name] = []
        parts = fitting(trial.model, trial.reader, batches, sizes, recipe, report, trial.ranks, paces)
        predictions = trial.ranks.gathered(parts)
        if trial.ranks.rank:
            return predictions, None
        if keep:
            saved.write(keep, predictions, {})
        scores = ask(task, "score", predictions, batches.examples, returns=Scores)
        if keep:
            saved.write(keep, predictions, scores.per_example)
        return predictions, scores


@contextmanager
def evaluating(model: Model, precision: Precision = "float32") -> Iterator[None]:
    """Evaluation mode without gradients, in half precision also where frozen weights are kept so; the mode is put
    back."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), autocast(model, precision):
            yield
    finally:
        model.train(training)


def predict(
    model: Model, reader: Reader, batches: TaskBatches, batch_size: int, recipe: Recipe, on_batch: OnBatch = unheard
) -> dict[str, str]:
    """The prediction of every example, by id, generated and computed as the recipe has it. `on_batch(done, total)` is
    called after each batch."""
    return ALONE.gathered(predicted(model, reader, batches, batch_size, recipe, on_batch, ALONE))


def sizes_of(size: int, device: torch.device) -> tuple[int, ...]:
    """Of batches, the largest first: an accelerator that trains `size` examples at once predicts more."""
    return (size,) if device.type == "cpu" else tuple(size * many for many in (16, 8, 4, 2, 1))


def fitting(
    model: Model,
    reader: Reader,
    batches: TaskBatches,
    sizes: Sequence[int],
    recipe: Recipe,
    on_batch: OnBatch,
    ranks: Ranks,
    paces: list[Pace] | None = None,
) -> list[dict[str, str]]:
    """As `predicted`, in batches of the first size that memory has room for; the last one may fail.

    The longest examples come first, so that a size is found too large at once.
    """
    *larger, least = sizes
    for size in larger:
        try:
            return predicted(model, reader, batches, size, recipe, on_batch, ranks, paces)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        torch.cuda.empty_cache()  # outside of the handler, whose traceback holds what did not fit
    return predicted(model, reader, batches, least, recipe, on_batch, ranks, paces)


def predicted(
    model: Model,
    reader: Reader,
    batches: TaskBatches,
    batch_size: int,
    recipe: Recipe,
    on_batch: OnBatch,
    ranks: Ranks,
    paces: list[Pace] | None = None,
) -> list[dict[str, str]]:
    """Likewise, of every batch that is one process's; paces: what is to hold those of these batches."""
    parts: list[dict[str, str]] = []
    paces = [] if paces is None else paces
    paces.clear()
    first, every = ranks.turns
    own = batches.eval_batches(batch_size, first=first, every=every)
    total = len(range(first, -(-len(batches) // batch_size), every))
    with evaluating(model, recipe.evaluation):
        for batch in ahead(own, model.device):
            began = time.perf_counter()
            texts = answers(model, reader, batch, batches.task.decoding, recipe)
            paces.append(Pace(len(batch), time.perf_counter() - began))
            parts.append(dict(zip(batch.ids, texts, strict=True)))
            on_batch(len(parts), total)
    return parts


def answers(model: Model, reader: Reader, batch: Batch, decoding: Choose | Generate, recipe: Recipe) -> list[str]:
    """What is said to each example of a batch; a device is waited for."""
    if isinstance(decoding, Choose):
        return _choose(model, reader, batch, decoding)
    return _generate(model, reader, batch, decoding, plain=recipe.generation == "plain")


def _generate(model: Model, reader: Reader, batch: Batch, decoding: Generate, *, plain: bool) -> list[str]:
    beams, length = decoding.num_beams, decoding.max_length
    return reader.texts(model.generate(batch.inputs, num_beams=beams, max_length=length, plain=plain))


def _choose(model: Model, reader: Reader, batch: Batch, decoding: Choose) -> list[str]:
    """The choice whose first sub-token has the largest logit; the last of them wins a tie."""
    values = model.choose(batch.inputs, reader.firsts(decoding.choices))
    return [decoding.choices[i] for i in last_argmax(values)]


def last_argmax(values: Tensor) -> list[int]:
    """Row-wise index of the largest value of (B, C), the last of equals."""
    return (values.shape[1] - 1 - values.flip(1).argmax(dim=1)).tolist()
