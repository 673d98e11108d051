from __future__ import annotations

import pytest

from pet_bench.errors import UserError
from pet_bench.files import parse_yaml
from pet_bench.grid.plan import spec as grid_spec
from pet_bench.grid.plan.spec import ADHOC, load, parse, select


def names(trials):
    return [(trial.method.name, trial.control, trial.seed) for trial in trials]


def test_a_grid_is_the_product_of_its_lists(plain):
    trials = parse(plain | {"seeds": [0, 7], "backbones": ["bart-base", "t5-base"]}).trials()
    assert len(trials) == len({trial.id for trial in trials}) == 8
    assert {(t.backbone, t.method.name, t.seed) for t in trials} == {
        (backbone, method, seed)
        for backbone in ("bart-base", "t5-base")
        for method in ("lora", "full")
        for seed in (0, 7)
    }


@pytest.mark.parametrize(
    "controls, expected",
    [
        (["none", "text-only"], [("none", 0), ("none", 1), ("text-only", 0), ("text-only", 1)]),
        ({"none": {}, "text-only": {"seeds": [0]}}, [("none", 0), ("none", 1), ("text-only", 0)]),
        ({"none": None, "text-only": {"seeds": [5]}}, [("none", 0), ("none", 1), ("text-only", 5)]),
        (["text-only"], [("text-only", 0), ("text-only", 1)]),
    ],
)
def test_controls(plain, controls, expected):
    trials = parse(plain | {"methods": ["full"], "seeds": [0, 1], "controls": controls}).trials()
    assert [(trial.control, trial.seed) for trial in trials] == expected


def test_a_list_is_one_option_and_a_sweep_is_many(plain):
    swept = {"name": "lora", "sweep": {"rank": [2, 4], "alpha": [1.0, 2.0]}, "dropout": 0.0}
    whole = {"name": "lora", "projections": ["query", "key"]}
    trials = parse(plain | {"methods": [swept, whole]}).trials()
    options = [trial.method.options for trial in trials]
    assert [(o["rank"], o["alpha"], o["dropout"]) for o in options[:4]] == [
        (2, 1.0, 0.0),
        (2, 2.0, 0.0),
        (4, 1.0, 0.0),
        (4, 2.0, 0.0),
    ]
    assert len(trials) == 5
    assert list(options[4]["projections"]) == ["query", "key"]


def test_a_scope_is_set_or_swept_as_an_option_is(plain):
    swept = {"name": "lora", "rank": 2, "sweep": {"scope": [["language"], None, ["vision", "projector"]]}}
    trials = parse(
        plain | {"backbones": ["mini-llava"], "methods": [swept, {"name": "lora", "scope": ["vision"]}]}
    ).trials()
    assert [trial.method.scope for trial in trials] == [("language",), None, ("projector", "vision"), ("vision",)]
    assert len({trial.id for trial in trials}) == 4
    assert all("scope" not in trial.method.options for trial in trials)


def test_overrides_apply_where_they_match_and_later_ones_win(plain):
    data = plain | {
        "seeds": [0],
        "controls": ["none", "text-only"],
        "recipe": {"epochs": 3, "lr": 0.1},
        "protocol": {"nlvr2": {"test": "dev"}},
        "overrides": [
            {"when": {"method": ["lora"]}, "recipe": {"lr": 0.2}, "options": {"rank": 8}},
            {"when": {"method": "lora", "control": "text-only"}, "recipe": {"lr": 0.3}},
            {"when": {"suite": "image-text"}, "protocol": {"nlvr2": {"valid": None}}},
        ],
    }
    trials = {(trial.method.name, trial.control): trial for trial in parse(data).trials()}
    assert {key: trial.recipe.lr for key, trial in trials.items()} == {
        ("lora", "none"): 0.2,
        ("lora", "text-only"): 0.3,
        ("full", "none"): 0.1,
        ("full", "text-only"): 0.1,
    }
    assert trials["lora", "none"].method.options["rank"] == 8
    assert all(trial.recipe.epochs == 3 for trial in trials.values())
    changes = {"test": "dev", "valid": None}
    assert trials["lora", "none"].protocol == {"nlvr2": changes}
    assert trials["full", "none"].protocol["nlvr2"] == {"prompt": "", **changes}


