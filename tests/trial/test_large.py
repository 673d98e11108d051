"""Trials with frozen weights in half precision or four bits, and with activations computed twice."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import pytest

import pet_bench
from pet_bench.errors import UserError
from pet_bench.pet import large
from pet_bench.report.tables.beneath import notes
from pet_bench.results import predictions, store
from pet_bench.trial import check
from pet_bench.trial.run import run_trial

SHORT = {"max_steps": 3, "lr": 1e-3}
NF4 = pytest.param(
    "4bit",
    marks=pytest.mark.skipif(
        find_spec("bitsandbytes") is None,
        reason="unchecked: four bits (no bitsandbytes: pip install 'pet-bench[quant]')",
    ),
)


def large_trial(mini_trial, frozen, method="vl-adapter", backbone="mini-t5"):
    recipe = SHORT | {"precision": "bfloat16", "frozen": frozen}
    return mini_trial(method, backbone, "mini-image-text/vqa", recipe=recipe)


@pytest.mark.parametrize("frozen", ["bfloat16", NF4])
def test_it_is_recorded_and_loaded_as_it_was_tested(frozen, mini_trial, runtime, world):
    spec = large_trial(mini_trial, frozen)
    plain = mini_trial("vl-adapter", "mini-t5", "mini-image-text/vqa", recipe=SHORT | {"precision": "bfloat16"})
    assert "frozen" not in plain.to_dict()["recipe"] and spec.id != plain.id
    result = run_trial(spec, runtime)
    assert result.spec["recipe"]["frozen"] == frozen
    assert ("bitsandbytes" in result.provenance.packages) == (frozen == "4bit")
    assert result.parameters == run_trial(plain, runtime).parameters
    loaded = pet_bench.load_trial(spec.id, out=runtime.out, data=world)
    told = predictions.read(runtime.out / result.predictions["vqa"])
    assert loaded.predict_test() == {id: text for id, (text, *_) in told.items()}
    (line,) = [line for line in notes(store.to_frame([result])) if "frozen weights" in line]
    assert line.startswith("quantised, " if frozen == "4bit" else "frozen weights in bfloat16: vl-adapter")


def test_checkpointing_is_no_part_of_a_trial_and_changes_nothing(mini_trial, runtime, tmp_path):
    spec = mini_trial("lora", suite="mini-image-text/vqa", recipe=SHORT)
    expected = run_trial(spec, runtime)
    result = run_trial(spec, replace(runtime, out=tmp_path / "again", gradient_checkpointing=True))
    assert result.run.gradient_checkpointing and not expected.run.gradient_checkpointing
    assert store.difference(result, expected) == ""
    tensors = [(out / spec.id / "adapter.safetensors").read_bytes() for out in (runtime.out, tmp_path / "again")]
    assert tensors[0] == tensors[1]


def test_what_sees_pixels_says_the_same_however_it_is_run(mini_trial, runtime, tmp_path):
    """Frozen in bfloat16: with what its tower gives kept or not, and with activations computed twice."""
    spec = large_trial(mini_trial, "bfloat16", "lora", "mini-llava")
    expected = run_trial(spec, runtime)
    assert expected.run.tower == "kept" and expected.spec["recipe"]["frozen"] == "bfloat16"
    for name, changed in {"twice": {"gradient_checkpointing": True}, "run": {"keep_tower": False}}.items():
        result = run_trial(spec, replace(runtime, out=tmp_path / name, **changed))
        assert store.difference(result, expected) == ""
        tensors = [(out / spec.id / "adapter.safetensors").read_bytes() for out in (runtime.out, tmp_path / name)]
        assert tensors[0] == tensors[1]


def test_what_cannot_be_is_said_before_any_work(mini_trial, runtime, monkeypatch):
    monkeypatch.setattr(large, "find_spec", lambda name: None)
    spec = large_trial(mini_trial, "4bit")
    for refused in (lambda: check.check_designs([spec]), lambda: run_trial(spec, runtime)):
        with pytest.raises(UserError, match="needs the package bitsandbytes") as error:
            refused()
        assert len(error.value.faults) == 1
    assert not runtime.out.exists()
    monkeypatch.setattr(large, "find_spec", lambda name: True)
    with pytest.raises(UserError, match="full on mini-t5: recipe: frozen is 4bit, but every layer"):
        check.check_designs([large_trial(mini_trial, "4bit", "full")])
