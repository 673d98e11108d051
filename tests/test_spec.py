from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest

from pet_bench.errors import UserError
from pet_bench.spec import MethodSpec, Recipe, TrialSpec, Visual, validate


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
}


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


def test_all_faults_of_a_recipe_come_together():
    with pytest.raises(UserError) as caught:
        validate(Recipe, {"epochs": 0, "clip": -1, "colour": "red"}, "recipe")
    assert len(caught.value.faults) == 4
