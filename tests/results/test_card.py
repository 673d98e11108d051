"""Model cards as the hub's own reader sees them, and the code in them run on real trials."""

from __future__ import annotations

import ast
import json
import re
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file, save_file

from pet_bench.backbone import find_backbone
from pet_bench.backbone.known import EXTRA_WORDS
from pet_bench.data.patches import patches
from pet_bench.data.suite import suite_by_name
from pet_bench.methods.lora import LoRA
from pet_bench.results import store
from pet_bench.results.card import CARD, card
from pet_bench.results.check import check
from pet_bench.results.exchange.model_index import to_model_index
from pet_bench.results.merge import merge
from pet_bench.results.schema import Plugin, Run
from pet_bench.trial import run
from pet_bench.trial.loaded import Loaded
from pet_bench.trial.run import run_trial
from tests.trial.conftest import cache, mini_trial, runtime, world  # noqa: F401

ODD = "lora(rank=8): 'a' \"b\" | `c` #d {e: [1, 2]} & *f* ---\n- g: %h @i π"


def test_the_hub_reads_its_metadata(make_result):
    result = make_result(vqa=60.0, gqa=40.0)
    found = ModelCard(card(result))
    data = found.data.to_dict()
    assert data["model-index"] == to_model_index([result])
    assert data["base_model"] == "facebook/bart-base"
    assert data["library_name"] == "pet-bench"
    assert data["language"] == "en"
    assert data["metrics"] == ["accuracy"]
    assert {"pet-bench", "parameter-efficient-tuning", "lora"} <= set(data["tags"])
    assert "license" not in data and "datasets" not in data


def test_it_says_what_the_result_says(make_result):
    result = make_result(vqa=61.25, gqa=40.0, majority=25.5)
    result.provenance.plugins = [Plugin(module="mine.py", digest="ab" * 32, provides=['task "vqa"'])]
    text = ModelCard(card(result)).text
    for said in (result.id, "LoRA (Hu et al., ICLR 2022)", "`rank = 128`", "10 of 1,000 parameters", "1.00 %",
                 "| vqa | accuracy | test | 61.25 | 25.50 | 7 |", "Average over tasks: 50.62", "lr = 0.001",
                 "commit `c0`", "`d0`", 'task "vqa": mine.py abababa', f"torch {version('torch')}"):  # fmt: skip
        assert said in text, said
    for unsaid in ("Suspect", "mini world", "Note", "control"):
        assert unsaid not in text, unsaid


@pytest.fixture
def make_result(make_result):
    """With the options of its method, as every resolved trial has them."""
    from pet_bench.spec import MethodSpec
    from pet_bench.trial.resolve import resolve

    def make(**change):
        result = make_result(**change)
        method = MethodSpec(result.spec["method"]["name"])
        full = resolve(result.spec["backbone"], method, "image-text", 0, recipe={"lr": 1e-3}).to_dict()
        result.spec["method"] = full["method"]
        return result

    return make


def test_odd_names_stay_what_they_are(make_result):
    result = make_result(label=ODD)
    result.spec["protocol"] = {"vqa": {"prompt": "a: 'b' | \"c\"\n---\n"}}
    result.metrics["gqa"]["x | y"] = result.metrics["gqa"]["extra"]
    found = ModelCard(card(result))
    assert found.data.to_dict()["model-index"] == to_model_index([result])
    assert found.data.eval_results[0].dataset_args["prompt"] == "a: 'b' | \"c\"\n---\n"
    title = next(line for line in found.text.splitlines() if line.startswith("# "))
    assert title == f"# `` {' '.join(ODD.split())} `` on `bart-base`, image-text, seed 0"
    (row,) = (line for line in found.text.splitlines() if "x \\| y" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) == 7


def test_a_suspect_result_and_notes_are_said_first(make_result):
    error = 'vqa: all 7 predictions are "true"'
    text = card(make_result(status="suspect", error=error, run=Run(notes=["the checkpoint was damaged"])))
    found = ModelCard(text)
    assert "suspect" in found.data.tags
    opening = found.text.partition("## ")[0]
    assert f"**Suspect**: {error}." in opening
    assert "**Note**: the checkpoint was damaged." in opening


@pytest.mark.parametrize("suite", ["mini-image-text", "mini-video-text"])
def test_a_mini_world_is_called_one(make_result, suite):
    result = make_result(backbone="mini-bart")
    result.spec["suite"] = suite
    found = ModelCard(card(result))
    assert "base_model" not in found.data.to_dict()
    assert "mini-world" in found.data.tags
    assert "The data are a mini world" in found.text.partition("## Limits")[2]


def test_a_control_is_called_one(make_result):
    found = ModelCard(card(make_result(control="noise")))
    assert "noise" in found.data.tags
    assert "noise control" in found.text.partition("## ")[0]


def test_times_do_not_change_it(make_result):
    result = make_result()
    other = result.model_copy(deep=True)
    other.provenance.started, other.provenance.finished = ["2027-01-01T00:00:00+00:00"] * 2
    other.cost.train_seconds = 99.0
    assert card(other) == card(result)


# in trials


def code_of(folder: Path) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", (folder / CARD).read_text(), re.DOTALL)
    return code


