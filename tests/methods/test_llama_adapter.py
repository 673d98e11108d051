"""LLaMA-Adapter and Excitor: their formulas written out on stock modules, their forms with images, what they count."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from pet_bench.methods.llama_adapter import topmost
from pet_bench.pet import trained_parameters
from tests.pet.minis import batch, logits, mini, nudge
from tests.pet.test_methods import differences
from tests.vlms import attached as tiny

both = pytest.mark.parametrize("family", ["bart", "t5"])
FORMS: list[tuple[str, dict[str, Any]]] = [
    ("llama-adapter", {"images": "mean"}),
    ("llama-adapter", {"images": "queries", "lora": 4, "bias": True, "new_gate": True}),
    ("llama-adapter", {"length": 1, "gate": "itself", "layers": 2}),
    ("excitor", {"visual": True, "length": 4, "rank": 3}),
]
forms = pytest.mark.parametrize(("method", "options"), FORMS, ids=[str(options) for _, options in FORMS])


@pytest.mark.parametrize(("layers", "top"), [(32, 30), (12, 11), (6, 5), (3, 2), (2, 1), (1, 1)])
def test_topmost(layers, top):
    assert topmost(layers) == tuple(range(layers - top, layers))
    assert topmost(layers, 1) == (layers - 1,)


@both
@forms
def test_every_form(family, method, options):
    """All that trains has a gradient, a batch and padding do not matter, and words from a cache are the likeliest."""
    model, one = nudge(mini(family, method, **options)), batch(family, images=2)
    logits(model, one)
    sees = options.get("visual") or options.get("images", "tokens") != "tokens"
    assert (model.context.beside is not None) == sees
    assert model.context.visual.shape[1] == (0 if sees else 2 * 36)
    model(**one).square().sum().backward()
    still = {name for name, p in trained_parameters(model).items() if p.grad is None or not p.grad.any()}
    assert still <= {name for name in still if name.startswith("visual.box")}  # there are no boxes here
    assert max(differences(model, family)) < 1e-5
    inputs = {key: value for key, value in one.items() if key != "targets"}
    words = model.generate(inputs, num_beams=1, max_length=6)
    ended = (words == model.lm.config.eos_token_id).cumsum(1) - (words == model.lm.config.eos_token_id).long()
    likeliest = logits(model, inputs | {"targets": words}).argmax(-1)
    assert torch.equal(likeliest.where(ended == 0, words), words)


@pytest.mark.parametrize("images", ["mean", "queries"])
def test_images_that_are_not_there_are_not_read(images):
    model, one = nudge(mini("bart", "llama-adapter", images=images)), batch("bart", images=2)
    one["features"][0, 1] = 0
    one["features"][1] = 0
    model.masks_empty = frozenset({one["task"]})
    logits(model, one)
    both_there = model.context.beside
    assert not both_there[1].any() and both_there[0].any()
    logits(model, one | {"features": one["features"][:, :1]})
    torch.testing.assert_close(model.context.beside[0], both_there[0], atol=1e-6, rtol=1e-5)


def test_what_it_counts():
    """With K = 10 and 30 of 32 layers of LLaMA-7B these are 30 · (10 · 4096 + 32) = 1,229,760 numbers."""
    model = mini("bart", "llama-adapter", length=7, layers=1)
    added = sum(p.numel() for name, p in trained_parameters(model).items() if name.startswith("pet."))
    assert added == 2 * (7 * model.anatomy.d + model.anatomy.heads)


def test_excitor_adds_scores():
    """q (k + g k^X)ᵀ is S + g S^X, before a causal softmax and with rotary positions, on a stock LLaMA."""
    model: Any = nudge(tiny.attached("llama", "excitor", length=3, rank=2))
    layer, seen = len(model.lm.model.layers) - 1, {}
    attention = model.lm.model.layers[layer].self_attn

    def keep(module, args, kwargs, output):
        seen.update(kwargs, output=output[0])

    attention.register_forward_hook(keep, with_kwargs=True)
    tiny.logits(model, *tiny.batch("llama", (1,)))  # one example: no padding
    x, extra = seen["hidden_states"], model.pet["decoder"][str(layer)]["self_attn"]["key"]["0"].delta
    with torch.no_grad():
        heads = lambda states: states.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)  # noqa: E731
        stock = torch.nn.functional.linear(x, attention.k_proj.weight)
        q, v = heads(attention.q_proj(x)), heads(attention.v_proj(x))
        q, k = apply_rotary_pos_emb(q, heads(stock), *seen["position_embeddings"])
        _, kx = apply_rotary_pos_emb(q, heads(extra.mixture(x)), *seen["position_embeddings"])
        kx = extra.gate[:, None, None] * kx
        groups = q.shape[1] // k.shape[1]
        k, kx, v = (t.repeat_interleave(groups, dim=1) for t in (k, kx, v))
        scores = attention.scaling * (q @ k.mT) + attention.scaling * (q @ kx.mT)
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
        expected = attention.o_proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(seen["output"], expected, atol=1e-5, rtol=1e-4)
