"""Predictions by generation, or by choosing between words, and their scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from pet_bench.backbone.model import VisionLanguageModel
from pet_bench.data.batches import Batch, TaskBatches
from pet_bench.data.task import Choose, Generate, Task
from pet_bench.metrics.scores import Scores
from pet_bench.registry import ask
from pet_bench.results import predictions as saved
from pet_bench.results.schema import Progress
from pet_bench.trial.build import Trial


def evaluate(trial: Trial, task: Task, split: str, keep: Path | None = None) -> tuple[dict[str, str], Scores]:
    """Predictions and scores of one task on one split. keep: a file that gets predictions before they are scored."""

    def report(done: int, total: int) -> None:
        trial.on_progress(Progress(trial.spec.id, "evaluate", done, total))

    with trial.clock.timing("evaluate"):
        batches, recipe = trial.batches(task, split), trial.spec.recipe
        size, plain = -(-recipe.batch_size // trial.run.accumulation), recipe.generation == "plain"
        predictions = predict(trial.model, trial.tokenizer, batches, size, report, plain=plain)
        if keep:
            saved.write(keep, predictions, {})
        scores = ask(task, "score", predictions, batches.examples, returns=Scores)
        if keep:
            saved.write(keep, predictions, scores.per_example)
        return predictions, scores


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the mode is put back."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def predict(
    model: VisionLanguageModel,
    tokenizer,
    batches: TaskBatches,
    batch_size: int,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
    *,
    plain: bool = False,
) -> dict[str, str]:
    """The prediction of every example, by id. `on_batch(done, total)` is called after each batch.

    plain: generate without the checkpoint's own settings.
    """
    decoding, device = batches.task.decoding, next(model.parameters()).device
    decode = {Generate: partial(_generate, plain=plain), Choose: _choose}[type(decoding)]
    total, predictions = -(-len(batches) // batch_size), {}
    with evaluating(model):
        for done, batch in enumerate(batches.eval_batches(batch_size), start=1):
            texts = decode(model, tokenizer, batch.to(device), decoding)
            predictions.update(zip(batch.ids, texts, strict=True))
            on_batch(done, total)
    return predictions


def _generate(model: VisionLanguageModel, tokenizer, batch: Batch, decoding: Generate, *, plain: bool) -> list[str]:
    options = {"num_beams": decoding.num_beams, "max_length": decoding.max_length, "plain": plain}
    ids = model.generate(batch.input_ids, batch.visual, task=batch.task, **options)
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return [clean_up(text) for text in texts]


# transformers 4.2.1 decoded so, in this order (TASKS.md section 0.5); later versions no longer do for byte-level BPE
CLEAN_UP = [
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"),
    (" 've", "'ve"), (" 're", "'re"),
]  # fmt: skip


def clean_up(text: str) -> str:
    """`a dog , is n't it ?` → `a dog, isn't it?`"""
    for found, better in CLEAN_UP:
        text = text.replace(found, better)
    return text


def _choose(model: VisionLanguageModel, tokenizer, batch: Batch, decoding: Choose) -> list[str]:
    """The choice whose first sub-token has the largest logit after one decoder pass; the last of them wins a tie."""
    encoded = model.encode(batch.input_ids, batch.visual, task=batch.task)
    decoder_ids = torch.tensor([start_ids(model)] * len(batch), device=batch.input_ids.device)
    logits = model.decode(encoded, decoder_ids)[:, -1]  # (B, V)
    firsts = [tokenizer(choice, add_special_tokens=False)["input_ids"][0] for choice in decoding.choices]
    return [decoding.choices[i] for i in _last_argmax(logits[:, firsts])]


def start_ids(model: VisionLanguageModel) -> list[int]:
    """What the decoder is fed before it chooses, as it was trained: BART's start and `<s>`, T5's start alone."""
    config = model.lm.config
    start = [config.decoder_start_token_id]
    return [*start, config.bos_token_id] if model.shape.family == "bart" else start


def _last_argmax(values: Tensor) -> list[int]:
    """Row-wise index of the largest value of (B, C), the last of equals."""
    return (values.shape[1] - 1 - values.flip(1).argmax(dim=1)).tolist()
