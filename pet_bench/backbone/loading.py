"""Backbones with their weights, or with random ones from a configuration alone."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from logging import CRITICAL
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.utils import logging

from pet_bench.backbone.anatomy import Anatomy
from pet_bench.backbone.interface import Model
from pet_bench.backbone.known import EXTRA_WORDS, Backbone, family_of
from pet_bench.backbone.reader import Tokenizer
from pet_bench.backbone.source import (
    HEAD,
    add_extra_words,
    check_files,
    grown_rows,
    has_own_head,
    own_tensors,
    said,
    stored_tensors,
)
from pet_bench.backbone.ties import hold, put, ties, untie
from pet_bench.errors import Faults, UserError
from pet_bench.spec import Scope, Visual

NAMED = 3  # tensors of one kind of fault that a message names


def build(backbone: Backbone, visual: Visual, scope: Scope | None = None, *, device: str = "cpu") -> Model:
    """A backbone of that configuration with random weights (none at all on the `meta` device), vocabulary grown.

    Tensors are tied as in the checkpoint, whose names are looked at. Raises UserError where the configuration makes no
    model, and as `read_tokenizer` does, which says how far the vocabulary grows.
    """
    config, family = backbone.read_config(), family_of(backbone)
    if family.fed == "features":
        config.vocab_size = grown_rows(backbone, config)
    with torch.device(device):
        lm = _new(backbone, config)
        untie(lm, own_tensors(backbone, ties(lm)))
        return family.model(hold(lm), backbone.anatomy.scoped(scope), visual)


def _new(backbone: Backbone, config: PreTrainedConfig) -> PreTrainedModel:
    """The stock model of a configuration, all that can be tied tied."""
    family_of(backbone).tie_all(config)
    try:
        return family_of(backbone).stock(config)
    except Exception as error:
        raise UserError(f'backbone "{backbone.name}": config.json makes no model: {said(error)}') from error


class Stock:
    """A pre-trained backbone as it comes, with its tokenizer: to be read once and copied for each trial.

    Handed to another process, its weights are plain arrays, which Ray keeps once a node; a process there only looks at
    them, so that they cannot be written to. What is one tensor here is one there.
    """

    def __init__(self, lm: PreTrainedModel, tokenizer: Tokenizer):
        self.lm, self.tokenizer = lm, tokenizer

    def copy(self) -> tuple[PreTrainedModel, Tokenizer]:
        return deepcopy(self.lm), deepcopy(self.tokenizer)

    def __getstate__(self):
        parameters = {name: tensor.detach().numpy() for name, tensor in self.lm.named_parameters()}
        buffers = {name: tensor.numpy() for name, tensor in self.lm.named_buffers()}
        arrays = parameters, buffers, ties(self.lm)
        return type(self.lm), self.lm.config, getattr(self.lm, "generation_config", None), arrays, self.tokenizer

    def __setstate__(self, packed):
        kind, config, generation, (parameters, buffers, tied), self.tokenizer = packed
        with torch.device("meta"):
            self.lm = kind(config).eval()
        if generation is not None:
            self.lm.generation_config = generation
        with warnings.catch_warnings(action="ignore"):  # that the arrays cannot be written to
            for name, array in parameters.items():
                put(self.lm, name, nn.Parameter(torch.from_numpy(array)))
            for name, array in buffers.items():
                put(self.lm, name, torch.from_numpy(array))
        for name, first in tied.items():
            put(self.lm, name, self.lm.get_parameter(first))
        hold(self.lm)


def _tensors(lm: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers, tied ones once."""
    yield from lm.named_parameters()
    yield from lm.named_buffers()


def read_stock(backbone: Backbone) -> Stock:
    """The pre-trained backbone in float32, as its checkpoint has it: tied is what has one tensor there.

    Raises UserError, with all faults together, where weights or tokenizer cannot be read; where the checkpoint lacks
    tensors, has others, or has them in another shape, of another kind than floats, or not finite; and where its
    tokenizer is another model's.
    """
    what, stored = f'backbone "{backbone.name}"', replace(backbone, config={})
    check_files(backbone)
    config = stored.read_config()
    family = family_of(backbone)
    tokenizer = family.read_tokenizer(backbone, config)
    names = stored_tensors(backbone)
    family.tie_all(config)
    from_pretrained: Any = family.stock.from_pretrained  # whose stub knows no loading info
    try:
        with _quiet():
            lm, info = from_pretrained(
                backbone.source, config=config, dtype=torch.float32, output_loading_info=True,
                ignore_mismatched_sizes=True, weights_only=True,
            )  # fmt: skip
    except Exception as error:
        raise UserError(f"{what} cannot be loaded from {backbone.source}: {said(error)}") from error
    faults = Faults()
    for kind, tensors in (
        ("lacks tensors", info["missing_keys"]),
        ("has tensors that no such model has", info["unexpected_keys"]),
        ("has tensors of a wrong shape", {_shapes(*one) for one in info["mismatched_keys"]}),
        ("has tensors that are not finite", {name for name, tensor in _tensors(lm) if not tensor.isfinite().all()}),
    ):
        if tensors:
            more = f" and {len(tensors) - NAMED} more" if len(tensors) > NAMED else ""
            faults.add(f"{what}: its checkpoint {kind}: {', '.join(sorted(tensors)[:NAMED])}{more}")
    if has_own_head(stored) and HEAD not in (names or {}):
        faults.add(f"{what}: its checkpoint lacks {HEAD}, and config.json has tie_word_embeddings false")
    for key, size in backbone.config.items():
        if type(size) is int and getattr(config, key) != size:
            faults.add(f"{what} is registered with {key} {size}, its checkpoint has {getattr(config, key)}")
    settings = getattr(lm, "generation_config", None)  # of what can generate by itself
    for key in family.ids_alike:
        ours, theirs = getattr(config, key, None), getattr(settings, key, None)
        if theirs is not None and theirs != ours:
            faults.add(f"{what}: {key} is {ours} in config.json and {theirs} in generation_config.json")
    faults.check()
    family.settle(lm, tokenizer)
    return Stock(hold(lm.eval()), tokenizer)


