from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
import torch

from pet_bench.errors import UserError
from pet_bench.methods.peft_bridge import USABLE
from pet_bench.pet import build_method, default_spec
from pet_bench.registry import METHODS
from pet_bench.spec import MethodSpec, Recipe, TrialSpec, Visual, validate
from pet_bench.trial.resolve import known
from tests.conftest import ROOT


@pytest.fixture
def trial():
    return TrialSpec(
        backbone="bart-base",
        method=MethodSpec("lora", {"rank": 8, "projections": ["query"]}),
        suite="image-text",
        tasks=("vqa", "gqa"),
        visual=Visual(8, 9, 9),
        seed=0,
        recipe=Recipe(lr=1e-3),
        protocol={"vqa": {"test": "dev"}},
        label="lora(rank=8)",
    )


OTHER = {
    "backbone": "t5-base",
    "method": MethodSpec("lora", {"rank": 9, "projections": ["query"]}),
    "suite": "video-text",
    "tasks": ("gqa", "vqa"),
    "visual": Visual(8, 9, 4),
    "seed": 1,
    "recipe": Recipe(lr=2e-3),
    "control": "text-only",
    "protocol": {},
    "imported": "0" * 64,
}


def test_another_seed_is_another_trial_of_the_same_text(trial):
    other, plain = trial.seeded(3), replace(trial, seed=3)
    assert (other, other.id, other.to_dict()) == (plain, plain.id, plain.to_dict())
    assert other.id != trial.id and other.seeded(0).id == trial.id
    assert other.but_seed == trial.but_seed == replace(plain, label="").but_seed
    with pytest.raises(ValueError):
        trial.seeded(-1)


@pytest.mark.parametrize("key", OTHER)
def test_the_id_changes_with_what_the_trial_is(trial, key):
    assert replace(trial, **{key: OTHER[key]}).id != trial.id


def test_the_id_covers_every_field_but_the_label(trial):
    assert {field.name for field in fields(TrialSpec)} == {*OTHER, "label"}
    assert replace(trial, label="mine").id == trial.id


def test_a_trial_survives_json_with_its_id(trial):
    again = TrialSpec.from_dict(json.loads(json.dumps(trial.to_dict())))
    assert (again.id, again.label) == (trial.id, trial.label)


@pytest.mark.parametrize(
    "value, name, options",
    [
        ("lora", "lora", {}),
        ({"name": "lora"}, "lora", {}),
        ({"name": "lora", "rank": 8}, "lora", {"rank": 8}),
    ],
)
def test_a_method_as_a_grid_file_writes_it(value, name, options):
    assert MethodSpec.parse(value) == MethodSpec(name, options)


@pytest.mark.parametrize("value", [3, None, [], {}, {"rank": 8}, {"name": 3}])
def test_what_is_no_method(value):
    with pytest.raises(UserError, match="a method is a name or a mapping"):
        MethodSpec.parse(value)


@pytest.mark.parametrize(
    "change, parts",
    [
        ({"lr": -1}, ["lr", "-1"]),
        ({"warmup": 2}, ["warmup", "2"]),
        ({"precision": "half"}, ["precision", "'half'"]),
        ({"epohcs": 3}, ["epohcs", 'did you mean "epochs"?']),
        ({"lr": None}, ["lr", "None"]),
    ],
)
def test_a_faulty_recipe_is_one_line_that_says_what_was_found(change, parts):
    with pytest.raises(UserError) as caught:
        validate(Recipe, {"lr": 1e-3} | change, "recipe")
    assert len(caught.value.faults) == 1
    assert all(part in caught.value.faults[0] for part in parts)


RESULTS = sorted(path for path in ROOT.glob("results/*/*.json") if not path.parent.name.startswith("report"))


@pytest.mark.parametrize("folder", sorted({path.parent for path in RESULTS}), ids=lambda folder: folder.name)
def test_every_committed_result_is_still_found(folder):
    for path in folder.glob("*.json"):
        kept = json.loads(path.read_text(encoding="utf-8"))
        again = TrialSpec.from_dict(kept["spec"])
        assert again.id == kept["id"] == path.stem
        assert json.dumps(again.to_dict()) == json.dumps(kept["spec"])


