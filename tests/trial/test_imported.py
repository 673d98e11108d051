"""Adapters of HF peft's, its own and those that trials exported, tested as trials."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

import pet_bench
from pet_bench.backbone import find_backbone
from pet_bench.backbone.loading import read_stock
from pet_bench.cli import main
from pet_bench.errors import UserError
from pet_bench.results import predictions, store
from pet_bench.spec import Runtime, TrialSpec
from pet_bench.trial.exported import write_adapter
from pet_bench.trial.imported import CONFIG, VISUAL, WEIGHTS, imported_spec
from pet_bench.trial.loaded import load_trial
from pet_bench.trial.run import run_trial
from tests.conftest import part
from tests.trial.test_exported import logits

SUITE = "mini-image-text/vqa"
PART = {"vqa": {"test": "karpathy_test[:10%]"}}


def predicted(out, result):
    return {id: text for id, (text, _) in predictions.read(out / result.predictions["vqa"]).items()}


@pytest.mark.parametrize(
    ("backbone", "method"),
    part([("mini-bart", "lora"), ("mini-bart", "peft:lora"), ("mini-t5", "dora"), ("mini-llama", "lora"),
          ("mini-llava", "lora"), ("mini-llama", "peft:ia3")], 3),
)  # fmt: skip
def test_what_a_trial_exports_answers_as_it_did(world, tmp_path, backbone, method):
    """The stock word tables of bart and t5 lack words, which are drawn: another seed would draw others."""
    trained = pet_bench.run_trial(
        backbone=backbone, suite=SUITE, method=method, seed=3, recipe={"lr": 0.01, "max_steps": 4, "valid_every": 0},
        out=tmp_path, data=world, device="cpu", threads=1, protocol=PART,
    )  # fmt: skip
    trial = load_trial(tmp_path / f"{trained.id}.json", data=world)
    write_adapter(trial, tmp_path / "adapter")
    spec = imported_spec(tmp_path / "adapter", SUITE, protocol=PART, recipe={"batch_size": 16})
    assert spec.backbone == backbone and spec.method.name.startswith("peft:") and spec.seed == 0
    result = run_trial(spec, Runtime(tmp_path, world, "cpu", 1), adapter_of=tmp_path / "adapter")
    assert result.status in store.FINISHED and result.cost.steps == 0 and not result.curve
    assert predicted(tmp_path, result) == predicted(tmp_path, trained)
    again = load_trial(tmp_path / f"{result.id}.json", data=world)
    assert torch.allclose(logits(again.model.lm, backbone), logits(trial.model.lm, backbone), atol=2e-4, rtol=1e-4)
    if visual := getattr(trial.model, "visual", None):
        assert all(torch.equal(a, b) for a, b in zip(visual.parameters(), again.model.visual.parameters(), strict=True))


@pytest.fixture
def theirs(tmp_path):
    """A folder that peft wrote, of an adapter of its own on a stock backbone, and what that computes."""

    def make(backbone="mini-llava", config=None, **more):
        targets = r".*language_model.*\.(q_proj|v_proj)"
        config = config or LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM", **more)
        torch.manual_seed(1)
        wrapper = get_peft_model(read_stock(find_backbone(backbone)).lm, config)
        with torch.no_grad():
            for name, one in wrapper.named_parameters():
                if "lora" in name or "ia3" in name:
                    one.add_(0.1 * torch.randn_like(one))
        wrapper.save_pretrained(str(tmp_path / "theirs"), save_embedding_layers=False)
        stock = PeftModel.from_pretrained(read_stock(find_backbone(backbone)).lm, str(tmp_path / "theirs"))
        return tmp_path / "theirs", logits(stock, backbone)

    return make


@pytest.mark.parametrize(
    "config",
    [
        None,
        IA3Config(target_modules=r".*language_model.*\.(k_proj|v_proj|down_proj)",
                  feedforward_modules=r".*language_model.*\.down_proj", task_type="CAUSAL_LM"),
    ],
)  # fmt: skip
def test_what_peft_trained_computes_what_it_does_there(world, tmp_path, theirs, config):
    folder, expected = theirs(config=config)
    spec = imported_spec(folder, SUITE, backbone="mini-llava", scope=("language",), protocol=PART)
    result = run_trial(spec, Runtime(tmp_path, world, "cpu", 1), adapter_of=folder)
    trial = load_trial(tmp_path / f"{result.id}.json")
    assert torch.allclose(logits(trial.model.lm, "mini-llava"), expected, atol=2e-4, rtol=1e-4)
    assert result.parameters.trainable == sum(one.numel() for one in load_file(folder / WEIGHTS).values())


def spoilt(value):
    def change(tensor):
        tensor.view(-1)[1] = value
        return tensor

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoilt(float("nan")), "has values that are not finite"),
        (spoilt(float("inf")), "has values that are not finite"),
        (torch.Tensor.int, "is of type torch.int32, expected a floating one"),
        (lambda tensor: tensor > 0, "is of type torch.bool, expected a floating one"),
        (lambda tensor: tensor[:-1].contiguous(), "size mismatch"),
        (torch.Tensor.bfloat16, None),
    ],
)
def test_an_adapters_values_are_looked_at(world, tmp_path, theirs, change, message):
    folder, _ = theirs()
    tensors = load_file(folder / WEIGHTS)
    first = next(iter(tensors))
    save_file(tensors | {first: change(tensors[first])}, folder / WEIGHTS)
    spec = imported_spec(folder, SUITE, backbone="mini-llava", scope=("language",), protocol=PART)
    runtime = Runtime(tmp_path, world, "cpu", 1)
    if message is None:
        assert run_trial(spec, runtime, adapter_of=folder).status in store.FINISHED
        return
    with pytest.raises(UserError, match=message) as caught:
        run_trial(spec, runtime, adapter_of=folder)
    assert all("\n" not in fault for fault in caught.value.faults)


def test_each_adapter_is_a_trial_of_its_own(theirs, tmp_path):
    folder, _ = theirs()
    same = imported_spec(folder, SUITE, backbone="mini-llava")
    shutil.copytree(folder, tmp_path / "copy")
    assert imported_spec(tmp_path / "copy", SUITE, backbone="mini-llava").id == same.id
    (tmp_path / "copy" / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes() + b" ")
    other = imported_spec(tmp_path / "copy", SUITE, backbone="mini-llava")
    assert other.id != same.id and "(copy)" in other.label
    assert type(same).from_dict(json.loads(json.dumps(same.to_dict()))) == same


def test_what_only_training_reads_cannot_be_set(theirs):
    folder, _ = theirs()
    with pytest.raises(UserError, match="this is not trained") as caught:
        imported_spec(folder, SUITE, backbone="mini-llava", recipe={"lr": 0.1, "epochs": 3, "batch_size": 8})
    assert [fault.split()[0] for fault in caught.value.faults] == ["recipe.epochs", "recipe.lr"]


def test_an_empty_backbone_is_not_none(theirs):
    folder, _ = theirs()
    changed(base_model_name_or_path="mini-llava")(folder)
    with pytest.raises(UserError, match='backbone ""'):
        imported_spec(folder, SUITE, backbone="")


def changed(**values):
    def change(folder):
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(config | values))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / CONFIG).unlink(), "adapter_config.json"),
        (lambda folder: (folder / CONFIG).write_text("{}"), "it has no peft_type"),
        (lambda folder: (folder / CONFIG).write_text("[1]"), "it has no peft_type"),
        (lambda folder: (folder / WEIGHTS).rename(folder / "adapter_model.bin"), "read from safetensors alone"),
        (changed(peft_type="NEWEST"), 'unknown peft type "newest"'),
        (changed(peft_type="XLORA"), "peft:xlora cannot be used here"),
        (changed(r="4"), "r: Input should be a valid integer"),
        (changed(layer_replication=[[0, 1]]), r"layer_replication is \[\[0, 1\]\], which cannot be had here"),
        (changed(of_tomorrow=7), "of_tomorrow is 7, which cannot be had here"),
        (changed(base_model_name_or_path=None), "does not say its backbone: give one with --backbone"),
        (changed(base_model_name_or_path=""), "does not say its backbone: give one with --backbone"),
        (changed(base_model_name_or_path="no-such"), 'unknown backbone "no-such"'),
    ],
)
def test_what_is_no_adapter_of_a_method_is_refused(theirs, change, message):
    folder, _ = theirs()
    changed(base_model_name_or_path="mini-llava")(folder)
    imported_spec(folder, SUITE)
    change(folder)
    with pytest.raises(UserError, match=message) as caught:
        imported_spec(folder, SUITE)
    assert all("\n" not in fault for fault in caught.value.faults)


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main([*map(str, arguments)])
    return stopped.value.code or 0, capsys.readouterr()


def test_by_command(world, tmp_path, theirs, capsys):
    """Tested, reported, and not run again without its folder; without the scope, a projector would count as trained."""
    folder, _ = theirs()
    line = ["import", folder, "--backbone", "mini-llava", "--suite", SUITE, "--data", world, "--device", "cpu",
            "--out", tmp_path / "out", "--set", "vqa.test=karpathy_test[:10%]"]  # fmt: skip
    code, said = call(capsys, *line)
    assert code == 2 and "does not hold lm.model.multi_modal_projector" in said.err and "--scope" in said.err
    assert not [*(tmp_path / "out").glob("*.json")]
    code, said = call(capsys, *line, "--scope", "language")
    assert code == 0 and "peft:lora [language] (theirs)" in said.out
    (result,) = store.load_all(tmp_path / "out").values()
    assert result.spec["imported"] and result.metrics["vqa"]
    code, said = call(capsys, "report", tmp_path / "out")
    assert code == 0 and "(theirs)" in said.out, said.err
    code, said = call(capsys, "results", "check", tmp_path / "out")
    assert code == 0
    with pytest.raises(UserError, match="run pet-bench import again"):
        pet_bench.run_trial(TrialSpec.from_dict(result.spec), out=tmp_path / "out", data=world)
    assert store.load_all(tmp_path / "out") == {result.id: result}  # and the result is as it was


def test_a_model_that_sees_through_what_is_not_there(world, tmp_path, theirs):
    targets = ["q_proj", "v_proj"]
    folder, _ = theirs("mini-bart", LoraConfig(r=4, target_modules=targets, task_type="SEQ_2_SEQ_LM"))
    spec = imported_spec(folder, SUITE, backbone="mini-bart", protocol=PART)
    with pytest.raises(UserError, match=f"{VISUAL} is missing: mini-bart sees through a visual embedding"):
        run_trial(spec, Runtime(tmp_path / "out", world, "cpu", 1), adapter_of=folder)
    assert not [*Path(tmp_path / "out").glob("*.json")]