@pytest.fixture
def stock(tmp_path):
    """mini-bart as one downloads it: without the extra words, which are then drawn at random."""
    mini, folder = Path(find_backbone("mini-bart").source), tmp_path / "stock"
    shutil.copytree(mini, folder)
    tokenizer, config = (json.loads((mini / f"{name}.json").read_text()) for name in ("tokenizer", "config"))
    rows = config["vocab_size"] - len(EXTRA_WORDS)
    kept = [token for token in tokenizer["added_tokens"] if token["content"] not in EXTRA_WORDS]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer | {"added_tokens": kept}))
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": rows}))
    tensors = load_file(mini / "model.safetensors")
    cut = {name: t[..., :rows] if name == "final_logits_bias" else t for name, t in tensors.items()}
    cut |= {name: t[:rows].clone() for name, t in tensors.items() if len(t) == config["vocab_size"]}
    save_file({name: t.contiguous() for name, t in cut.items()}, folder / "model.safetensors", {"format": "pt"})
    return str(folder)


@pytest.mark.parametrize("method", ["vl-adapter", "hyperformer", "peft:vera"])
def test_its_code_asks_the_model_that_was_tested(method, stock, mini_trial, runtime, monkeypatch):  # noqa: F811
    spec = mini_trial(method, stock, suite="mini-image-text/nlvr2", seed=3, recipe={"max_steps": 2})
    tested, test = {}, run.test

    def seen(trial, folder):
        tested.update({name: tensor.clone() for name, tensor in trial.model.state_dict().items()})
        return test(trial, folder)

    monkeypatch.setattr(run, "test", seen)
    run_trial(spec, runtime)
    torch.manual_seed(99)
    monkeypatch.chdir(runtime.out / spec.id)
    made = []
    monkeypatch.setattr(Loaded, "predict", lambda loaded, examples, task: made.append((loaded, examples, task)))
    code = code_of(Path())
    assert len(code.splitlines()) == 2
    exec(code, {"image": "a picture"})
    ((loaded, examples, task),) = made
    state = loaded.model.state_dict()
    assert state.keys() == tested.keys()
    assert not [name for name in tested if not torch.equal(state[name], tested[name])]
    assert not loaded.model.training
    assert (task, [one["image"] for one in examples]) == ("nlvr2", ["a picture"])
    if method == "peft:vera":
        assert (Path() / CARD).read_text().startswith("---\nlibrary_name: pet-bench\n")
        assert not (Path("peft") / CARD).exists()


@pytest.mark.parametrize(("suite", "image"), [("mini-image-text/vqa", "picture"), ("mini-image-text/gqa", "features")])
def test_its_code_answers(suite, image, mini_trial, runtime, monkeypatch):  # noqa: F811
    spec = mini_trial("lora", suite=suite, recipe={"max_steps": 1})
    run_trial(spec, runtime)
    monkeypatch.chdir(runtime.out / spec.id)
    picture = next((runtime.data / "COCO" / "images").glob("*.png"))
    with Image.open(picture) as pixels:
        given = {"picture": picture, "features": patches(pixels)}[image]
    *before, call = ast.parse(code_of(Path())).body
    space = {"image": given}
    exec(compile(ast.Module(before, []), CARD, "exec"), space)
    (answer,) = eval(compile(ast.Expression(call.value), CARD, "eval"), space)
    assert isinstance(answer, str)
    assert ("the path of a picture" in (Path() / CARD).read_text()) == bool(suite_by_name(suite).extractor)


def test_the_code_of_a_plug_in_loads_it_first(make_result, monkeypatch):
    monkeypatch.setattr(LoRA, "__module__", "my_plugin")
    lines = re.findall(r"```python\n(.*?)```", card(make_result()), re.DOTALL)[0].splitlines()
    assert lines[0] == "import pet_bench"
    assert lines[3].startswith('load_plugin("my_plugin.py")') and lines[4].startswith("pet_bench.load_trial(")


def test_it_comes_with_every_trained_tensor_and_before_the_result(mini_trial, runtime, monkeypatch):  # noqa: F811
    spec = mini_trial("lora", suite="mini-image-text/nlvr2", recipe={"max_steps": 1})
    file, save = runtime.out / spec.id / CARD, store.save

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        run_trial(spec, runtime)
    assert store.load_all(runtime.out) == {}
    file.write_text("of another time")
    monkeypatch.setattr(store, "save", save)
    result = run_trial(spec, runtime)
    assert file.read_text() == card(result)
    assert yaml.safe_load(file.read_text().split("---\n")[1])["model-index"] == to_model_index([result])
    assert check(runtime.out) == []
    assert merge([runtime.out], runtime.out / "again").copied.keys() == {spec.id}
    assert (runtime.out / "again" / spec.id / CARD).read_bytes() == file.read_bytes()


def test_none_where_there_is_nothing_to_load(mini_trial, runtime, monkeypatch):  # noqa: F811
    recipe = {"lr": 4e9, "max_steps": None, "epochs": 3, "batch_size": 200, "warmup": 1.0}
    spec = mini_trial("full", suite="mini-image-text/vqa", recipe=recipe)
    folder = runtime.out / spec.id
    folder.mkdir(parents=True)
    for name in ("adapter.safetensors", CARD):
        (folder / name).write_text("of an earlier attempt")
    assert run_trial(spec, runtime).status == "suspect"
    assert list(folder.iterdir()) == []


def test_none_beside_tensors_that_could_not_be_scored(mini_trial, runtime, monkeypatch):  # noqa: F811
    spec = mini_trial("lora", suite="mini-image-text/nlvr2", recipe={"max_steps": 1})
    folder = runtime.out / spec.id
    folder.mkdir(parents=True)
    (folder / CARD).write_text("of an earlier attempt")

    def fail(*_, **__):
        raise ValueError("no score")

    monkeypatch.setattr(run, "evaluate", fail)
    with pytest.raises(ValueError, match="no score"):
        run_trial(spec, runtime)
    assert (folder / "adapter.safetensors").exists()
    assert not (folder / CARD).exists()