NUMBERS = [field.name for field in fields(Recipe) if field.type.startswith(("int", "float", "Count"))]


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("value", [True, "1", float("nan"), float("inf"), float("-inf"), -1, 1e300, 10**30, [1], {}])
def test_no_number_of_a_recipe_is_anything_else(key, value):
    with pytest.raises(UserError) as caught:
        validate(Recipe, {"lr": 1e-3} | {key: value}, "recipe")
    (line,) = caught.value.faults
    assert line.startswith(f"recipe: {key}: ")
    assert "found" in line


def test_a_recipe_built_in_python_is_checked_too():
    for change in ({"lr": "1e-3"}, {"lr": True}, {"lr": float("nan")}, {"epochs": 2.0}, {"decay_norms": 1}):
        with pytest.raises(ValueError, match="Recipe"):
            Recipe(**{"lr": 1e-3} | change)


@pytest.mark.parametrize("name", [*METHODS.names(), *(f"peft:{kind}" for kind in USABLE if kind != "trainable_tokens")])
def test_no_number_of_a_method_is_anything_else(name):
    shape = known("mini-bart")[1]
    options = default_spec(build_method(MethodSpec(name), shape)).options
    wrong = {int: (True, "8", 1.5), float: (True, "0.5"), bool: (1, 0, 1.0)}
    for key, value in options.items():
        every = (float("nan"), float("inf"), 10**30) if type(value) in (int, float) else ()
        for other in (*wrong.get(type(value), ()), *every):
            with pytest.raises(UserError, match=key):
                build_method(MethodSpec(name, {key: other}), shape)
    assert default_spec(build_method(MethodSpec(name, options), shape)).options == options


@pytest.mark.parametrize(
    ("insert", "part"),
    [
        ({"delta": {"kind": "bottleneck", "width": True}}, "width: Input should be a valid integer, found True"),
        ({"delta": {"kind": "low-rank", "rank": 2, "alpha": "4"}}, "alpha: Input should be a valid number, found '4'"),
        ({"delta": {"kind": "bottleneck", "width": 10**7}}, "width: Input should be less than or equal to 1000000"),
        ({"delta": "identity", "scale": float("inf")}, "inserts.0.scale: a number is finite, found inf"),
        (
            {"gate": {"kind": "large", "width": 2, "zero_init": 1}},
            "zero_init: Input should be a valid boolean, found 1",
        ),
        ({"sites": ["encoder.ffn", "encoder.ffn"]}, '"encoder.ffn" is listed twice'),
    ],
)
def test_no_number_of_a_design_is_anything_else(insert, part):
    with pytest.raises(UserError) as caught:
        build_method(MethodSpec("design", {"inserts": [{"sites": ["encoder.ffn"]} | insert]}), known("mini-bart")[1])
    assert any(part in line for line in caught.value.faults), caught.value.faults


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"a": {"b": [0, float("nan")]}}, "x: a.b.1: a number is finite, found nan"),
        ({"a": -(2**32)}, "x: a: a number is at most 4,294,967,295, found -4294967296"),
        ({"a": {True: 1}}, "x: a: a key is text, found True"),
        ({"a": "b\0"}, "x: a: text without null bytes"),
        ({"a": {"\ud83d": 1}}, "x: a: text without null bytes and halves of surrogate pairs"),
    ],
)
def test_what_no_specification_holds_wherever_it_stands(data, line):
    with pytest.raises(UserError) as caught:
        validate(MethodSpec, {"name": "m", "options": data}, "x")
    assert caught.value.faults[0].startswith(line.replace("x: ", "x: options.", 1))


def test_data_that_holds_itself():
    endless: dict = {}
    endless["a"] = endless
    with pytest.raises(UserError, match="nested too deeply"):
        validate(MethodSpec, {"name": "m", "options": endless}, "x")


def test_seeds_are_those_that_make_different_numbers(trial):
    largest = 2**32 - 1
    assert replace(trial, seed=largest).seed == largest
    for seed in (-1, largest + 1, True):
        with pytest.raises(ValueError, match="seed"):
            replace(trial, seed=seed)
    drawn = [torch.rand(3, generator=torch.Generator().manual_seed(seed)).tolist() for seed in (0, largest, 2**32)]
    assert drawn[0] == drawn[2] != drawn[1]


def test_all_faults_of_a_recipe_come_together():
    with pytest.raises(UserError) as caught:
        validate(Recipe, {"epochs": 0, "clip": -1, "colour": "red"}, "recipe")
    assert len(caught.value.faults) == 4
