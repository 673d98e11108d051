"""Backbones with their weights, or with random ones from a configuration alone."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from copy import deepcopy

import torch
from torch import nn
from transformers import (
    AutoTokenizer,
    BartForConditionalGeneration,
    PreTrainedTokenizerBase,
    T5ForConditionalGeneration,
)
from transformers.utils import logging

from pet_bench.backbone.families import FAMILY
from pet_bench.backbone.known import EXTRA_WORDS, Backbone
from pet_bench.backbone.model import VisionLanguageModel
from pet_bench.errors import UserError
from pet_bench.spec import Visual

_STOCK = {"bart": BartForConditionalGeneration, "t5": T5ForConditionalGeneration}


def build(backbone: Backbone, visual: Visual, *, device: str = "cpu") -> VisionLanguageModel:
    """A backbone of that configuration with random weights (none at all on the `meta` device), vocabulary grown."""
    config = backbone.read_config()
    config.vocab_size = backbone.rows or config.vocab_size
    with torch.device(device):
        return VisionLanguageModel(_STOCK[backbone.family](config), backbone.shape, visual)


class Stock:
    """A pre-trained backbone as it comes, with its tokenizer: to be read once and copied for each trial.

    Handed to another process, its weights are plain arrays, which Ray keeps once a node; a process there only looks at
    them, so that they cannot be written to.
    """

    def __init__(self, lm: nn.Module, tokenizer: PreTrainedTokenizerBase):
        self.lm, self.tokenizer = lm, tokenizer

    def copy(self) -> tuple[nn.Module, PreTrainedTokenizerBase]:
        return deepcopy(self.lm), deepcopy(self.tokenizer)

    def __getstate__(self):
        arrays = {name: tensor.detach().numpy() for name, tensor in _tensors(self.lm)}
        return type(self.lm), self.lm.config, self.lm.generation_config, arrays, self.tokenizer

    def __setstate__(self, packed):
        kind, config, generation, arrays, self.tokenizer = packed
        self.lm = kind(config).eval()
        self.lm.generation_config = generation
        with warnings.catch_warnings(action="ignore"):  # that the arrays cannot be written to
            for name, tensor in _tensors(self.lm):
                tensor.data = torch.from_numpy(arrays[name])


def _tensors(lm: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers, tied ones once."""
    yield from lm.named_parameters()
    yield from lm.named_buffers()


def read_stock(backbone: Backbone) -> Stock:
    """The pre-trained backbone in float32; raises UserError where weights or tokenizer cannot be read."""
    logging.disable_progress_bar()  # trials show their own
    try:
        tokenizer = AutoTokenizer.from_pretrained(backbone.source)
        lm = _STOCK[backbone.family].from_pretrained(backbone.source, dtype=torch.float32)
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f'backbone "{backbone.name}" cannot be loaded from {backbone.source}: {first}') from error
    return Stock(lm.eval(), tokenizer)


def load(
    backbone: Backbone, visual: Visual, stock: Stock | None = None
) -> tuple[VisionLanguageModel, PreTrainedTokenizerBase]:
    """The pre-trained backbone in float32 with its tokenizer, both grown by VL-T5's 200 extra words.

    Words the tokenizer already has are not added again; new rows are drawn at random (METHODS.md section 7: standard
    deviation 0.02 in BART, 1 in T5). stock: what `read_stock` gave, which is left as it is. Raises UserError where
    weights or tokenizer cannot be read.
    """
    lm, tokenizer = (stock or read_stock(backbone)).copy()
    known = tokenizer.get_vocab()
    tokenizer.add_tokens([word for word in EXTRA_WORDS if word not in known], special_tokens=True)
    grow_vocabulary(lm, len(tokenizer), FAMILY[backbone.family].word_std)
    last = tokenizer.convert_tokens_to_ids(EXTRA_WORDS[-1])
    if last != lm.config.vocab_size - 1:
        raise UserError(
            f'backbone "{backbone.name}": {EXTRA_WORDS[-1]} must be the last word ({lm.config.vocab_size - 1}), '
            f"found at {last}"
        )
    return VisionLanguageModel(lm, backbone.shape, visual), tokenizer


def grow_vocabulary(lm: nn.Module, rows: int, std: float) -> None:
    """Resize the tied word table to `rows`; new rows ~ N(0, std²)."""
    old = lm.config.vocab_size
    if rows == old:
        return
    lm.resize_token_embeddings(rows, mean_resizing=False)
    if rows > old:
        nn.init.normal_(lm.get_input_embeddings().weight.data[old:], std=std)
