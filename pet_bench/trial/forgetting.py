"""How much a trial forgot: the loss on what its backbone knew (`backbone.knowledge`), before tuning and after.

Forgetting is the mean loss a token after tuning minus that before, so that more is worse, as in peft's method
comparison. Different from there: a token is predicted from those before it, not from itself as well; "before" is the
stock backbone and not the model with what a method has put in at random; and what was denoised in pre-training is
denoised here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from pet_bench.backbone.interface import Model
from pet_bench.backbone.knowledge import TEXT, Knowledge, digest, knowledge_of
from pet_bench.backbone.known import Backbone, family_of, find_backbone
from pet_bench.backbone.loading import load
from pet_bench.backbone.reader import Reader
from pet_bench.data.batches import labels_of
from pet_bench.errors import UserError, shortened
from pet_bench.packed import Packed, Rows
from pet_bench.pet import Design, attach_frozen
from pet_bench.results.schema import Forgetting
from pet_bench.spec import Runtime, TrialSpec
from pet_bench.trial.build import Trial, prepare_device
from pet_bench.trial.checkpoint import generators, set_generators
from pet_bench.trial.evaluate import evaluating
from pet_bench.trial.loss import per_token_loss
from pet_bench.trial.shared import Shared

LONGEST = 256  # tokens of a text and of an answer
BATCH = 32
Losses = dict[str, tuple[float, int]]  # by kind of exercise: the mean loss a token, and the tokens


def stock_losses(spec: TrialSpec, runtime: Runtime, shared: Shared) -> Losses:
    """Of the trial's backbone as it comes, frozen weights kept as the recipe has them; what several trials ask, once.

    Nothing is asked of one that says nothing of what it knows, where no file does, and of weights in parts, which no
    process could ask alone. The generators of the process stay as they are. Raises UserError for an unusable file.
    """
    backbone = find_backbone(spec.backbone)
    knowledge = None if runtime.shard else knowledge_of(backbone, runtime.forgetting)
    if knowledge is None:
        return {}
    device = prepare_device(runtime)
    about = [spec.backbone, spec.recipe.frozen, spec.recipe.evaluation, str(device), torch.get_num_threads()]
    asked = {kind: digest(pairs) for kind, pairs in knowledge.kinds.items()}

    def read() -> Losses:
        with _undrawn(device):
            model, tokenizer = load(backbone, spec.visual, shared.stock(spec))
            attach_frozen(model, Design(), (), spec.recipe.frozen)
            reader = model.family.reader(tokenizer)
            return losses(model.to(device), reader, spec, knowledge, words_of(backbone))

    return shared.find(f"forgetting {json.dumps([*about, asked])}", read)


def forgetting(trial: Trial, runtime: Runtime, before: Losses) -> dict[str, Forgetting]:
    """By kind of exercise, of the model as it is now; before: what `stock_losses` gave."""
    backbone = find_backbone(trial.spec.backbone)
    knowledge = knowledge_of(backbone, runtime.forgetting)
    if not before or knowledge is None:
        return {}
    after = losses(trial.model, trial.reader, trial.spec, knowledge, words_of(backbone))
    return {
        kind: Forgetting(before=before[kind][0], after=loss, tokens=tokens, text=digest(knowledge.kinds[kind]))
        for kind, (loss, tokens) in after.items()
    }


def words_of(backbone: Backbone) -> int | None:
    """The words of the stock vocabulary: those that it grew by are random, and no text has them."""
    return backbone.read_config().vocab_size if family_of(backbone).fed == "features" else None


def losses(model: Model, reader: Reader, spec: TrialSpec, knowledge: Knowledge, words: int | None = None) -> Losses:
    """The losses of a model, without an image, each kind asked as the task of its name or else as the first one.

    words: so many of the vocabulary can be said (None: all). Raises UserError where the model cannot be asked.
    """
    asked: dict[str, list[Exercise]] = {}
    for kind, pairs in knowledge.kinds.items():
        if kind == TEXT:
            lines = [answer for _, answer in pairs]
            made = reader.recalled(lines, LONGEST, Random(digest(pairs)))
            asked[kind] = [("", *one) for one in made]
        elif pairs:
            prompts, answers = zip(*pairs, strict=True)
            read, said = reader.tokens(prompts, LONGEST), reader.targets(answers, LONGEST)
            asked[kind] = [*zip(prompts, read, said, strict=True)]
    with evaluating(model, spec.recipe.evaluation), _without_a_picture(model, spec):
        return {
            kind: _loss(model, reader, spec, kind if kind in spec.tasks else spec.tasks[0], exercises, words)
            for kind, exercises in asked.items()
            if exercises
        }


Exercise = tuple[str, list[int], list[int]]  # a prompt, its ids, and those of the answer


def _loss(
    model: Model, reader: Reader, spec: TrialSpec, task: str, exercises: Sequence[Exercise], words: int | None
) -> tuple[float, int]:
    """Σ_bt CE_bt / Σ_b T_b over all of them, and the tokens."""
    total, tokens = 0.0, 0
    for at in range(0, len(exercises), BATCH):
        said, texts, answers = zip(*exercises[at : at + BATCH], strict=True)
        targets = _padded(answers, -100)
        if words is not None and targets.max() >= words:
            raise UserError(
                f'backbone "{spec.backbone}" cannot be asked what it knew: its checkpoint lacks a word for it'
            )
        labels = labels_of(targets)
        given = reader.inputs(_padded(texts, reader.pad), _unseen(model, spec, len(texts)), said)
        there = {name: rows for name, rows in given.items() if not isinstance(rows, Packed) or len(rows.flat)}
        inputs = {name: _moved(rows, model.device) for name, rows in there.items()} | {"task": task}
        targets, labels = targets.to(model.device), labels.to(model.device)
        logits = model.logits_at(labels, inputs, targets)[:, :words]
        total += per_token_loss(logits, targets, labels).double().sum().item()
        tokens += len(labels)
    return total / tokens, tokens


def _moved(rows: Rows, device: torch.device) -> Rows:
    return rows.each(lambda one: one.to(device)) if isinstance(rows, Packed) else rows.to(device)


def _padded(lines: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    return pad_sequence([torch.tensor(line, dtype=torch.long) for line in lines], True, value)


def _unseen(model: Model, spec: TrialSpec, count: int) -> Any:
    """What a store gives of so many examples without an image."""
    if model.family.fed == "pixels":
        return [[] for _ in range(count)]
    return torch.zeros(count, 0, spec.visual.tokens, spec.visual.width)


@contextmanager
def _without_a_picture(model: Model, spec: TrialSpec) -> Iterator[None]:
    """What a processor raises that takes no text without a picture is said in a line."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError) as error:
        if model.family.fed == "features":
            raise
        why = f"{type(error).__name__}: {shortened(str(error), 200)}"
        raise UserError(
            f'backbone "{spec.backbone}" reads no text without a picture: what it forgets cannot be measured ({why})'
        ) from error


@contextmanager
def _undrawn(device: torch.device) -> Iterator[None]:
    """What is drawn inside was not drawn after it."""
    before = generators(device)
    try:
        yield
    finally:
        set_generators(before, device)