def test_protocol_of_a_task_is_for_the_suites_that_have_it(plain):
    data = plain | {"suites": ["image-text/vqa", "nlvr2"], "protocol": {"nlvr2": {"test": "dev"}}, "methods": ["lora"]}
    assert [trial.protocol for trial in parse(data).trials()] == [{}, {"nlvr2": {"test": "dev"}}]


FAULTS = [
    ({"methods": ["lroa"]}, ['unknown method "lroa": did you mean "lora"?']),
    ({"methods": [{"name": "lora", "rnak": 3}]}, ["rnak", "rank"]),
    ({"methods": [{"name": "lora", "rank": "many"}]}, ["rank", "'many'"]),
    ({"methods": [{"name": "lora", "sweep": {"rank": 4}}]}, ["sweep maps options to lists"]),
    ({"methods": [{"name": "lora", "rank": 1, "sweep": {"rank": [4]}}]}, ["rank is both set and swept"]),
    ({"methods": [3]}, ["a method is a name or a mapping", "3"]),
    ({"controls": ["none", "none"]}, ["controls", "listed twice"]),
    ({"methods": []}, ["methods"]),
    ({"backbones": ["bart-bse"]}, ["bart-bse", 'did you mean "bart-base"?']),
    ({"suites": ["image-txt"]}, ["image-txt", 'did you mean "image-text"?']),
    ({"seeds": ["one"]}, ["seeds.0", "'one'"]),
    ({"seeds": [1.5]}, ["seeds.0", "1.5"]),
    ({"seeds": [0, 0]}, ["listed twice"]),
    ({"methods": ["lora", "lora"]}, ["listed twice"]),
    ({"methods": ["lora", {"name": "lora", "rank": 128}]}, ["listed twice"]),
    ({"controls": ["text_only"]}, ["text_only"]),
    ({"recipe": {"epohcs": 3}}, ["epohcs", 'did you mean "epochs"?']),
    ({"recipe": {"lr": -1}}, ["lr", "-1"]),
    ({"sedes": [0]}, ['unknown grid key "sedes": did you mean "seeds"?']),
    ({"protocol": {"vqaa": {}}}, ["protocol", 'did you mean "vqa"?']),
    ({"resources": {"cpus": 0}}, ["resources.cpus", "0"]),
    ({"overrides": [{"when": {}, "wehn": {}}]}, ["overrides[0]", '"wehn"', 'did you mean "when"?']),
    ({"overrides": [{"when": {"metod": "lora"}}]}, ["overrides[0]", 'did you mean "method"?']),
    ({"overrides": [{"when": {"method": "loar"}}]}, ["overrides[0]", 'did you mean "lora"?']),
    ({"methods": [None]}, ["methods.0", "a method is a name or a mapping", "None"]),
    ({"methods": [["lora"]]}, ["methods.0", "a method is a name or a mapping"]),
    (
        {"methods": [{"name": "lora", "scope": ["language"], "sweep": {"scope": [None]}}]},
        ["scope is both set and swept"],
    ),
    ({"methods": [{"name": "lora", "sweep": {"scope": [["tower"]]}}]}, ["scope"]),
    ({"methods": [{"name": "lora", "sweep": {}}]}, ["sweep maps options to lists"]),
    ({"methods": [{"name": "lora", "sweep": {"rank": [4, 4]}}]}, ["sweep of rank", "listed twice"]),
    ({"methods": [{"name": "lora", "projections": ["query", "query"]}]}, ["projections", "listed twice"]),
    (
        {"methods": [{"name": "peft:lora", "target_modules": ["q_proj", "q_proj"]}], "recipe": {"lr": 1}},
        ["listed twice"],
    ),
    ({"controls": {"none": {}, "noise": {"seeds": []}}}, ["controls.noise.seeds", "at least 1"]),
    ({"seeds": [True]}, ["seeds.0", "True"]),
    ({"seeds": [2**32]}, ["seeds.0", "4,294,967,295"]),
    ({"seeds": list(range(9_999))}, ["19,998 trials (possible: 10,000)"]),
    ({"recipe": {1: 2}}, ["recipe: a key is text, found 1"]),
    ({"resources": {"gpus": 1.5}}, ["resources.gpus", "a whole number; found 1.5"]),
    ({"resources": {"retries": False}}, ["resources.retries", "False"]),
    ({"suites": ["image-text/"]}, ["names no task after its slash"]),
    ({"overrides": [{"when": {"method": []}}]}, ["overrides[0]: no trial matches"]),
]


