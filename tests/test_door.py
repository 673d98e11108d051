"""What the commands are given, from grid files to flags: right, or a line that says what is wrong, at once."""

from __future__ import annotations

import json

import pytest

from pet_bench import strict_yaml
from pet_bench.files import dump_yaml
from tests.conftest import REFERENCE, ROOT
from tests.test_cli import call  # noqa: F401

GRID = {
    "name": "g", "suites": ["mini-image-text"], "backbones": ["mini-bart"], "methods": ["lora"], "seeds": [0],
    "recipe": {"max_steps": 2, "valid_every": 0},
}  # fmt: skip
DRY = "--dry-run", "--estimate", "earlier"
OTHERS = ("run--device", "055-report", "068-merge", "076-export")  # of other tests, or with results of their own
LONG = "n" * 300
RESULTS = ROOT / "results" / "mini-ablation"


@pytest.fixture
def refused(call, tmp_path, monkeypatch):  # noqa: F811
    """What is said to a call that is refused: lines on stderr, with nothing written."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        before = sorted(tmp_path.rglob("*"))
        code, _, err = call(*arguments)
        assert code == 2, err
        assert err
        assert all(line.startswith("pet-bench: error: ") for line in err.splitlines()), err
        assert sorted(tmp_path.rglob("*")) == before
        return err

    return run


@pytest.fixture
def written(tmp_path):
    """A grid file of that text, or of the plain grid with these changes."""

    def write(change):
        path = tmp_path / "g.yaml"
        path.write_text(change if isinstance(change, str) else dump_yaml(GRID | change), encoding="utf-8")
        return path

    return write


def test_the_inputs_that_once_went_through(refused, tmp_path):
    for line in (REFERENCE / "cases" / "fuzz.jsonl").read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        whole = case["files"] or "WORK/g.yaml" not in case["args"]
        if case["group"] in ("grid", "cli") and whole and not case["name"].startswith(OTHERS):
            for name, text in case["files"].items():
                (tmp_path / name).write_text(text, encoding="utf-8")
            long = {"<10000 characters>": "x" * 10_000}
            refused(*(long.get(argument, argument).replace("WORK", str(tmp_path)) for argument in case["args"]))


TEXT = "name: g\nsuites: [mini-image-text]\nbackbones: [mini-bart]\nmethods: [lora]\n"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (TEXT + "seeds: [2:30]", "seeds.0: Input should be a valid integer, found '2:30'"),
        (TEXT + "resources: {reuse_workers: off}", "resources.reuse_workers: Input should be a valid boolean"),
        (TEXT + "recipe: &r {lr: 1e-3, eps: *r}", "alias *r leads back to itself"),
        (TEXT + f"recipe: {'{a: ' * 5000}1{'}' * 5000}", "nested too deeply"),
        (TEXT + f"recipe: {{epochs: {'7' * 400}}}", "an integer of 400 digits"),
        (
            {"seeds": [*range(101)], "methods": [{"name": "lora", "sweep": {"rank": [*range(1, 101)]}}]},
            "10,100 trials (possible: 10,000)",
        ),
        ({"methods": [{"name": "lora", "sweep": {k: [*range(1, 999)] for k in ("rank", "alpha")}}]}, "996,004 methods"),
        ({"name": LONG}, "name: String should have at most 100 characters"),
        ({"out": f"results/{LONG}"}, "no folder can be called"),
        ({"suites": [LONG]}, "unknown suite or task"),
        ({"backbones": [f"./{LONG}"]}, "unknown backbone"),
        ({"methods": [LONG]}, "unknown method"),
        ({"suites": ["mini-image-text/vqa+vqa"]}, "vqa is listed twice"),
        ({"controls": {"none": {"seeds": []}}}, "controls.none.seeds: List should have at least 1 item"),
        ({"also": [{"methods": 3, "overrides": 3}]}, "also[0]: methods: Input should be a list, found 3"),
        ({"also": [None]}, "also.0: Input should be a mapping, found None"),
        ({"overrides": [{"when": {"method": [["lora"]]}}]}, "overrides[0]: when: method.0: Input should be a valid"),
        ({"seeds": []}, "seeds: List should have at least 1 item"),
        ({"recipe": {"lr": "0.1"}}, "recipe: lr: Input should be a valid number, found '0.1'"),
        ({"recipe": {"clip": float("inf")}}, "recipe.clip: a number is finite, found inf"),
        ({"recipe": {"epochs": 2_000_000_000}}, "epochs: Input should be less than or equal to 1000000000"),
        ({"resources": {"gpus": 2.5}}, "GPUs of a trial are a fraction of one, 0.01 at least, or a whole number"),
        ({"resources": {"cpus": 1e-9}}, "resources.cpus: Input should be greater than or equal to 0.01"),
        ({"protocol": {"coco-caption": {"max_length": True}}}, "max_length: Input should be a valid integer"),
        ({"search": {"space": {"recipe.lr": {"log_uniform": [0, 1]}}, "samples": 2}}, "above 0, the smaller first"),
        ({"search": {"space": {"recipe.lr": {"uniform": [float("nan"), 1.0]}}, "samples": 2}}, "a number is finite"),
        ({"search": {"space": {"lora.rank": [2, 4, 2]}}}, '"2" is listed twice'),
        ({"search": {"space": {"recipe.lr": {"uniform": [1, 2]}}, "samples": 10**6}}, "less than or equal to 10000"),
    ],
)  # fmt: skip
def test_a_grid_file(refused, written, change, said):
    assert said in refused("run", written(change), *DRY)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--set", "recipe.lr=[1"], "--set recipe.lr: line"),
        (["--set", "=3"], "--set takes KEY=VALUE"),
        (["--set", "recipe.lr"], "--set takes KEY=VALUE"),
        (["--set", "recipe.=1"], "--set takes recipe.KEY"),
        (["--set", "recipe.lr=!!python/name:os.system"], "--set recipe.lr: line 1"),
        (["--set", "recipe.lr={? [1] : 2}"], "a key is text or a number"),
        (["--set", "recipe.lr={1: 2}"], "a key is text, found 1"),
        (["--set", "recipe.lr="], "lr: Input should be a valid number, found None"),
        (["--set", "lora.rank=8", "--set", "lora.rank=4"], "--set lora.rank is given twice"),
        (["--seed", "-1"], "--seed"),
        (["--seed", "4294967296"], "--seed"),
        (["--cpus", "nan"], "--cpus"),
        (["--gpus", "inf"], "--gpus"),
        (["--retries", str(10**30)], "--retries"),
        (["--checkpoint-every", "1e400h"], "--checkpoint-every takes"),
        (["--checkpoint-every", "9" * 30 + "h"], "--checkpoint-every takes"),
        (["--seed", "1", "--seed", "1"], "--seed 1 is given twice"),
        (["--device", "cpu", "--device", "cuda"], "--device is given 2 times"),
        (["--executor", "inline", "--max-concurrent", "2"], "--max-concurrent is for --executor ray"),
        (["--data", f"a/{LONG}"], "--data: no file can be called"),
        (["--out", "g.yaml"], "g.yaml is no folder"),
        (["--control", "noise"], "not in this grid"),
    ],
)
def test_flags_of_a_run(refused, written, flags, said):
    assert said in refused("run", written({}), *DRY, *flags)


def test_a_grid_file_of_too_many_values(refused, written, monkeypatch):
    monkeypatch.setattr(strict_yaml, "NODES", 1_000)
    assert "more than 1,000 values" in refused("run", written(TEXT + f"seeds: [{', '.join(['7'] * 1_001)}]"), *DRY)


def test_a_selection_that_leaves_nothing(refused, written):
    grid = written({"seeds": [0], "controls": {"none": {}, "text-only": {"seeds": [1]}}})
    assert "no trial of this grid has all of seed 0, control text-only" in refused(
        "run", grid, *DRY, "--seed", "0", "--control", "text-only"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["export", RESULTS, "--format", "peft", "--out", RESULTS], "every JSON file in"),
        (["export", RESULTS, "--format", "model-index", "--out", f"{RESULTS}/index.json"], "every JSON file in"),
        (["export", RESULTS, "--format", "peft", "--out", "/dev/null"], '"/dev/null" cannot be written'),
        (["report", RESULTS, "--out", "nowhere", "--style", "vlpet-video"], "they are of mini-image-text"),
        (["compare", "35930f3a2c2d", f"{RESULTS}/35930f3a2c2d.json", "--out", RESULTS], "are the same"),
        (["rerun", RESULTS, "--trial", "3593", "--trial", "35930"], "is named twice"),
        (["rerun", RESULTS, "--trial", "3593", "--estimate", "earlier"], "--estimate is for --dry-run"),
    ],
)
def test_commands_on_results(refused, arguments, said):
    before = sorted(RESULTS.rglob("*"))
    assert said in refused(*arguments)
    assert sorted(RESULTS.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "n" * 9_000], "(9,000 characters)"),
        (["run", "--method", "lora", "--estimate", "earlier"], "--estimate is for --dry-run"),
        (["compare", "lora", "lora"], "compared with itself"),
        (["show", "lora", "--out", "."], "--out is for a TRIAL"),
        (["show", "0123", "--set", "rank=4"], "--set is for a METHOD"),
        (["show", "lora", "--set", "rank=4", "--set", "rank=4"], "--set rank=4 is given twice"),
        (["show", "lora", "--set", "rank=true"], "rank: Input should be a valid integer, found True"),
        (["score", "p.json", "--metric", "vqa-accuracy", "--set", "version=2016", "--set", "version=2021"], "twice"),
        (["score", "p.json", "--metric", "vqa-accuracy", "--set", "version"], "--set takes OPTION=VALUE"),
        (["score", LONG], "FILE: no file can be called"),
        (["merge", "a", "./a", "--out", "b"], "more than one of the sources and --out"),
        (["merge", "a", "b", "--out", "a"], "more than one of the sources and --out"),
        (["best", "smoke"], "has no search"),
        (["pretrain", "mini-bart", "--out", "o", "--seed", "-1"], "--seed"),
        (["pretrain", "mini-bart", "--out", "o", "--steps", str(10**12)], "--steps"),
        (["pretrain", "mini-gpt", "--out", "o", "--start", "s"], "no mini backbone 'mini-gpt'"),
        (["pretrain", "mini-bart", "--out", "o", "--start", "s"], "loss_curve.csv\" is missing"),
        (["data", "mini", "m", "--seed", "-1"], "--seed"),
        (["data", "check", ".", "--suite", "nlvr-v1", "--set", "nlvr-v1.train=a", "--set", "nlvr-v1.train=b"], "twice"),
        (["gates", LONG], "is no trial"),
        (["export", LONG, "--format", "peft"], "is no grid"),
        (["list", "--plugin", f"{LONG}.py"], "no such file"),
    ],
)  # fmt: skip
def test_arguments_of_the_others(refused, arguments, said):
    assert said in refused(*arguments)


def test_a_slip_in_more_trials_is_said_with_flags_too(refused, written):
    grid = written({"also": [{"methods": 3, "overrides": 3, "suites": ["mini-image-text"], "backbones": ["mini-t5"]}]})
    assert "also[0]: overrides: Input should be a list" in refused("run", grid, *DRY, "--set", "recipe.epochs=3")
