"""UniPT and SHERL: what the generic properties and the parity fixtures do not show."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from pet_bench.backbone import Backbone, build
from pet_bench.backbone.bart import BART_BASE
from pet_bench.backbone.t5 import T5_BASE
from pet_bench.errors import UserError
from pet_bench.methods.unipt import Interaction
from pet_bench.pet import attach, build_method, count, trained_parameters
from pet_bench.pet.large import recompute_activations
from pet_bench.spec import MethodSpec, Visual
from tests.tiny import TASKS, TINY, VISUAL, tiny_batch

LLAMA = Backbone(
    "tiny-llama",
    "llama",
    "",
    {
        "vocab_size": 60, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "pad_token_id": 0,
    },
)  # fmt: skip
BACKBONES = {**TINY, "llama": LLAMA}
METHODS = ("unipt", "sherl")
families = pytest.mark.parametrize("family", BACKBONES)
methods = pytest.mark.parametrize("name", METHODS)


def attached(family: str, name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    model = build(BACKBONES[family], VISUAL)
    torch.manual_seed(1)
    attach(model, build_method(MethodSpec(name, options), model.anatomy).design(model.anatomy), TASKS)
    with torch.no_grad():
        for parameter in model.pet.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def given():
    inputs: dict[str, Any] = tiny_batch()
    inputs["boxes"] = torch.rand(3, 1, VISUAL.tokens, 4, generator=torch.Generator().manual_seed(4))
    return inputs, inputs.pop("targets")


def logits(model):
    with torch.no_grad():
        return model.logits(*given())


def gradients(model):
    inputs, targets = given()
    model.zero_grad()
    model.logits(inputs, targets).square().sum().backward()
    return {name: p.grad.clone() for name, p in trained_parameters(model).items() if p.grad is not None}


# the cut -------------------------------------------------------------------------------------------------------------


def with_graph(model) -> list[str]:
    """The layers whose output has a graph."""
    seen = []
    for stack in model.anatomy.words:
        place = model.anatomy.stacks[stack]
        for i in range(place.layers):

            def look(layer, args, output, name=f"{stack}.{i}"):
                states = output[0] if isinstance(output, tuple) else output
                seen.extend([name] * states.requires_grad)

            model.at(place.blocks, i).register_forward_hook(look)
    model.logits(*given())
    return seen


@families
@methods
def test_no_frozen_layer_has_a_graph(family, name):
    """But SHERL's last one; without the cut, all have."""
    anatomy = BACKBONES[family].anatomy
    layers = [f"{stack}.{i}" for stack in anatomy.words for i in range(anatomy.stacks[stack].layers)]
    assert with_graph(attached(family, name)) == (layers[-1:] if name == "sherl" else [])
    assert with_graph(attached(family, name, cut=False)) == layers


@families
@methods
def test_the_cut_changes_the_gradient_of_the_visual_embedding_alone(family, name):
    cut, whole = (attached(family, name, cut=cut) for cut in (True, False))
    assert torch.equal(logits(cut), logits(whole))
    ours, theirs = gradients(cut), gradients(whole)
    assert ours.keys() == theirs.keys()
    for parameter, gradient in ours.items():
        same = torch.allclose(gradient, theirs[parameter], rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))
        assert same != parameter.startswith("visual.")


@families
@methods
def test_activations_computed_twice_change_no_bit(family, name):
    plain, twice = attached(family, name), attached(family, name)
    recompute_activations(twice)
    torch.manual_seed(2)
    expected = gradients(plain.train())
    torch.manual_seed(2)
    again = gradients(twice.train())
    assert all(torch.equal(gradient, again[parameter]) for parameter, gradient in expected.items())


@families
@methods
def test_beams_with_and_without_a_cache(family, name):
    model, ids = attached(family, name), []
    inputs, _ = given()
    for cached in (True, False):
        model.lm.generation_config.use_cache = cached
        ids.append(model.generate(inputs, num_beams=4, max_length=9))
    assert torch.equal(*ids)


