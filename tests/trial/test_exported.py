"""Models that others load: stock `from_pretrained` and peft's `PeftModel`, with the trial's own logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForSeq2SeqLM, AutoTokenizer

import pet_bench
from pet_bench.backbone import find_backbone, load
from pet_bench.backbone.loading import read_stock
from pet_bench.cli import main
from pet_bench.errors import UserError
from pet_bench.pet import attach, build_method
from pet_bench.spec import MethodSpec, Recipe, Runtime, TrialSpec
from pet_bench.trial.exported import VISUAL, write_adapter, write_merged
from pet_bench.trial.loaded import Loaded
from tests.pet.minis import SUITE, nudge

STOCK = {
    "mini-bart": AutoModelForSeq2SeqLM,
    "mini-t5": AutoModelForSeq2SeqLM,
    "mini-llama": AutoModelForCausalLM,
    "mini-llava": AutoModelForImageTextToText,
}
MERGED = [
    *((backbone, method) for backbone in STOCK for method in ("lora", "full", "projector-only")),
    ("mini-t5", "dora"),
    ("mini-bart", "bitfit"),
    ("mini-bart", "ia3"),
    ("mini-t5", "mtl-lora"),
]
ADAPTERS = [
    *((backbone, "lora") for backbone in STOCK),
    ("mini-t5", "dora"),
    ("mini-llama", "dora"),
    ("mini-bart", "dora"),
]


@pytest.fixture
def trained():
    """A trial of that method whose tensors are anywhere but where they start."""

    def make(backbone, method, **options):
        torch.manual_seed(0)
        found = find_backbone(backbone)
        model, tokenizer = load(found, SUITE.visual)
        attach(model, build_method(MethodSpec(method, options), model.anatomy).design(model.anatomy), SUITE.tasks)
        spec = TrialSpec(
            backbone=backbone, method=MethodSpec(method, options), suite=SUITE.name, tasks=SUITE.tasks,
            visual=SUITE.visual, seed=0, recipe=Recipe(lr=1e-3, epochs=1, batch_size=4),
        )  # fmt: skip
        return Loaded(nudge(model).eval(), tokenizer, spec, None, Runtime(Path()))

    return make


def words(backbone):
    """What the stock model of a backbone is called with."""
    text = torch.tensor([[5, 9, 33, 7, 21], [40, 6, 8, 99, 17]])
    given = {"input_ids": text, "attention_mask": torch.ones_like(text)}
    if STOCK[backbone] is AutoModelForSeq2SeqLM:
        given["decoder_input_ids"] = text.flip(1)
    return given


@torch.no_grad()
def logits(lm, backbone):
    return lm.eval()(**words(backbone)).logits


@pytest.mark.parametrize(("backbone", "method"), MERGED)
def test_stock_from_pretrained_computes_what_the_trial_does(trained, tmp_path, backbone, method):
    trial = trained(backbone, method)
    trial.model.context.task = task = SUITE.tasks[0] if method == "mtl-lora" else None
    expected = logits(trial.model.lm, backbone)
    write_merged(trial, tmp_path / "merged", task)
    theirs = STOCK[backbone].from_pretrained(tmp_path / "merged")
    assert torch.allclose(logits(theirs, backbone), expected, atol=2e-4, rtol=1e-4)
    assert torch.equal(logits(trial.model.lm, backbone), expected)  # and the trial's is as it was
    assert (
        logits(read_stock(find_backbone(backbone)).lm, backbone) - expected
    ).abs().max() > 0.01 or method == "projector-only"
    fed = trial.model.family.fed
    assert (tmp_path / "merged" / VISUAL).exists() is (fed == "features")
    if fed == "features":
        visual = load_file(tmp_path / "merged" / VISUAL)
        assert all(torch.equal(visual[f"visual.{name}"], one) for name, one in trial.model.visual.state_dict().items())
        text = "vqa: what color is the circle? <vis_extra_id_3>"
        theirs = AutoTokenizer.from_pretrained(tmp_path / "merged")
        assert theirs(text).input_ids == trial.tokenizer(text).input_ids


@pytest.mark.parametrize(("backbone", "method"), ADAPTERS)
def test_peft_computes_what_the_trial_does(trained, tmp_path, backbone, method):
    trial = trained(backbone, method)
    expected = logits(trial.model.lm, backbone)
    write_adapter(trial, tmp_path / "adapter")
    stock = read_stock(find_backbone(backbone)).lm
    theirs = PeftModel.from_pretrained(stock, str(tmp_path / "adapter"))
    assert torch.allclose(logits(theirs, backbone), expected, atol=2e-4, rtol=1e-4)
    assert torch.equal(logits(trial.model.lm, backbone), expected)
    assert {path.name for path in (tmp_path / "adapter").iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


@pytest.mark.parametrize("method", ["vl-pet-large", "adapter", "prompt-tuning", "lst", "prefix-tuning", "vl-adapter"])
@pytest.mark.parametrize("write", [write_merged, write_adapter])
def test_what_does_not_merge_or_is_no_low_rank_update_is_refused(trained, tmp_path, method, write):
    with pytest.raises(UserError, match=r"cannot be merged|peft's LoRA cannot hold it"):
        write(trained("mini-bart", method), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_stays_as_it_is(trained, tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    for write in (write_merged, write_adapter):
        with pytest.raises(FileExistsError):
            write(trained("mini-t5", "lora"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_from_a_finished_trial_by_command(world, tmp_path, capsys):
    """Twice: the second finds the folder filled, and says so; and what is no adapter is one line."""
    names = {"backbone": "mini-bart", "suite": "mini-image-text/vqa", "seed": 1}
    recipe = {"max_steps": 2, "valid_every": 0}
    ids = [
        pet_bench.run_trial(
            **names, method=method, recipe=recipe, out=tmp_path, data=world, device="cpu", threads=1,
            protocol={"vqa": {"test": "karpathy_test[:25%]"}},
        ).id
        for method in ("lora", "vl-adapter")
    ]  # fmt: skip

    def call(id, format):
        with pytest.raises(SystemExit) as stopped:
            main(["export", str(tmp_path / f"{id}.json"), "--format", format, "--out", str(tmp_path / format)])
        return stopped.value.code or 0, capsys.readouterr()

    assert call(ids[0], "merged")[0] == 0
    (folder,) = (tmp_path / "merged").iterdir()
    AutoModelForSeq2SeqLM.from_pretrained(folder)
    code, said = call(ids[0], "merged")
    assert code == 2 and "is not empty: remove it, or write to another folder with --out" in said.err
    assert call(ids[0], "peft-adapter")[0] == 0
    code, said = call(ids[1], "peft-adapter")
    assert code == 2 and "peft's LoRA cannot hold it" in said.err
