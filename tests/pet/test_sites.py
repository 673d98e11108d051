"""Every site of every family is a place: what is put there changes nothing while it is 0, and everything once it is
not. What a method reads of the image, and edits of an attention, follow the beams and their order."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pet_bench.pet import Bottleneck, Design, Insert, attach, edit_attention
from tests.tiny import TINY, tiny_batch, tiny_model

SITES = [(family, site) for family, backbone in TINY.items() for site in backbone.anatomy.sites]
families = pytest.mark.parametrize("family", TINY)


def logits(model, **changed):
    with torch.no_grad():
        return model(**tiny_batch() | changed)


@pytest.mark.parametrize(("family", "site"), SITES)
def test_an_insert_at_a_site(family, site):
    model, bare = tiny_model(family), tiny_model(family)
    attach(model, Design((Insert((site,), Bottleneck(2, zero_init=True)),)))
    assert torch.equal(logits(model), logits(bare))
    with torch.no_grad():
        for parameter in model.pet.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model(**tiny_batch()).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.pet.parameters())
    assert not torch.allclose(logits(model), logits(bare))


@families
def test_the_parallel_form_reads_what_the_reader_reads(family):
    """H' = X in the place of H, where X is H by its kind, changes nothing."""
    for site in ("encoder.input", "encoder.output", "decoder.input", "decoder.output", "projector.output"):
        model = tiny_model(family)
        attach(model, Design((Insert((site,), adds_to="input"),)))
        assert torch.equal(logits(model), logits(tiny_model(family)))


@families
def test_the_visual_tokens_follow_the_beams(family):
    model, batch, seen = tiny_model(family), tiny_batch(images=2), []
    model.masks_empty = frozenset({"vqa"})
    batch["features"][1, 1] = 0  # the second example has one image
    layer = model.at(model.anatomy.stacks["decoder"].blocks)
    layer.register_forward_pre_hook(lambda *_: seen.append((model.context.visual, model.context.summary)))
    del batch["targets"]
    model.generate(batch, num_beams=3, max_length=4)
    tokens = model.visual(batch["features"], model.words)
    assert tokens.shape == (3, 8, 32)
    summary = torch.stack([tokens[0].mean(0), tokens[1, :4].mean(0), tokens[2].mean(0)])
    for visual, mean in seen:
        torch.testing.assert_close(visual, tokens.repeat_interleave(3, 0))
        torch.testing.assert_close(mean, summary.repeat_interleave(3, 0))
    assert seen


@families
def test_edits_of_one_attention_apply_in_order(family):
    """The first gets the stock model's call and hands on another; what the last gives comes back through all."""
    model, bare, order = tiny_model(family), tiny_model(family), []
    module = model.at(model.anatomy.sites["encoder.self_attn"].writer)
    stock = module.o if hasattr(module, "o") else module.out_proj

    def edit(name, factor):
        def around(call, *, attend):
            order.append(name)
            return factor * attend(call)

        return around

    edit_attention(model, module, edit("first", 2.0))
    edit_attention(model, module, edit("second", 3.0))
    outputs = []
    for m, linear in ((model, stock), (bare, bare.get_submodule(name_of(model, stock)))):
        linear.register_forward_pre_hook(lambda layer, args: outputs.append(args[0]))
        logits(m)
    assert order == ["first", "second"]
    torch.testing.assert_close(outputs[0], 6 * outputs[1], atol=1e-5, rtol=1e-5)


def name_of(model: nn.Module, module: nn.Module) -> str:
    return next(name for name, one in model.named_modules() if one is module)
