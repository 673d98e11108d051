"""From names to a trial with every value filled in."""

from __future__ import annotations

import pytest

from pet_bench.errors import UserError
from pet_bench.spec import MethodSpec, TrialSpec
from pet_bench.trial.resolve import resolve


def trial(**changes) -> TrialSpec:
    given = {"backbone": "bart-base", "method": "lora", "suite": "image-text", "seed": 0} | changes
    method = MethodSpec.parse(given.pop("method"))
    return resolve(given.pop("backbone"), method, given.pop("suite"), given.pop("seed"), **given)


@pytest.mark.parametrize(
    ("backbone", "method", "lr", "batch"),
    [
        ("bart-base", "full", 1e-4, 500),
        ("t5-base", "full", 1e-4, 300),
        ("bart-base", "vl-adapter", 1e-3, 500),
        ("t5-base", "vl-pet-large", 3e-4, 300),
        ("t5-base", "lora", 3e-4, 300),
    ],
)
def test_the_published_recipe_is_the_default(backbone, method, lr, batch):
    """METHODS.md section 8."""
    recipe = trial(backbone=backbone, method=method).recipe
    assert (recipe.lr, recipe.batch_size, recipe.epochs) == (lr, batch, 20)
    assert (recipe.weight_decay, recipe.warmup, recipe.clip, recipe.eps) == (0.01, 0.1, 5.0, 1e-6)


@pytest.mark.parametrize(
    ("backbone", "method", "options"),
    [
        ("bart-base", "lora", {"rank": 128, "alpha": 32, "dropout": 0.1, "biases": True}),
        ("t5-base", "lora", {"rank": 150, "alpha": 32, "biases": False}),
        ("bart-base", "vl-adapter", {"bottleneck": 96, "norms": True}),
        ("t5-base", "vl-adapter", {"bottleneck": 192, "norms": False}),
        ("bart-base", "vl-pet-large", {"bottleneck": 96, "gate_width": 96, "scale": 1.0, "gate_init": "default"}),
        ("t5-base", "vl-pet-large", {"bottleneck": 192, "gate_width": 192, "value_bottleneck": 96, "scale": 0.3}),
    ],
)
def test_the_published_options_are_the_default(backbone, method, options):
    """METHODS.md sections 3 and 4."""
    assert trial(backbone=backbone, method=method).method.options.items() >= options.items()


@pytest.mark.parametrize("method", ["full", "hyperformer"])
def test_a_method_without_task_prompts_empties_them(method):
    """METHODS.md section 6, TASKS.md 0.4: these published runs on image-text had no task prompt in the text."""
    tasks = ("vqa", "gqa", "nlvr2", "coco-caption")
    spec = trial(method=method, protocol={"vqa": {"scorer": "2021"}, "gqa": {"prompt": "gqa: "}})
    assert spec.protocol == {
        "vqa": {"prompt": "", "scorer": "2021"}, "gqa": {"prompt": "gqa: "}, "nlvr2": {"prompt": ""},
        "coco-caption": {"prompt": ""},
    }  # fmt: skip
    assert spec.label == method
    assert trial(method=method, suite="image-text/nlvr2").protocol == {"nlvr2": {"prompt": ""}}
    prompted = trial(method={"name": method, "task_prompts": True})
    assert prompted.protocol == {}
    assert prompted.label == f"{method}(task_prompts=True)"
    written = trial(method={"name": method, "task_prompts": True}, protocol={task: {"prompt": ""} for task in tasks})
    assert written.protocol == trial(method=method).protocol
    assert trial(backbone="mini-bart", method=method, suite="mini-image-text").protocol == {}
    assert trial().protocol == trial(method="vl-adapter").protocol == {}
    assert trial(method={"name": "vl-adapter", "per_task": "both"}).protocol == {t: {"prompt": ""} for t in tasks}


def test_id_changes_exactly_with_the_trial():
    same = trial(method={"name": "lora", "rank": 128})
    assert same.id == trial().id
    assert same.label == trial().label == "lora"
    others = [
        trial(method={"name": "lora", "rank": 8}),
        trial(seed=1),
        trial(control="text-only"),
        trial(recipe={"epochs": 3}),
        trial(protocol={"vqa": {"scorer": "2021"}}),
        trial(suite="image-text/vqa"),
        trial(backbone="t5-base"),
    ]
    assert len({spec.id for spec in [same, *others]}) == 1 + len(others)
    assert others[0].label == "lora(rank=8)"


def test_plain_data_and_back():
    spec = trial(control="text-only", protocol={"vqa": {"scorer": "2021"}})
    assert TrialSpec.from_dict(spec.to_dict()) == spec
    assert TrialSpec.from_dict(spec.to_dict()).id == spec.id


def test_all_faults_at_once():
    with pytest.raises(UserError) as error:
        trial(backbone="bart-bse", method="lroa", suite="image-txt", recipe={"epocs": 3})
    assert [fault.split("(")[0].strip() for fault in error.value.faults] == [
        'unknown backbone "bart-bse": did you mean "bart-base"?',
        'unknown suite or task "image-txt": did you mean "image-text"?',
        'unknown method "lroa": did you mean "lora"?',
        'unknown recipe key "epocs": did you mean "epochs"?',
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": {"lr": -1}}, "recipe: lr: Input should be greater than 0, found -1"),
        ({"recipe": {"epochs": "many"}}, "recipe: epochs: Input should be a valid integer"),
        ({"method": {"name": "lora", "rnak": 8}}, 'unknown method "lora" key "rnak": did you mean "rank"'),
        ({"method": {"name": "lora", "rank": 0}}, 'method "lora": rank: Input should be greater than 0, found 0'),
        ({"protocol": {"gqa": {"promt": "gqa: "}}}, 'unknown task "gqa" key "promt": did you mean "prompt"'),
        ({"protocol": {"tvqa": {}}}, 'unknown task in protocol "tvqa"'),
        ({"suite": "image-text/vqa+tvc"}, 'unknown task of suite image-text "tvc"'),
    ],
)
def test_each_fault_is_one_line(changes, message):
    with pytest.raises(UserError) as error:
        trial(**changes)
    assert error.value.faults[0].startswith(message)
    assert "\n" not in error.value.faults[0]


def test_a_methods_own_recipe_values():
    """LST's weight decay is 0.03 (METHODS.md section 8), and what the user says wins."""
    assert resolve("t5-base", MethodSpec("lst"), "image-text", 0).recipe.weight_decay == 0.03
    assert resolve("t5-base", MethodSpec("lst"), "image-text", 0, recipe={"weight_decay": 0}).recipe.weight_decay == 0
    assert resolve("t5-base", MethodSpec("lora"), "image-text", 0).recipe.weight_decay == 0.01
