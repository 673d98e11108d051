"""Frozen weights in half precision or four bits, and activations computed twice."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from pet_bench.backbone import build
from pet_bench.errors import UserError
from pet_bench.pet import attach_frozen, autocast, build_method, count, frozen_tensors, large, merge
from pet_bench.pet import trained_parameters as trained
from pet_bench.pet.large import recompute_activations
from pet_bench.pet.trained import is_quantised
from pet_bench.spec import MethodSpec, Recipe
from tests.forms import FORMS, PIXELS, batch_of, drawn, model_of
from tests.tiny import TINY, VISUAL

every = pytest.mark.parametrize("family", FORMS)
NF4 = find_spec("bitsandbytes") is not None
quantised = pytest.mark.skipif(not NF4, reason="unchecked: four bits (no bitsandbytes: pip install 'pet-bench[quant]')")
METHODS = ["lora", "dora", "adapter", "ia3", "prefix-tuning", "bitfit", "full", "peft:lora"]
CASES = [(f, m) for f in FORMS for m in METHODS if m != "full" or f in PIXELS]  # else nothing is frozen
KINDS = ["bfloat16", "4bit"] if NF4 else ["bfloat16"]
REFUSED = {("4bit", "dora"), ("4bit", "full")}  # see below
attaching = pytest.mark.parametrize(
    ("family", "method", "frozen"),
    [(*case, frozen) for case in drawn(CASES, 2) for frozen in KINDS if (frozen, case[1]) not in REFUSED],
)


def attached(family, method, frozen="float32", **options):
    model = model_of(family)
    torch.manual_seed(1)
    design = build_method(MethodSpec(method, options), model.anatomy).design(model.anatomy)
    return attach_frozen(model, design, ("vqa",), frozen)


def loss_of(logits, targets):
    return nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=-100)


def steps(model, inputs, targets, updates=3):
    """Losses and trained tensors of a few updates, dropout on."""
    torch.manual_seed(2)
    optimizer, losses = torch.optim.AdamW(trained(model).values(), lr=1e-2), []
    for _ in range(updates):
        with autocast(model):
            logits = model.train().logits(inputs, targets)
        loss = loss_of(logits, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    return losses, {name: parameter.detach().clone() for name, parameter in trained(model).items()}


# what is kept how -----------------------------------------------------------------------------------------------------


@attaching
def test_what_trains_is_in_float32_and_the_rest_is_not(family, method, frozen):
    plain, model = attached(family, method), attached(family, method, frozen)
    assert model.frozen == frozen
    assert all(p.dtype == torch.float32 for p in trained(model).values())
    assert trained(model).keys() == trained(plain).keys()
    buffers = dict(plain.named_buffers())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
    norms = {id(p) for m in model.modules() if type(m).__name__.endswith("Norm") for p in m.parameters()}
    rest = [p for p in model.parameters() if not p.requires_grad and id(p) not in norms]
    assert rest and all(p.dtype == torch.bfloat16 or is_quantised(p) for p in rest)
    assert all(p.dtype == torch.float32 for p in model.parameters() if id(p) in norms)
    assert count(model) == count(plain)
    tied = [
        sorted(n for n, p in one.named_parameters(remove_duplicate=False) if p is one.words) for one in (model, plain)
    ]
    assert tied[0] == tied[1]


@attaching
def test_it_computes_nearly_the_same_and_learns(family, method, frozen):
    inputs, targets = batch_of(family)
    plain, model = attached(family, method).eval(), attached(family, method, frozen).eval()

    def said():
        with torch.no_grad(), autocast(model):
            return model.eval().logits(inputs, targets).float()

    with torch.no_grad():
        expected = plain.logits(inputs, targets)
    start = said()
    apart = (start - expected).norm() / expected.norm()
    assert 0 < apart < (0.05 if frozen == "bfloat16" else torch.inf)  # four bits: see below
    steps(model, inputs, targets, 12)
    assert loss_of(said(), targets) < loss_of(start, targets)
    with autocast(model.eval()):
        ids = model.generate(inputs, num_beams=2, max_length=5)
    assert len(ids) == len(targets)


@every
@pytest.mark.parametrize("frozen", KINDS)
def test_what_is_kept_beside_the_trained_tensors_is_what_the_checkpoint_does_not_give(family, frozen):
    """As in float32, name by name: what was cast or quantised is made of the checkpoint again."""
    stock, plain, model = model_of(family).lm, attached(family, "lora"), attached(family, "lora", frozen)
    names = frozen_tensors(plain, stock).keys()
    kept = frozen_tensors(model, stock)
    assert kept.keys() == names
    assert attached(family, "lora", frozen).words.equal(model.words)


@quantised
@pytest.mark.parametrize("family", FORMS if NF4 else FORMS[:1])
def test_four_bits_are_what_bitsandbytes_makes_of_the_weight(family):
    """Layer by layer, biases and all; never the output layer, the tower or what was added."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    inputs, targets = batch_of(family)
    plain, model = attached(family, "bitfit"), attached(family, "bitfit", "4bit")
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) and is_quantised(m.weight)}
    stacks = [model.anatomy.stacks[name].path for name in model.anatomy.words]
    assert layers and all(any(name.startswith(f"{path}.") for path in stacks) for name in layers)
    with torch.no_grad():
        for name in layers:
            old = plain.get_submodule(name)
            packed, state = quantize_4bit(old.weight, quant_type="nf4", compress_statistics=True)
            old.weight.copy_(dequantize_4bit(packed, state))
        for name, layer in layers.items():
            x = torch.randn(3, layer.in_features)
            torch.testing.assert_close(layer(x), plain.get_submodule(name)(x), atol=0.05, rtol=0.05)
        with autocast(model.eval()):
            logits = model.logits(inputs, targets).float()
        expected = plain.eval().logits(inputs, targets)
    assert (logits - expected).norm() / expected.norm() < 0.05


