"""Our beam search finds what the one of transformers finds."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import product

import pytest
import torch
from transformers import DynamicCache, EncoderDecoderCache

from pet_bench.backbone import encoder_decoder
from pet_bench.backbone.beams import search, top_of
from tests.conftest import part
from tests.pet.minis import CASES, SUITE, mini, nudge

SETTINGS = [
    {"early_stopping": early, "length_penalty": penalty, "no_repeat_ngram_size": ngram, "use_cache": cache}
    for early, penalty, ngram, cache in product((True, False, "never"), (0.0, 1.0, 2.0), (0, 2), (True, False))
]


def questions(family: str, seed: int, rows: int = 7) -> dict:
    """Of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(5, 150, (rows, 9), generator=generator)
    text[torch.arange(9)[None] >= torch.arange(rows)[:, None] % 6 + 4] = mini(family).pad
    shape = rows, 1, SUITE.visual.tokens, SUITE.visual.width
    return {"text": text, "features": torch.randn(shape, generator=generator), "task": "vqa"}


def stock(model, monkeypatch, inputs: dict, **settings) -> torch.Tensor:
    """What the search of transformers finds, on a copy of what was encoded for each beam."""
    with monkeypatch.context() as patch:
        patch.setattr(encoder_decoder, "sharing", lambda *_: nullcontext())
        patch.setattr(encoder_decoder, "shared_cache", lambda _: EncoderDecoderCache(DynamicCache(), DynamicCache()))
        patch.setattr(encoder_decoder, "search", None)
        return model.generate(inputs, **settings)


def likelier_end(model, by: float) -> None:
    """So that some end early and others late."""
    head = model.at(model.anatomy.head)
    end = model.lm.config.eos_token_id
    head.register_forward_hook(lambda _, __, logits: logits + by * (torch.arange(logits.shape[-1]) == end))


@pytest.mark.parametrize("family", ["bart", "t5"])
@pytest.mark.parametrize("settings", part(SETTINGS, 8), ids=lambda settings: "-".join(map(str, settings.values())))
def test_the_words_of_transformers(family, settings, monkeypatch):
    model = nudge(mini(family, "lora"))
    model.lm.generation_config.update(**settings)
    likelier_end(model, 2.0)
    for seed, (beams, length) in enumerate([(2, 5), (5, 12)]):
        inputs = questions(family, seed)
        theirs = stock(model, monkeypatch, inputs, num_beams=beams, max_length=length)
        assert torch.equal(model.generate(inputs, num_beams=beams, max_length=length), theirs)


def test_who_is_done_leaves(monkeypatch):
    """The decoder is given fewer rows, whichever example ends first, and the others are answered as before."""
    model, sizes = nudge(mini("bart", "lora")), []
    likelier_end(model, 2.0)
    decoder = model.lm.get_decoder()
    decoder.register_forward_pre_hook(lambda _, __, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True)
    model.generate(questions("bart", 1), num_beams=3, max_length=12)
    assert sizes[0] == 3 * 7
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0]
    assert all(size % 3 == 0 for size in sizes)


@pytest.mark.parametrize(("family", "method"), part(CASES, 20))
def test_beams_of_every_method(family, method, monkeypatch):
    model = nudge(mini(family, method))
    likelier_end(model, 1.0)
    inputs = questions(family, 3)
    theirs = stock(model, monkeypatch, inputs, num_beams=3, max_length=8)
    assert torch.equal(model.generate(inputs, num_beams=3, max_length=8), theirs)


def test_the_search_is_ours(monkeypatch):
    calls = []
    monkeypatch.setattr(encoder_decoder, "search", lambda *a, **k: calls.append(1) or search(*a, **k))
    model = mini("t5")
    model.generate(questions("t5", 0), num_beams=2, max_length=4)
    model.generate(questions("t5", 0), num_beams=1, max_length=4)
    assert len(calls) == 1


@pytest.mark.parametrize("words", [1, 9, 300, 9000, 12288, 32100, 50465])
@pytest.mark.parametrize("k", [1, 4, 10])
def test_the_largest(words, k):
    rows = torch.randperm(3 * words, generator=torch.Generator().manual_seed(words)).view(3, words).float()
    values, at = top_of(rows, min(k, words))
    theirs = rows.topk(min(k, words))
    assert torch.equal(values, theirs.values)
    assert torch.equal(at, theirs.indices)
