"""Short trials from spec to result on the mini world."""

from __future__ import annotations

import shutil
from dataclasses import replace
from hashlib import sha256
from operator import itemgetter

import pytest
import torch
from safetensors.torch import load_file

from pet_bench.backbone import Reader, find_backbone, load
from pet_bench.backbone.reader import clean_up
from pet_bench.data.reading import build_tasks, read_data
from pet_bench.data.store import FeatureStore
from pet_bench.errors import UserError
from pet_bench.pet import attach, build_method, load_trained, trained_parameters
from pet_bench.registry import METHODS, load_plugin
from pet_bench.results import predictions as saved
from pet_bench.results import store
from pet_bench.results.schema import Selected, TrialResult
from pet_bench.spec import Runtime
from pet_bench.trial import run
from pet_bench.trial import train as training
from pet_bench.trial.build import Trial, build_trial, seed_everything
from pet_bench.trial.check import check_data
from pet_bench.trial.evaluate import predict
from pet_bench.trial.run import run_trial
from pet_bench.trial.train import build_optimizer, train
from tests.conftest import one_each, part

FINISHED = ("done", "suspect")  # a few updates may leave a model that gives one answer to all


BACKBONES = ("mini-bart", "mini-t5")


@pytest.mark.parametrize("backbone", part(BACKBONES, 1))
def test_from_spec_to_result(backbone, mini_trial, runtime):
    spec, seen = mini_trial(backbone=backbone), []
    result = run_trial(spec, runtime, seen.append)
    assert store.load(runtime.out / f"{spec.id}.json") == result
    assert result.status in FINISHED
    assert list(result.metrics) == ["vqa", "gqa", "nlvr2", "coco-caption"]
    assert result.cost.steps == 8 == max(p.step for p in seen if p.phase == "train")
    assert all(p.examples_per_second > 0 for p in seen if p.phase == "train")
    assert result.cost.adapter_bytes == (runtime.out / spec.id / "adapter.safetensors").stat().st_size
    assert sum(result.parameters.groups.values()) == result.parameters.trainable
    assert result.metrics["vqa"]["accuracy"].options == {"version": "2016"}
    assert result.metrics["coco-caption"]["CIDEr"].options == {"tokenizer": "ptb"}
    assert result.metrics["nlvr2"]["accuracy"].options == {}
    primaries = [next(iter(metrics.values())) for metrics in result.metrics.values()]
    assert result.average == pytest.approx(sum(score.value for score in primaries) / 4)
    for task, score in zip(result.metrics, primaries, strict=True):
        rows = saved.read(runtime.out / result.predictions[task])
        assert len(rows) == score.n
        mean = sum(score for _, score in rows.values()) / len(rows)
        assert score.value == pytest.approx(100 * mean if mean <= 1 and task != "coco-caption" else mean, abs=0.01)


def test_without_task_prompts(mini_trial, runtime):
    spec = mini_trial(
        {"name": "hyperformer", "task_prompts": False},
        suite="mini-image-text/vqa+coco-caption",
        recipe={"max_steps": 2},
    )
    data = read_data(spec, runtime)
    texts = {task: {e.text for part in parts.values() for e in part} for task, parts in data.examples.items()}
    assert texts["coco-caption"] == {""}
    assert not any(text.startswith("vqa") for text in texts["vqa"])
    result = run_trial(spec, runtime)
    assert result.status in FINISHED
    assert result.spec["protocol"] == {"vqa": {"prompt": ""}, "coco-caption": {"prompt": ""}}


def test_named_differences_are_recorded(mini_trial, runtime):
    small = {"name": "vl-pet-small", "gate_padding": "masked"}
    result = run_trial(mini_trial(small, suite="mini-image-text/nlvr2", recipe={"max_steps": 1}), runtime)
    assert result.behaviour == {"small-gate-padding": "intended"}
    old = {key: value for key, value in result.model_dump(mode="json").items() if key != "behaviour"}
    assert TrialResult.model_validate(old).behaviour == {}


def test_code_of_others_is_recorded(mini_trial, runtime, tmp_path, monkeypatch):
    text = """
from pet_bench.methods.bitfit import BitFit
class Mine(BitFit):
    name = "mine"
from pydantic.dataclasses import dataclass
from pet_bench.spec import STRICT
Mine = dataclass(frozen=True, kw_only=True, config=STRICT)(Mine)
"""
    (tmp_path / "mine.py").write_text(text)
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS.entries))
    load_plugin(str(tmp_path / "mine.py"))
    one = {"suite": "mini-image-text/vqa", "recipe": {"max_steps": 1}}
    assert run_trial(mini_trial("bitfit", **one), runtime).provenance.plugins == []
    (plugin,) = run_trial(mini_trial("mine", **one), runtime).provenance.plugins
    assert (plugin.module, plugin.provides) == ("mine.py", ['method "mine"'])
    assert plugin.digest == sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(("selection", "tested"), [("best", 1), ("last", 3)])
