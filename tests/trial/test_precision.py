"""Precisions by name: what each is while a trial trains, and where it cannot be had."""

from __future__ import annotations

import pytest
import torch

from pet_bench.errors import UserError
from pet_bench.spec import Recipe
from pet_bench.trial import build, train
from pet_bench.trial.device import check_precision
from pet_bench.trial.run import run_trial

TF32 = {"recipe": {"precision": "tf32", "max_steps": 2}}


def test_it_is_another_trial(mini_trial):
    assert len({mini_trial(recipe={"precision": name}).id for name in ("float32", "tf32", "bfloat16")}) == 3
    assert mini_trial(recipe={"precision": "float32"}).id == mini_trial().id


def test_where_there_is_none_it_is_said_before_any_work(mini_trial, runtime, monkeypatch):
    monkeypatch.setattr(build, "load", lambda *_: pytest.fail("a backbone was loaded"))
    with pytest.raises(UserError, match=r'^recipe: precision is tf32, which device "cpu" does not have \(possible'):
        run_trial(mini_trial(**TF32), runtime)
    assert not runtime.out.exists()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(UserError, match=r"compute capability 7\.5, expected 8\.0 at least"):
        check_precision("tf32", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    check_precision("tf32", torch.device("cuda"))


def test_matrices_are_multiplied_so_while_a_trial_trains(mini_trial, runtime, monkeypatch):
    """And evaluated as before."""
    seen, loss_of, evaluate = {}, train.loss_of, train.evaluate

    def now(what, function):
        def noted(*arguments):
            seen.setdefault(what, set()).add(torch.get_float32_matmul_precision())
            return function(*arguments)

        return noted

    monkeypatch.setattr(build, "check_precision", lambda *_: None)
    monkeypatch.setattr(train, "loss_of", now("train", loss_of))
    monkeypatch.setattr(train, "evaluate", now("valid", evaluate))
    before = torch.get_float32_matmul_precision()
    run_trial(mini_trial("lora", recipe=TF32["recipe"] | {"valid_every": 1}), runtime)
    assert seen == {"train": {"high"}, "valid": {before}} and torch.get_float32_matmul_precision() == before


def test_frozen_halves_are_no_tf32():
    with pytest.raises(ValueError, match="precision must be bfloat16, not tf32"):
        Recipe(lr=1.0, precision="tf32", frozen="bfloat16")