def _shapes(name: str, stored: tuple[int, ...], expected: tuple[int, ...]) -> str:
    return f"{name} {tuple(stored)} for {tuple(expected)}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own reports and bars: what matters in them is said here, and trials show their own."""
    logging.disable_progress_bar()
    level = logging.get_verbosity()
    logging.set_verbosity(CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)


def load(
    backbone: Backbone, visual: Visual, stock: Stock | None = None, scope: Scope | None = None
) -> tuple[Model, Tokenizer]:
    """The pre-trained backbone in float32 with its tokenizer, both grown by VL-T5's 200 extra words.

    Words the tokenizer already has are not added again; `grow_vocabulary` says how new rows start. One that is fed with
    pixels comes as it is, with its processor. stock: what `read_stock` gave, which is left as it is. scope: see
    `Anatomy`. Raises UserError as `read_stock` does.
    """
    lm, tokenizer = (stock or read_stock(backbone)).copy()
    family, anatomy = family_of(backbone), backbone.anatomy.scoped(scope)
    if isinstance(tokenizer, ProcessorMixin):
        return family.model(lm, anatomy, visual), tokenizer
    rows = add_extra_words(tokenizer)
    grow_vocabulary(lm, rows, family.word_std, anatomy)
    last = tokenizer.convert_tokens_to_ids(EXTRA_WORDS[-1])
    if last != rows - 1:
        raise UserError(
            f'backbone "{backbone.name}": {EXTRA_WORDS[-1]} must be the last word ({rows - 1}), found at {last}'
        )
    return family.model(lm, anatomy, visual), tokenizer


def grow_vocabulary(lm: Any, rows: int, std: float, anatomy: Anatomy) -> None:
    """Resize the word tables to `rows`; new rows ~ N(0, std²), in a tied output layer too (METHODS.md section 7).

    An output layer of its own becomes a `GrownHead`, with which the model says what it said before. No published run
    of these methods has one.
    """
    old = lm.config.vocab_size
    if rows == old:
        return
    words, head = lm.get_input_embeddings(), lm.get_output_embeddings()
    own_head = head.weight is not words.weight
    paths = [path.removeprefix("lm.") for path in anatomy.embeddings]
    apart = {path: table for path in paths if (table := lm.get_submodule(path)).weight is not words.weight}
    lm.resize_token_embeddings(rows, mean_resizing=False)
    tables = [lm.get_input_embeddings()]
    for path, table in apart.items():  # transformers has just put the common table in the place of the stack's own
        grown = lm._get_resized_embeddings(table, rows, mean_resizing=False)
        lm.set_submodule(path, grown)
        tables.append(grown)
    if rows > old:
        for table in tables:
            nn.init.normal_(table.weight.data[old:], std=std)
        if own_head:
            lm.set_output_embeddings(GrownHead(lm.get_output_embeddings(), old))


class GrownHead(nn.Linear):
    """An output layer W with rows for new words: W x, and for the new words `BELOW` less.

    Their rows start as the mean of the others, so that a new word's logit starts that far below the mean logit, hence
    below the largest for every x, and e^-100 of a probability is no number beside it in float32: neither greedy nor
    beam search takes a new word, and the old ones have the probabilities that they had. The rows get gradients like
    any other where the layer is trained; a new word that is a target can be learnt. Nothing is added that counts:
    what is subtracted is no parameter.
    """

    BELOW = 100.0

    def __init__(self, head: nn.Linear, old: int):
        super().__init__(head.in_features, head.out_features, bias=False, device="meta")
        self.weight, self.old = head.weight, old
        with torch.no_grad():
            self.weight[old:] = self.weight[:old].mean(dim=0)

    def forward(self, input: Tensor) -> Tensor:
        """(…, d) → (…, V)."""
        logits = F.linear(input, self.weight, self.bias)
        new = torch.arange(self.out_features, device=input.device) >= self.old
        return logits - self.BELOW * new.to(logits.dtype)
