"""Rates of their own: LoRA+, LoRA-FA, and what else `recipe.rates` says."""

from __future__ import annotations

import json
from dataclasses import replace

import peft
import pytest
import torch
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import load_file

from pet_bench.errors import UserError
from pet_bench.pet import trained_parameters
from pet_bench.pet.rates import hold
from pet_bench.trial.check import check_designs
from pet_bench.trial.loaded import load_trial
from pet_bench.trial.run import run_trial
from pet_bench.trial.train import build_optimizer
from tests.methods.test_against_peft import THEIRS, counterparts, ours
from tests.tiny import TINY, tiny_model

PLUS, FA = {"pet.*.B": 16.0}, {"pet.*.A": 0.0}


@pytest.mark.parametrize("family", TINY)
def test_lora_plus_is_peft_s(family, mini_trial):
    """Which tensors have the higher rate, and how much higher it is."""
    mine, theirs = ours(family, "lora"), tiny_model(family)
    model = peft.get_peft_model(theirs.lm, THEIRS["lora"](family))
    other = create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16)
    of = {id(p): name for name, p in theirs.named_parameters()}
    expected = {of[id(p)]: group["lr"] for group in other.param_groups for p in group["params"]}
    recipe = replace(mini_trial("lora").recipe, lr=1e-3, rates=PLUS)
    of = {id(p): name for name, p in mine.named_parameters()}
    rates = {of[id(p)]: group["lr"] for group in build_optimizer(mine, recipe).param_groups for p in group["params"]}
    assert rates.keys() == trained_parameters(mine).keys()
    assert {name: rates[mine_name] for mine_name, name in counterparts(mine).items()} == expected


def test_lora_fa(mini_trial, runtime):
    """A stays where it was drawn, counts as frozen, and is there again when the trial is loaded."""
    spec = mini_trial("lora", recipe={"rates": FA})
    result = run_trial(spec, runtime)
    plain = run_trial(mini_trial("lora"), runtime)
    folder = runtime.out / spec.id
    saved, kept = load_file(folder / "adapter.safetensors"), load_file(folder / "frozen.safetensors")
    assert any(name.endswith(".B") for name in saved)
    assert not any(name.endswith(".A") for name in saved)
    matrices = {name: tensor for name, tensor in kept.items() if name.endswith(".A")}
    assert plain.parameters.trainable - result.parameters.trainable == sum(t.numel() for t in matrices.values())
    torch.manual_seed(77)
    loaded = load_trial(spec.id, out=runtime.out)
    for name, tensor in matrices.items():
        assert torch.equal(loaded.model.get_parameter(name), tensor)
    assert json.loads((runtime.out / f"{spec.id}.json").read_text())["spec"]["recipe"]["rates"] == FA


def test_faster_parts_move_further(mini_trial, runtime):
    moved = {}
    for name, rates in (("plain", {}), ("plus", PLUS)):
        spec = mini_trial("lora", recipe={"rates": rates, "max_steps": 2, "warmup": 0.0, "lr": 1e-4})
        run_trial(spec, runtime)
        tensors = load_file(runtime.out / spec.id / "adapter.safetensors")
        moved[name] = sum(float(t.norm()) for key, t in tensors.items() if key.endswith(".B"))  # which start at 0
    assert moved["plus"] == pytest.approx(16 * moved["plain"], rel=0.2)


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"pet.*.C": 2.0}, r'rates: "pet\.\*\.C" matches no parameter that trains \(possible: .*\*\.A'),
        ({"pet.*": 2.0, "pet.*.B": 3.0}, r'"pet\.\*" and "pet\.\*\.B" match the same parameter, pet\.'),
        ({"*": 0.0}, "rates: nothing would train"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(rates, message, mini_trial):
    with pytest.raises(UserError, match=message):
        check_designs([mini_trial("lora", recipe={"rates": rates})])


def test_a_negative_factor_is_none(mini_trial):
    with pytest.raises(UserError, match=r"recipe: rates\.pet\.\*\.B: .*greater than or equal to 0, found -1"):
        mini_trial("lora", recipe={"rates": {"pet.*.B": -1.0}})


def test_nothing_is_held_without_rates():
    model = tiny_model("bart", "lora")
    before = list(trained_parameters(model))
    hold(model, {})
    assert list(trained_parameters(model)) == before
