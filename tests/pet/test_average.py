"""The mean of models with one design: properties of every registered method, and ΔW by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from pet_bench.pet import merge, trained_parameters
from pet_bench.pet.average import MeanOf, Parts, average, updates
from pet_bench.pet.inserted import Inserted
from tests.conftest import part
from tests.pet.minis import CASES, batch, built, logits, mini, nudge

some = pytest.mark.parametrize(("family", "method"), part(CASES, 12))
LINEAR = ("lora", "dora", "kadaptation", "hiwi", "mtl-lora")


@some
def test_of_one_model_and_of_two_equal_ones_the_mean_is_that_model(family, method):
    model = nudge(mini(family, method))
    expected, own = logits(model, batch(family)), Parts.of(model)
    for several in ([own], [own, own]):
        mean = average(mini(family, method), several)
        assert torch.equal(logits(mean, batch(family)), expected), len(several)
    assert torch.equal(logits(model, batch(family)), expected), "the member itself is as before"
    below = {f"{path}.{name}" for path, module in own.updates.items() for name, _ in module.named_parameters()}
    assert {*own.tensors} | below == {*trained_parameters(model)} and not {*own.tensors} & below
    assert bool(own.updates) == (method in LINEAR), sorted(own.updates)


@some
def test_a_mean_is_between_its_members_and_can_be_taken_again(family, method):
    one, other = (nudge(mini(family, method), seed=seed) for seed in (5, 6))
    mean = average(mini(family, method), [Parts.of(one), Parts.of(other)])
    again = average(mini(family, method), [Parts.of(one), Parts.of(other)])
    assert torch.equal(logits(mean, batch(family)), logits(again, batch(family)))
    for model in (one, other):
        assert not torch.equal(logits(mean, batch(family)), logits(model, batch(family)))
    for name, tensor in Parts.of(mean).tensors.items():
        pair = [Parts.of(model).tensors[name] for model in (one, other)]
        torch.testing.assert_close(tensor, sum(pair) / 2)


def of_two(family, method):
    """The mean of two models whose inserts, and nothing else, differ, and the two."""
    one, other = (nudge(mini(family, method), seed=seed) for seed in (5, 6))
    for name, parameter in other.named_parameters():
        if not name.startswith("pet."):
            parameter.data = dict(one.named_parameters())[name].data.clone()
    return average(mini(family, method), [Parts.of(one), Parts.of(other)]), (one, other)


@pytest.mark.parametrize("method", LINEAR)
@pytest.mark.parametrize("family", ["bart", "t5"])
def test_the_mean_of_updates_is_the_mean_of_what_they_add(family, method):
    """x ↦ ΔW x at every place, in the whole model, and merged."""
    if built(family, method) is None:
        pytest.skip("not on this family")
    mean, models = of_two(family, method)
    assert {*updates(models[0])} == {path for path, module in mean.named_modules() if isinstance(module, MeanOf)}
    for model in (mean, *models):
        model.context.task = "vqa"
    for path, module in mean.named_modules():
        if isinstance(module, Inserted) and isinstance(module.delta, MeanOf):
            deltas = [model.get_submodule(path).delta for model in models]
            x = torch.randn(2, 3, module.place.d_x)
            torch.testing.assert_close(module.delta(x), sum(delta(x) for delta in deltas) / 2)
            if hasattr(module.delta, "weight"):
                weight = sum(delta.weight() for delta in deltas) / 2
                torch.testing.assert_close(module.delta.weight(), weight)
                torch.testing.assert_close(module.delta(x), F.linear(x, weight), atol=1e-5, rtol=1e-4)
    inputs = batch(family) | {"task": "vqa"}
    before = logits(mean, inputs)
    undo = merge(mean, task="vqa")
    torch.testing.assert_close(logits(mean, inputs), before, atol=1e-4, rtol=1e-4)
    undo()
    assert torch.equal(logits(mean, inputs), before)


def test_a_mean_of_factors_is_another_one():
    mean, (one, other) = of_two("bart", "lora")
    path = next(iter(updates(one)))
    first, second = (model.get_submodule(path) for model in (one, other))
    scale = first.spec.alpha / first.spec.rank
    by_hand = scale * (first.B @ first.A + second.B @ second.A) / 2
    of_factors = scale * (first.B + second.B) / 2 @ ((first.A + second.A) / 2)
    torch.testing.assert_close(mean.get_submodule(path).weight(), by_hand)
    assert not torch.allclose(of_factors, by_hand)
    assert torch.linalg.matrix_rank(by_hand) > first.spec.rank


@pytest.mark.parametrize("method", ["peft:lora", "peft:vera"])
def test_layers_that_peft_has_wrapped_are_averaged_in_what_they_give(method):
    one, other = (nudge(mini("bart", method), seed=seed) for seed in (5, 6))
    expected = logits(one, batch("bart"))
    assert torch.equal(logits(average(mini("bart", method), [Parts.of(one)] * 2), batch("bart")), expected)
    mean, found = average(mini("bart", method), [Parts.of(one), Parts.of(other)]), 0
    for path, module in mean.named_modules():
        if isinstance(module, MeanOf):
            layers = [model.get_submodule(path) for model in (one, other)]
            x = torch.randn(2, 3, layers[0].in_features)
            torch.testing.assert_close(module(x), sum(layer(x) for layer in layers) / 2)
            found += 1
    assert found == len(updates(one)) > 0