def test_the_best_model_by_validation_is_the_one_tested(selection, tested, mini_trial, runtime, monkeypatch):
    """Validation says 10, 30, 30, 20: what is tested is the model as it was the second time."""
    recipe = {"selection": selection, "valid_every": 1, "max_steps": None, "epochs": 4, "batch_size": 200}
    spec = mini_trial("lora", suite="mini-image-text/vqa", recipe=recipe)
    validated, evaluated = [], run.evaluate

    def scripted(trial, task, split, keep=None):
        predictions, scores = evaluated(trial, task, split, keep)
        if split == "valid":
            value = (10.0, 30.0, 30.0, 20.0)[len(validated)]
            validated.append({n: p.detach().clone() for n, p in trained_parameters(trial.model).items()})
            return predictions, replace(scores, values=scores.values | {"accuracy": value})
        assert all(torch.equal(p, validated[tested][n]) for n, p in trained_parameters(trial.model).items())
        return predictions, scores

    for module in (training, run):
        monkeypatch.setattr(module, "evaluate", scripted)
    result = run_trial(spec, runtime)
    chosen = Selected(step=result.cost.steps // 2, epoch=2.0, score=30.0)
    assert len(validated) == 4
    assert result.selected == (chosen if selection == "best" else None)
    assert store.load(runtime.out / f"{spec.id}.json") == result
    assert load_file(runtime.out / spec.id / "adapter.safetensors").keys() == validated[tested].keys()
    for name, tensor in load_file(runtime.out / spec.id / "adapter.safetensors").items():
        assert torch.equal(tensor, validated[tested][name])


@pytest.mark.parametrize("backbone", ["mini-bart", "mini-t5"])
@pytest.mark.parametrize("decay_norms", [True, False])
def test_weight_decay_of_layer_norms(backbone, decay_norms, mini_trial):
    spec = mini_trial("full", backbone=backbone, suite="mini-image-text/vqa", recipe={"decay_norms": decay_norms})
    model, _ = load(find_backbone(backbone), spec.visual)
    attach(model, build_method(spec.method, model.anatomy).design(model.anatomy), spec.tasks)
    decayed, spared = build_optimizer(model, spec.recipe).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.01, 0.0)
    names = {id(p): name for name, p in model.named_parameters()}
    gains = {name for name in names.values() if "norm" in name.lower() and name.endswith("weight")}
    assert len(gains) > 8
    assert gains <= {names[id(p)] for p in (decayed if decay_norms else spared)["params"]}
    assert all("bias" not in names[id(p)] for p in decayed["params"])


def test_a_checkpoints_own_generation_settings_can_be_off(mini_trial):
    """As in facebook/bart-base's configuration: no three words twice."""
    spec = mini_trial("lora", suite="mini-image-text/vqa")
    model, tokenizer = load(find_backbone("mini-bart"), spec.visual)
    attach(model, build_method(spec.method, model.anatomy).design(model.anatomy), spec.tasks)
    model.lm.generation_config.no_repeat_ngram_size = 1
    text = tokenizer(["caption: "], return_tensors="pt").input_ids
    visual = torch.zeros(1, 1, spec.visual.tokens, spec.visual.width)
    own, plain = (
        model.eval().generate({"text": text, "features": visual}, num_beams=1, max_length=30, plain=plain)[0].tolist()
        for plain in (False, True)
    )
    assert len(set(own[1:])) == len(own[1:])
    assert len(set(plain[1:])) < len(plain[1:])


@pytest.mark.parametrize("method", part(["full", "lora", "vl-pet-large"], 1))
def test_equal_specs_give_equal_numbers(method, mini_trial, runtime, tmp_path):
    spec = mini_trial(method, suite="mini-image-text/vqa", recipe={"max_steps": 4})
    first = run_trial(spec, runtime)
    again = run_trial(spec, Runtime(out=tmp_path / "again", data=runtime.data, device="cpu", threads=1))
    assert again.metrics == first.metrics
    assert again.curve == first.curve
    for name in ("adapter.safetensors", "predictions.vqa.jsonl.gz"):
        assert (tmp_path / "again" / spec.id / name).read_bytes() == (runtime.out / spec.id / name).read_bytes()


def test_the_saved_adapter_predicts_the_same(mini_trial, runtime):
    spec = mini_trial("vl-adapter", suite="mini-image-text/nlvr2")
    run_trial(spec, runtime)
    backbone = find_backbone(spec.backbone)
    torch.manual_seed(99)
    model, tokenizer = load(backbone, spec.visual)
    attach(model, build_method(spec.method, backbone.anatomy).design(backbone.anatomy))
    load_trained(model, runtime.out / spec.id / "adapter.safetensors")
    data = read_data(spec, runtime)
    trial = Trial(spec, model, Reader(tokenizer), data, torch.device("cpu"), print)
    predictions = predict(
        model, Reader(tokenizer), trial.batches(data.tasks[0], "test"), spec.recipe.batch_size, spec.recipe
    )
    written = saved.read(runtime.out / saved.name(spec.id, "nlvr2"))
    assert predictions == {id: text for id, (text, _) in written.items()}