@pytest.mark.parametrize("change, parts", FAULTS)
def test_a_fault_is_one_line_that_says_what_was_found(plain, change, parts):
    with pytest.raises(UserError) as caught:
        parse(plain | change).trials()
    assert len(caught.value.faults) == 1, caught.value.faults
    assert all(part in caught.value.faults[0] for part in parts), caught.value.faults


def test_all_faults_are_reported_together(plain):
    wrong = plain | {"methods": ["lroa", "full"], "suites": ["image-txt", "image-text"], "recipe": {"epohcs": 1}}
    with pytest.raises(UserError) as caught:
        parse(wrong).trials()
    assert len(caught.value.faults) == 3
    for word in ("lroa", "image-txt", "epohcs"):
        assert sum(word in fault for fault in caught.value.faults) == 1


def test_seeds_make_the_trials_that_each_makes_alone(plain):
    largest = 2**32 - 1
    both = parse(plain | {"seeds": [3, largest]}).trials()
    alone = [trial for seed in (3, largest) for trial in parse(plain | {"seeds": [seed]}).trials()]
    assert [(trial.id, trial.seed) for trial in both] == [(trial.id, trial.seed) for trial in alone]


def test_dump_keeps_text_that_looks_like_a_number(plain, tmp_path):
    grid = parse(plain | {"protocol": {"vqa": {"prompt": "1e3"}, "gqa": {"test": "010"}}})
    (tmp_path / "grid.yaml").write_text(grid.dump())
    assert load(tmp_path).protocol == grid.protocol == {"vqa": {"prompt": "1e3"}, "gqa": {"test": "010"}}


def test_dump_reads_back_to_the_same_trials(plain, tmp_path):
    grid = parse(plain | {"controls": {"none": {}, "text-only": {"seeds": [0]}}, "seeds": [0, 1]})
    (tmp_path / "grid.yaml").write_text(grid.dump())
    again = load(tmp_path)
    assert [trial.id for trial in again.trials()] == [trial.id for trial in grid.trials()]


@pytest.mark.parametrize("text, value", [("1e-3", 1e-3), ("-2E5", -2e5), ("1.e+2", 100.0), ("1", 1), ("e3", "e3")])
def test_numbers_in_yaml(text, value):
    assert parse_yaml(text, "grid") == value
    assert type(parse_yaml(text, "grid")) is type(value)


@pytest.mark.parametrize("text", ["a: 1\na: 2", "a: {b: 1, b: 2}", "a: [", "a: !!python/object:os.system {}"])
def test_yaml_that_is_refused(text, tmp_path):
    with pytest.raises(UserError):
        parse_yaml(text, "grid")
    (tmp_path / "g.yaml").write_text(text)
    with pytest.raises(UserError, match=r"g\.yaml"):
        load(tmp_path / "g.yaml")


@pytest.mark.parametrize("content", ["[1, 2]", "", "text"])
def test_a_grid_file_that_is_no_mapping(content, tmp_path):
    (tmp_path / "g.yaml").write_text(content)
    with pytest.raises(UserError, match="a grid is a mapping"):
        load(tmp_path / "g.yaml")