# what does not go together --------------------------------------------------------------------------------------------


def test_without_the_package_it_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(large, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package bitsandbytes: pip install 'pet-bench\[quant\]'") as error:
        attached("bart", "lora", "4bit")
    assert len(error.value.faults) == 1


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("full", "every layer that could be kept so trains"),
        ("dora", 'the delta "weight-decomposed" reads the weights themselves'),
        ("lst", 'the door "side" reads the weights themselves'),
        ("peft:hra", 'the door "peft" reads the weights themselves'),
    ],
)
def test_four_bits_do_not_go_together_with(method, message, monkeypatch):
    monkeypatch.setattr(large, "find_spec", lambda name: True)
    model = build(TINY["bart"], VISUAL, device="meta")
    with pytest.raises(UserError, match=message) as error:
        design = build_method(MethodSpec(method), model.anatomy).design(model.anatomy)
        large.check_frozen(model, design, "4bit")
    assert len(error.value.faults) == 1


def test_what_reads_a_layers_type_keeps_it(monkeypatch):
    """T5's feed-forward casts what it reads to the type of `wo`, and would to bytes."""
    model = model_of("t5")
    design = build_method(MethodSpec("lora"), model.anatomy).design(model.anatomy)
    names = {path.rpartition(".")[2] for path, _ in large._replaceable(model, design)}
    assert names == {"q", "k", "v", "o", "wi"}


@quantised
def test_it_cannot_be_merged():
    with pytest.raises(UserError, match="the projection is quantised: it cannot be merged"):
        merge(attached("t5", "lora", "4bit"))


def test_halves_are_computed_in_half_precision():
    with pytest.raises(ValidationError, match="frozen is bfloat16, so precision must be bfloat16, not float32"):
        Recipe(lr=1e-3, frozen="bfloat16")


# activations computed twice -------------------------------------------------------------------------------------------

DROPPED = [("lora", {"dropout": 0.2}), ("adapter", {}), ("prefix-tuning", {}), ("full", {})]
TWICE = [(f, m, options, frozen) for f in FORMS for m, options in DROPPED for frozen in ("float32", "bfloat16")]
TWICE += [(f, "vl-pet-large", {}, "float32") for f in ("bart", "t5")]


@pytest.mark.parametrize(("family", "method", "options", "frozen"), drawn(TWICE, 3))
def test_checkpointing_changes_no_bit(family, method, options, frozen):
    inputs, targets = batch_of(family)
    expected = steps(attached(family, method, frozen, **options), inputs, targets)
    model = attached(family, method, frozen, **options)
    recompute_activations(model)
    calls = []
    model.at(model.anatomy.sites[f"{model.anatomy.writing}.ffn.out"].writer).register_forward_hook(
        lambda *args: calls.append(1)
    )
    losses, tensors = steps(model, inputs, targets)
    assert len(calls) == 2 * len(losses)  # each layer ran twice
    assert losses == expected[0]
    assert all(torch.equal(tensor, expected[1][name]) for name, tensor in tensors.items())
    model.eval()
    with autocast(model):
        model.generate(inputs, num_beams=2, max_length=5)


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_beside_a_side_network(family):
    inputs, targets = batch_of(family)
    options = {"init": "magnitude"}
    expected = steps(attached(family, "lst", **options), inputs, targets)
    model = attached(family, "lst", **options)
    recompute_activations(model)
    losses, tensors = steps(model, inputs, targets)
    assert losses == expected[0]
    assert all(torch.equal(tensor, expected[1][name]) for name, tensor in tensors.items())
