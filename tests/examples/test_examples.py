"""The worked examples: an installed package and a loose file, through the command line and as methods."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
import yaml

from pet_bench.errors import UserError
from pet_bench.mini.write import write_image_text
from pet_bench.pet import load_trained, merge, save_trained, trained_parameters
from pet_bench.registry import METHODS, METRICS, SUITES, TASKS, load_plugin
from pet_bench.results import store
from pet_bench.spec import MethodSpec
from pet_bench.trial.count import count_parameters, describe
from tests.conftest import ROOT, everything
from tests.mini.conftest import SMALL
from tests.pet import test_methods as properties
from tests.tiny import tiny_batch, tiny_model

PACKAGE = ROOT / "examples" / "pet-bench-vera"
TASK = ROOT / "examples" / "counting.py"
FILES = {"vera": PACKAGE / "pet_bench_vera.py", "gated-adapter": ROOT / "examples" / "gated_adapter.py"}
RECIPE = {"lr": 3e-3, "max_steps": 2, "batch_size": 24, "valid_every": 0}


@pytest.fixture
def registered():
    """Both examples, registered for one test."""
    for name, path in FILES.items():
        if name not in METHODS:
            load_plugin(str(path))
    yield
    for name in FILES:
        del METHODS.entries[name]


@pytest.fixture
def counting():
    """The task with its metric and its suite, registered for one test."""
    load_plugin(str(TASK))
    yield
    del TASKS.entries["counting"], METRICS.entries["within-one"], SUITES.entries["counting"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world") / "datasets"
    write_image_text(folder, seed=3, sizes=SMALL)
    return folder


@pytest.fixture
def call(tmp_path, tmp_path_factory):
    """Run a command with some folders before all others on the path."""

    def run(*arguments, path=()):
        environment = os.environ | {
            "PET_BENCH_CACHE": str(tmp_path_factory.getbasetemp() / "examples-cache"), "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(map(str, path)), "COLUMNS": "200",
        }  # fmt: skip
        command = [sys.executable, "-m", "pet_bench.cli", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def only_result(folder, method):
    (result,) = store.load_all(folder).values()
    assert result.spec["method"]["name"] == method
    assert result.status in ("done", "suspect")  # few updates teach little
    assert result.cost.steps == RECIPE["max_steps"]
    assert sum(result.parameters.groups.values()) == result.parameters.trainable
    return result


def test_the_package_once_installed_is_a_method_like_any_other(call, world, tmp_path):
    source, target = tmp_path / "source", tmp_path / "site"
    shutil.copytree(PACKAGE, source)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*install, "--target", target, source], check=True, capture_output=True)
    assert "VeRA (Kopiczko et al., ICLR 2024)" in call("show", "vera", path=[target])
    grid = yaml.safe_load((ROOT / "examples" / "vera.yaml").read_text())
    grid |= {"suites": ["mini-image-text/nlvr2"], "recipe": RECIPE}
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(grid))
    flags = ["--method", "vera", "--data", world, "--out", "out", "--executor", "inline"]
    call("run", "g.yaml", *flags, path=[target])
    result = only_result(tmp_path / "out", "vera")
    assert result.spec["recipe"]["lr"] == 0.01
    assert result.parameters.groups["encoder.delta"] == 2 * 2 * (64 + 85)  # layers, projections, d and r


@everything  # tests/docs/ executes its pages
def test_the_loose_file_runs_with_a_flag(call, world, tmp_path):
    changes = [part for key, value in RECIPE.items() for part in ("--set", f"recipe.{key}={value}")]
    where = ["--suite", "mini-image-text/nlvr2", "--data", world, "--out", tmp_path / "out", "--executor", "inline"]
    plugin = ["--plugin", FILES["gated-adapter"]]
    call("run", "--method", "gated-adapter", *plugin, *where, *changes)
    only_result(tmp_path / "out", "gated-adapter")
    assert "ΔH = tanh(a) (W_u" in call("show", "gated-adapter", *plugin)


@everything
def test_a_task_with_its_metric_and_suite_in_one_file(call, tmp_path):
    changes = [part for key, value in RECIPE.items() for part in ("--set", f"recipe.{key}={value}")]
    out = tmp_path / "out"
    call(
        "run",
        "--suite",
        "counting",
        "--method",
        "lora",
        "--plugin",
        TASK,
        "--executor",
        "inline",
        "--out",
        out,
        *changes,
    )
    result = only_result(out, "lora")
    scores = result.metrics["counting"]
    assert {name: score.n for name, score in scores.items()} == {"accuracy": 100, "within-one": 100}
    assert result.breakdowns["counting"].keys() == {"colour"}
    recorded = call("score", out / f"{result.id}.json", "--plugin", TASK, "--format", "json")
    assert json.loads(recorded)[0]["values"] == {name: score.value for name, score in scores.items()}
    assert "counting" in call("list", "suites", "--plugin", TASK)


def test_what_the_task_counts(counting, tmp_path, monkeypatch):
    monkeypatch.setenv("PET_BENCH_CACHE", str(tmp_path))
    root, task = SUITES.get("counting").embedded(), TASKS.get("counting")()
    examples = task.examples(root, "test")
    for example in examples:
        (letter,) = (letter for letter in "rgb" if {"r": "red", "g": "green", "b": "blue"}[letter] in example.text)
        picture = task.feature_path(root, example.images[0]).read_text()
        assert picture.count(letter) == example.references["count"] == int(example.targets[0][0])
        assert task.feature(root, example.images[0])[:, "rgb".index(letter)].sum() == picture.count(letter)
    right = {example.id: example.targets[0][0] for example in examples}
    one_off = {id: str(int(answer) + 1) for id, answer in right.items()}
    assert task.score(right, examples).values == {"accuracy": 100.0, "within-one": 100.0}
    assert task.score(one_off, examples).values == {"accuracy": 0.0, "within-one": 100.0}
    assert task.score(dict.fromkeys(right, "many"), examples).values == {"accuracy": 0.0, "within-one": 0.0}


def test_a_damaged_file_of_the_task_is_named(counting, tmp_path):
    (tmp_path / "counting").mkdir()
    (tmp_path / "counting" / "test.csv").write_text("id,picture,colour,count\na,a,red,2\nb,b,red,many\n")
    with pytest.raises(UserError, match=r"counting: .*test.csv: line 3: expected id,picture,colour,count"):
        TASKS.get("counting")().examples(tmp_path, "test")


@pytest.mark.parametrize("family", ["bart", "t5"])
@pytest.mark.parametrize("name", FILES)
def test_the_properties_of_every_method(registered, family, name, tmp_path):
    properties.test_identity_at_start_where_claimed(family, name)
    properties.test_gradients_reach_exactly_what_is_declared(family, name)
    properties.test_save_and_load(family, name, tmp_path)
    properties.test_batch_and_padding_do_not_matter(family, name)
    properties.test_counts_add_up(family, name)
    properties.test_generation_agrees_with_teacher_forcing(family, name)
    properties.test_a_resolved_spec_is_the_same_method(family, name)
    properties.test_bfloat16_agrees(family, name)


@pytest.mark.parametrize("backbone", ["bart-base", "t5-base"])
def test_vera_counts(registered, backbone):
    """The paper's 0.043 M for RoBERTa-base are 12 layers of two projections; here are attentions of six or twelve."""
    assert round(12 * 2 * (768 + 1024) / 1e6, 3) == 0.043
    counts = count_parameters(backbone, MethodSpec("vera"), "image-text")
    attentions = {"bart-base": 6 + 12, "t5-base": 12 + 24}[backbone]
    assert counts["trainable"] - counts["groups"]["visual"] == attentions * 2 * (768 + 1024)
    bare = count_parameters(backbone, MethodSpec("projector-only"), "image-text")
    assert counts["total"] - bare["total"] == counts["trainable"] - bare["trainable"]


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_vera_is_its_formula_and_is_rebuilt_from_its_vectors(registered, family, tmp_path):
    model = tiny_model(family, "vera")
    with torch.no_grad():
        for parameter in trained_parameters(model).values():
            parameter.add_(0.1 * torch.randn_like(parameter))
        before = model(**tiny_batch())
    save_trained(model, tmp_path / "vectors.safetensors")
    again = tiny_model(family, "vera", seed=7)
    again.lm.load_state_dict(model.lm.state_dict())
    load_trained(again, tmp_path / "vectors.safetensors")
    with torch.no_grad():
        assert torch.equal(again(**tiny_batch()), before)
        undo = merge(again)
        torch.testing.assert_close(again(**tiny_batch()), before, atol=1e-4, rtol=1e-4)
        undo()
    (shared,) = model.pet["shared"].values()
    assert (shared.A.shape, shared.B.shape) == ((42, 32), (32, 42))
    module = model.pet["encoder"]["1"]["self_attn"]["value"]["0"].delta
    x = torch.randn(5, 32)
    by_hand = torch.diag(module.b) @ shared.B @ torch.diag(module.d) @ shared.A @ x.T
    torch.testing.assert_close(module(x), by_hand.T, atol=1e-5, rtol=1e-4)
    assert describe(MethodSpec("vera"), "bart-base", "image-text").inserts[0][1].endswith("(r = 1024)")