@pytest.mark.parametrize("source", ["dmeo", "missing.yaml"])
def test_a_grid_that_does_not_exist(source):
    with pytest.raises(UserError, match=source):
        load(source)


@pytest.mark.parametrize("name", grid_spec.shipped())
def test_shipped_grids_expand(name):
    grid = load(name)
    assert grid.name == name
    assert grid.trials()


def test_demo_compares_five_methods_over_seeds_with_a_control():
    trials = load("demo").trials()
    assert len({trial.method.name for trial in trials}) == 5
    assert {trial.control for trial in trials} == {"none", "text-only"}
    assert len({trial.seed for trial in trials if trial.control == "none"}) >= 2


def test_select(plain):
    trials = parse(plain | {"seeds": [0, 1]}).trials()
    assert names(select(trials, method=["lora"], seed=[1])) == [("lora", "none", 1)]
    mixed = parse(plain | {"controls": {"none": {}, "noise": {"seeds": [1]}}}).trials()
    with pytest.raises(UserError, match="no trial of this grid has all of seed 0, control noise"):
        select(mixed, seed=[0], control=["noise"], method=[])
    assert select(trials) == trials
    with pytest.raises(UserError) as caught:
        select(trials, method=["loar"], seed=[2])
    assert len(caught.value.faults) == 2


def test_trials_beside_the_product(plain):
    more = {"suites": ["mini-image-text"], "backbones": ["mini-t5"], "methods": ["lora"], "recipe": {"epochs": 3}}
    grid = parse(plain | {"also": [more, plain_part(plain)]})
    own, beside = parse(plain).trials(), parse(more | {"name": "x"}).trials()
    assert [trial.id for trial in grid.trials()] == [trial.id for trial in [*own, *beside]]
    with pytest.raises(UserError) as caught:
        parse(plain | {"also": [{"out": "x"}, more | {"methods": ["lroa"]}, {}]}).trials()
    for line in ('also[0] key "out"', '"lroa"', "also[2]: suites is missing"):
        assert sum(line in fault for fault in caught.value.faults) == 1, caught.value.faults


def plain_part(plain):
    return {key: value for key, value in plain.items() if key not in ("name", "resources")}


def test_what_is_run_into_one_folder_adds_up(plain, tmp_path):
    def adhoc(**changes):
        return parse(plain_part(plain) | {"name": ADHOC} | changes)

    one, two = adhoc(methods=["lora"]), adhoc(methods=["full"], recipe={"epochs": 3})
    both = one.joined(two)
    assert ids(both) == ids(one) + ids(two)
    assert both.joined(one) == both.joined(two) == both  # what is there already is not listed again
    (tmp_path / "grid.yaml").write_text(both.dump())
    assert ids(load(tmp_path)) == ids(both)

    named = parse(plain | {"name": "named"})
    kept = named.joined(adhoc(methods=["bitfit"]))
    assert (kept.name, ids(kept)) == ("named", ids(named) + ids(adhoc(methods=["bitfit"])))
    changed = parse(plain | {"name": "named", "methods": ["ia3"]})  # its author edited it
    assert ids(kept.joined(changed)) == ids(changed) + ids(adhoc(methods=["bitfit"]))
    assert named.joined(parse(plain | {"name": "other"})) == named


def ids(grid):
    return [trial.id for trial in grid.trials()]


def test_a_search_shares_its_folder_with_no_other_grid(plain):
    search = {"space": {"recipe.lr": [1e-3, 1e-2]}, "samples": 2}
    protocol = {task: {"valid": "none"} for task in ("gqa", "nlvr2")}
    searching = parse(plain | {"name": "searching", "search": search, "protocol": protocol})
    for kept, plan in ((searching, parse(plain)), (parse(plain), searching)):
        with pytest.raises(UserError, match='"searching" is a search'):
            kept.joined(plan)
