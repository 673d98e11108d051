"""Routing functions: by their formulas, and what every one of them keeps to on the mini backbones."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from pet_bench.errors import UserError
from pet_bench.pet import build_method, trained_parameters
from pet_bench.pet.routing import Routing, route
from pet_bench.spec import MethodSpec
from tests.pet.minis import FAMILIES, batch, logits, mini, nudge
from tests.pet.test_methods import differences
from tests.vlms.attached import anatomy_of

ROUTINGS = get_args(Routing)
OTHERS = [
    ("routing-lora", {"coupled": True}), ("routing-lora", {"coupled": True, "after": "B"}),
    ("routing-lora", {"down": "split"}), ("routing-lora", {"down": "merge"}), ("routing-lora", {"down": "merge-norm"}),
    ("routing-lora", {"summary": "encoder"}), ("routing-adapter", {"summary": "encoder"}),
    ("routing-adapter", {"per_block": True}), ("routing-adapter", {"residual": False, "activation": "gelu"}),
]  # fmt: skip
CASES = [(method, {"routing": how}) for method in ("routing-lora", "routing-adapter") for how in ROUTINGS] + OTHERS


@pytest.mark.parametrize("tokens", [1, 4])
@pytest.mark.parametrize("how", ["linear", "linear-relu", "ones", "ones-relu"])
def test_several_visual_tokens(how, tokens):
    """Section 3 with loops over positions, tokens and components."""
    t, u = torch.randn(2, 3, 5), torch.randn(2, tokens, 5)
    left, right = (t.relu(), u.relu()) if how.endswith("relu") else (t, u)
    expected = torch.zeros_like(t)
    for b in range(2):
        for n in range(3):
            for v in range(tokens):
                score = sum(left[b, n, j] * right[b, v, j] for j in range(5))
                expected[b, n] += score * (u[b, v] if how.startswith("linear") else 1)
    torch.testing.assert_close(route(how, t, u), expected)


def test_xt_by_hand():
    """t tᵀ u with u at every position, over the positions that are there."""
    t, u, mask = torch.randn(2, 3, 5), torch.randn(2, 1, 5), torch.tensor([[1, 1, 1], [1, 1, 0]]).bool()
    for b, length in ((0, 3), (1, 2)):
        there = t[b, :length]
        expected = t[b] @ there.T @ u[b].expand(length, -1)
        torch.testing.assert_close(route("xt", t, u, mask)[b], expected)


def said(ids, end):
    return ids.tolist()[: [*ids.tolist(), end].index(end)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("method", "options"), CASES)
def test_every_routing_keeps_what_methods_promise(family, method, options):
    """Batches, padding, cached steps and beams change nothing, and the projector hears of it."""
    model = nudge(mini(family, method, **options))
    assert max(differences(model, family)) < 1e-5
    inputs = {key: value for key, value in batch(family).items() if key != "targets"}
    words = model.generate(inputs, num_beams=1, max_length=6)
    ended = (words == model.lm.config.eos_token_id).cumsum(1) - (words == model.lm.config.eos_token_id).long()
    assert torch.equal(logits(model, inputs | {"targets": words}).argmax(-1).where(ended == 0, words), words)
    one = {k: v[1:2] if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
    end = model.lm.config.eos_token_id
    alone, together = (model.generate(given, num_beams=3, max_length=6)[row] for given, row in ((one, 0), (inputs, 1)))
    assert said(alone, end) == said(together, end)
    model(**batch(family)).logsumexp(-1).sum().backward()
    assert all(p.grad is not None for p in trained_parameters(model).values() if p is not model.visual.image_order)


@pytest.mark.parametrize("method", ["routing-lora", "routing-adapter"])
def test_where_it_cannot_be(method):
    def why(anatomy, **options):
        return build_method(MethodSpec(method, options), anatomy).skip(anatomy)

    llama, vision = anatomy_of("llama"), anatomy_of("llava", ("language", "vision"))
    for options in ({"routing": "xt"}, {"summary": "encoder"}):
        assert "the backbone has no encoder" in why(llama, **options)
    assert why(llama) is None
    assert "before there are visual tokens" in why(vision)


def test_without_an_image_there_is_nothing_to_route_by():
    model = mini("bart", "routing-lora")
    with pytest.raises(UserError, match="there is no image to summarise"):
        model.lm(input_ids=batch("bart")["text"], decoder_input_ids=batch("bart")["text"])
