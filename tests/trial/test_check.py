"""A design that a backbone cannot hold is said before any data is read."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from pet_bench.cli import main
from pet_bench.errors import UserError
from pet_bench.spec import MethodSpec
from pet_bench.trial.check import Spoilt, check_designs
from pet_bench.trial.resolve import resolve

METHODS = [
    "full",
    {"name": "lora", "biases": True},
    {"name": "design", "inserts": [{"sites": ["encoder.self_atn"], "delta": {"kind": "bottleneck", "width": 4}}]},
]


def test_every_design_is_tried_before_the_data_are_read(tmp_path, capsys):
    path = tmp_path / "g.yaml"
    path.write_text(
        yaml.safe_dump({"name": "g", "suites": ["image-text"], "backbones": ["bart-base", "t5-base"],
                        "methods": METHODS, "seeds": [0, 1]})
    )  # fmt: skip
    with pytest.raises(SystemExit) as stopped:
        main(["run", str(path), "--out", str(tmp_path / "out"), "--data", str(tmp_path / "nowhere")])
    lines = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2
    assert len(lines) == 3
    assert all(line.startswith("pet-bench: error: ") for line in lines)
    assert sum('encoder.self_atn": did you mean "encoder.self_attn"?' in line for line in lines) == 2
    (selector,) = (line for line in lines if "selector" in line)
    assert 'lora(biases=True) on t5-base: selector "biases" matches no parameter' in selector
    assert list((tmp_path / "out").iterdir()) == []


def test_each_design_once(monkeypatch):
    from pet_bench.trial import check

    built = []
    monkeypatch.setattr(check, "build", lambda backbone, *a, real=check.build, **k: built.append(1) or real(
        backbone, *a, **k))  # fmt: skip
    methods = [MethodSpec("lora"), MethodSpec("lora", {"rank": 8})]
    check_designs(resolve("mini-bart", method, "mini-image-text", seed) for method in methods for seed in range(3))
    assert len(built) == 2


def test_sizes_that_do_not_fit():
    method = MethodSpec("vl-pet-large", {"heads": 5, "head_layout": "pair"})
    with pytest.raises(UserError, match=r"vl-pet-large\(.*\) on mini-t5: .* does not divide into 5 heads"):
        check_designs([resolve("mini-t5", method, "mini-image-text", 0)])


def test_a_design_that_does_not_fit_costs_the_method_unless_an_option_was_chosen(monkeypatch):
    """With its own options it is the method's fault, which the others of a grid do not pay for; see `attach_method`."""
    from pet_bench.methods.lora import LoRA

    design = LoRA.design
    monkeypatch.setattr(LoRA, "design", lambda self, shape: replace(design(self, shape), train=("nose",)))
    bad, chosen, good = (
        resolve("mini-bart", method, "mini-image-text", 0)
        for method in (MethodSpec("lora"), MethodSpec("lora", {"rank": 8}), MethodSpec("full"))
    )
    with pytest.raises(Spoilt, match='selector "nose" matches no parameter') as caught:
        check_designs([bad, good])
    assert caught.value.trials.keys() == {bad.id}
    with pytest.raises(UserError, match='selector "nose"') as caught:
        check_designs([bad, chosen, good])
    assert not isinstance(caught.value, Spoilt) and len(caught.value.faults) == 2