@families
@methods
def test_nothing_is_left_of_a_pass(family, name):
    """Neither of generation and training nor of a pass that failed half-way."""
    model = attached(family, name)
    inputs, targets = given()
    before = logits(model)
    model.generate(inputs, num_beams=3, max_length=6)
    model.train().logits(inputs, targets).sum().backward()
    model.eval()

    def fail(module, args):
        raise RuntimeError

    hook = model.at(model.anatomy.stacks["decoder"].blocks, 1).register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError):
        model.logits(inputs, targets)
    hook.remove()
    assert torch.equal(logits(model), before)


# UniPT ---------------------------------------------------------------------------------------------------------------


def test_the_running_form_is_the_plain_one_of_every_prefix():
    torch.manual_seed(0)
    plain, running = Interaction(8), Interaction(8, causal=True)
    running.load_state_dict(plain.state_dict())
    a, t = torch.randn(3, 6, 8), torch.randn(3, 4, 6, 8)
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[1, :2] = False
    u = running(a, t, mask, 6)
    for n in range(3, 7):
        prefix = plain(a[:, :n], t[:, :, :n], mask[:, :n], n)
        torch.testing.assert_close(u[:, n - 1], prefix[:, -1])
    assert torch.allclose(running(a, t, mask, 2), u[:, -2:], atol=1e-6)


def test_the_sizes_of_unipt():
    """METHODS_A 1.5."""
    d, w, n = 768, 384, 6
    core = (n + 1) * (d * w + 3 * w) + 2 * w * d + d + 3 * w + w + 1
    decoder = core + n * (w * w + 3 * w) + w * d + d + 2 * d
    assert size(BART_BASE, "unipt") == core + decoder


def size(backbone, name, **options):
    model = build(backbone, Visual(2048, 36, 36), device="meta")
    attach(model, build_method(MethodSpec(name, options), model.anatomy).design(model.anatomy), TASKS)
    return count(model)["groups"][name]


# SHERL ---------------------------------------------------------------------------------------------------------------


def test_the_sizes_of_sherl():
    """As published, with the two new norms."""
    assert size(T5_BASE, "sherl") == 4_511_812
    assert size(T5_BASE, "sherl", reduction=8) == 1_907_236


def test_what_it_distils():
    model, other = (attached("t5", "sherl", distill=distill, merge_last=True) for distill in (0.5, 0.0))
    inputs, targets = given()
    door = build_method(MethodSpec("sherl", {"distill": 0.5}), model.anatomy).design(model.anatomy).doors[0]
    student = model.logits(inputs, targets)
    penalty = door.penalty(model)
    assert torch.equal(student, other.logits(inputs, targets))
    with torch.no_grad():
        other.pet["sherl"].merge.fill_(-1e3)  # the pretrained norm alone
    teacher = (logits(other) / 0.1).log_softmax(-1)
    by_hand = (teacher.exp() * (teacher - student.log_softmax(-1))).sum() / len(student)
    torch.testing.assert_close(penalty, 0.5 * by_hand)
    assert isinstance(penalty, torch.Tensor)
    penalty.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert door.penalty(model) == 0.0  # of one pass once
    logits(model)
    assert door.penalty(model) == 0.0  # and of none without gradients


def test_a_block_without_any_weight_keeps_the_guide():
    model = attached("t5", "sherl")
    block = model.pet["sherl"].blocks["encoder"]
    with torch.no_grad():
        block.guide.weight.zero_()
        block.guide.bias.fill_(-1.0)
        features = [torch.randn(2, 3, 32) for _ in block.downs]
        features[0] = torch.zeros(2, 3, 32)
        block.downs[0].down.bias.fill_(-1.0)  # x_0 = W_2 0 + b_2 is 0 too
        block.downs[0].value.bias.zero_()
        out = block(features, torch.zeros(2, 3, 32))
        torch.testing.assert_close(out, block.up(F.relu(block.downs[-1](features[-1]))))


def test_what_cannot_be():
    with pytest.raises(UserError, match=r"sherl: decoder must be two or more of f_0 to f_1, found \[0, 2\]"):
        attached("bart", "sherl", decoder=(0, 2))
    with pytest.raises(UserError, match="sherl: merge_last and distill need a decoder that ends in a norm"):
        attached("bart", "sherl", form="gated", merge_last=True)


def test_bart_in_the_gated_form():
    model = attached("bart", "sherl", form="gated")
    assert set(model.pet["sherl"].norms) == {"encoder"}
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())