FALLS = [(m, b) for m in ("full", "projector-only", "vl-adapter", "lora", "vl-pet-large") for b in BACKBONES]


@pytest.mark.parametrize(("method", "backbone"), one_each(FALLS, itemgetter(0), "falls"))
def test_the_loss_falls(method, backbone, mini_trial, runtime):
    recipe = {"max_steps": None, "epochs": 3, "batch_size": 48}
    spec = mini_trial(method, backbone, suite="mini-image-text/vqa+nlvr2", recipe=recipe)
    seed_everything(0)
    model, tokenizer = load(find_backbone(backbone), spec.visual)
    attach(model, build_method(spec.method, model.anatomy).design(model.anatomy))
    trial = Trial(spec, model, Reader(tokenizer), read_data(spec, runtime), torch.device("cpu"), lambda progress: None)
    train(trial)
    first, last = ([p.loss for p in trial.curve if epoch - 1 < p.epoch <= epoch] for epoch in (1, 3))
    assert sum(last) / len(last) < sum(first) / len(first)


def test_text_only_sees_no_image(mini_trial, runtime):
    data = read_data(mini_trial(), runtime)
    model, tokenizer = load(find_backbone("mini-bart"), mini_trial().visual)
    for control, seen in (("none", True), ("text-only", False), ("noise", True)):
        trial = Trial(mini_trial(control=control), model, Reader(tokenizer), data, torch.device("cpu"), print)
        batch = next(trial.batches(data.tasks[0], "test").eval_batches(4))
        assert bool(batch.tensors["features"].abs().sum() > 0) == seen


def test_validation_goes_onto_the_curve(mini_trial, runtime):
    spec = mini_trial(suite="mini-image-text/gqa+nlvr2", recipe={"valid_every": 1, "epochs": 2, "max_steps": None,
                                                                 "batch_size": 400})  # fmt: skip
    curve = run_trial(spec, runtime).curve
    assert [(p.epoch, p.task) for p in curve if p.split == "valid"] == [
        (1.0, "gqa"), (1.0, "nlvr2"), (2.0, "gqa"), (2.0, "nlvr2"),
    ]  # fmt: skip
    assert all("accuracy" in p.metrics for p in curve if p.split == "valid")


def test_checks_of_several_suites_report_together(mini_trial, runtime, world, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(world, broken)
    (broken / "GQA" / "testdev.json").unlink()
    feature = next((broken / "nlvr").rglob("*.h5"))
    feature.write_bytes(feature.read_bytes()[:200])
    specs = [mini_trial(suite="mini-image-text/gqa"), mini_trial(suite="mini-image-text/nlvr2")]
    with pytest.raises(UserError) as error:
        check_data(specs, Runtime(out=tmp_path / "out", data=broken))
    assert len(error.value.faults) == 2
    assert "testdev.json" in error.value.faults[0]
    assert feature.name in error.value.faults[1]


@pytest.mark.parametrize("resident", [True, False])
def test_features_go_to_the_device_where_that_is_wanted(resident, mini_trial, runtime, monkeypatch):
    asked = []
    monkeypatch.setattr(FeatureStore, "to", lambda store, device: asked.append(device))
    build_trial(mini_trial("lora", suite="mini-image-text/vqa"), replace(runtime, resident=resident))
    assert bool(asked) == resident


def test_no_data_and_no_device(mini_trial, runtime, tmp_path):
    real = mini_trial(suite="image-text", backbone="mini-bart")
    with pytest.raises(UserError, match='suite "image-text" has no embedded data: say with --data'):
        check_data([real], Runtime(out=tmp_path))
    with pytest.raises(UserError, match=r"data folder .* does not exist"):
        check_data([real], Runtime(out=tmp_path, data=tmp_path / "nowhere"))
    with pytest.raises(UserError, match='device "tpu9" cannot be used'):
        run_trial(mini_trial(), Runtime(out=tmp_path, data=runtime.data, device="tpu9"))


def test_tasks_of_a_protocol():
    (task,) = build_tasks(("gqa",), {"gqa": {"prompt": "gqa: "}})
    assert task.prompt == "gqa: "


def test_clean_up_is_that_of_the_published_runs():
    """TASKS.md section 0.5."""
    assert (
        clean_up("a dog , it 's here . is n't it ? we 've ' seen ' it !")
        == "a dog, it's here. isn't it? we've'seen'it!"
    )
