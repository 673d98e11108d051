"""What a method forgets, against the stock model asked by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from pet_bench.backbone import Reader, find_backbone
from pet_bench.backbone.knowledge import MOST_LINES, TEXT, Knowledge, digest, knowledge_of
from pet_bench.cli import main
from pet_bench.errors import UserError
from pet_bench.mini.knowledge import knowledge
from pet_bench.pet import attach_method, build_method, design_of
from pet_bench.pet.method import why_skipped
from pet_bench.registry import METHODS
from pet_bench.spec import MethodSpec
from pet_bench.trial import forgetting as module
from pet_bench.trial.checkpoint import generators
from pet_bench.trial.forgetting import losses, stock_losses
from pet_bench.trial.run import run_trial
from pet_bench.trial.shared import Shared
from tests.backbone.checkpoints import write
from tests.pet.minis import mini, nudge, stock

CPU = torch.device("cpu")
SHORT = {"max_steps": 2}
KINDS = [TEXT, "vqa", "gqa", "nlvr2", "coco-caption"]


def by_hand(name: str, pairs) -> float:
    """Mean loss a token of answers to prompts, one at a time, of `transformers`' own model and loss."""
    folder = find_backbone(name).source
    tokenizer = AutoTokenizer.from_pretrained(folder)
    total, tokens = 0.0, 0
    for prompt, answer in pairs:
        if name == "mini-llama":
            read = [tokenizer.bos_token_id, *tokenizer(prompt, add_special_tokens=False).input_ids]
            said = [*tokenizer(answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
            logits = _lm(name)(input_ids=torch.tensor([read + said])).logits[0, len(read) - 1 : -1]
            total += F.cross_entropy(logits, torch.tensor(said), reduction="sum").item()
        else:
            said = tokenizer(answer).input_ids
            ids = torch.tensor([tokenizer(prompt).input_ids])
            total += _lm(name)(input_ids=ids, labels=torch.tensor([said])).loss.item() * len(said)
        tokens += len(said)
    return total / tokens


@cache
def _lm(name):
    kind = AutoModelForCausalLM if name == "mini-llama" else AutoModelForSeq2SeqLM
    return kind.from_pretrained(find_backbone(name).source, dtype=torch.float32).eval()


@pytest.mark.parametrize("name", ["mini-bart", "mini-t5", "mini-llama"])
@torch.no_grad()
def test_the_stock_loss_is_that_of_transformers(name, mini_trial, runtime):
    found = stock_losses(mini_trial(backbone=name), runtime, Shared())
    assert list(found) == KINDS
    for kind in ("vqa", "coco-caption"):
        assert found[kind][0] == pytest.approx(by_hand(name, knowledge().tasks[kind]), rel=1e-4)
    if name == "mini-llama":  # which writes lines from nothing
        assert found[TEXT][0] == pytest.approx(by_hand(name, knowledge().kinds[TEXT]), rel=1e-4)
    assert found["vqa"][0] < 0.5  # it knows


@pytest.mark.parametrize(("name", "mask"), [("mini-bart", "<mask>"), ("mini-t5", "<extra_id_0>")])
@torch.no_grad()
def test_text_is_denoised_as_in_pre_training(name, mask, mini_trial, runtime):
    """The stock model restores it far better than where as much of it is hidden and nothing is to be seen."""
    spec, known = mini_trial(backbone=name), knowledge()
    loss, tokens = stock_losses(spec, runtime, Shared())[TEXT]
    model, tokenizer = stock(name.removeprefix("mini-"))
    reader = model.family.reader(tokenizer)
    pairs = reader.recalled(known.lines, 256, Random(digest(known.kinds[TEXT])))
    marked = [tokenizer.decode(source) for source, _ in pairs]
    assert sum(mask in line for line in marked) > len(marked) / 2
    total = 0.0
    for source, target in pairs:
        labels = torch.tensor([target])
        total += _lm(name)(input_ids=torch.tensor([source]), labels=labels).loss.item() * len(target)
    assert loss == pytest.approx(total / tokens, rel=1e-4)
    assert tokens == sum(len(target) for _, target in pairs)


def test_the_exercises_are_always_the_same():
    """Results on others could not be compared with those that there are."""
    assert {kind: digest(pairs) for kind, pairs in knowledge().kinds.items()} == {
        TEXT: "611303a91728",
        "vqa": "96dcca6e3265",
        "gqa": "0980d57cbb3a",
        "nlvr2": "fe9c74599eae",
        "coco-caption": "4d1289995d98",
    }
    assert {kind: len(pairs) for kind, pairs in knowledge().kinds.items()} == {
        kind: 64 if kind == TEXT else 32 for kind in KINDS
    }


@pytest.mark.parametrize("name", ["mini-bart", "mini-t5"])
def test_what_trains_only_where_images_enter_forgets_nothing(name, mini_trial, runtime):
    result = run_trial(mini_trial("projector-only", name, suite="mini-image-text/vqa", recipe=SHORT), runtime)
    assert list(result.forgetting) == KINDS
    assert all(losses.after == losses.before for losses in result.forgetting.values())
    assert not result.run.notes


def test_what_changes_the_backbone_forgets(mini_trial, runtime):
    shared = Shared()
    recipe = {"max_steps": 12, "lr": 1e-2}
    full = run_trial(mini_trial("full", suite="mini-image-text/vqa", recipe=recipe), runtime, shared=shared)
    assert full.forgetting[TEXT].after > full.forgetting[TEXT].before + 0.1
    again = run_trial(mini_trial("lora", suite="mini-image-text/vqa", recipe=SHORT), runtime, shared=shared)
    for kind in KINDS:
        assert again.forgetting[kind].before == full.forgetting[kind].before
        assert again.forgetting[kind].after != again.forgetting[kind].before
        assert again.forgetting[kind].text == digest(knowledge().kinds[kind])


def test_trials_of_a_backbone_share_the_loss_before(mini_trial, runtime, monkeypatch):
    asked, real = [], module.load
    monkeypatch.setattr(module, "load", lambda backbone, *rest: asked.append(backbone.name) or real(backbone, *rest))
    shared = Shared()
    first = stock_losses(mini_trial("lora"), runtime, shared)
    assert stock_losses(mini_trial("full", seed=3, recipe={"lr": 1.0}), runtime, shared) == first
    assert asked == ["mini-bart"]
    assert stock_losses(mini_trial(backbone="mini-t5"), runtime, shared) != first
    assert asked == ["mini-bart", "mini-t5"]


def test_nothing_else_of_a_trial_changes(mini_trial, runtime, monkeypatch):
    spec = mini_trial("lora", suite="mini-image-text/vqa", recipe={"max_steps": 3})
    before = generators(CPU)
    stock_losses(spec, runtime, Shared())
    assert {key: repr(value) for key, value in generators(CPU).items()} == {
        key: repr(value) for key, value in before.items()
    }
    measured = run_trial(spec, runtime)
    monkeypatch.setattr(module, "knowledge_of", lambda *given: None)
    plain = run_trial(spec, replace(runtime, out=runtime.out / "plain"))
    assert measured.forgetting and not plain.forgetting
    same = {"id", "spec", "metrics", "breakdowns", "average", "curve", "parameters"}
    assert measured.model_dump(include=same) == plain.model_dump(include=same)
    for name in ("adapter.safetensors", "predictions.vqa.jsonl.gz"):
        assert (runtime.out / spec.id / name).read_bytes() == (runtime.out / "plain" / spec.id / name).read_bytes()


# a text of one's own --------------------------------------------------------------------------------------------------


def test_a_file_takes_the_place_of_the_text(tmp_path, mini_trial, runtime):
    file = tmp_path / "wiki.txt"
    file.write_text("there is a red circle.\n\n  a picture of a blue square.  \n")
    spec, given = mini_trial(backbone="mini-llama"), replace(runtime, forgetting=file)
    found, own = stock_losses(spec, given, Shared()), stock_losses(spec, runtime, Shared())
    lines = (("", "there is a red circle."), ("", "a picture of a blue square."))
    assert found[TEXT][0] == pytest.approx(by_hand("mini-llama", lines), rel=1e-4)
    assert found["vqa"] == own["vqa"]
    assert found[TEXT] != own[TEXT]


def test_a_backbone_that_says_nothing_is_asked_nothing(tmp_path):
    backbone = replace(find_backbone("mini-bart"), knows="")
    assert knowledge_of(backbone) is None
    file = tmp_path / "wiki.txt"
    file.write_text("a line")
    assert knowledge_of(backbone, file) == Knowledge(("a line",))


FAULTS = {
    "missing": (None, "is missing"),
    "empty": (b"\n \n", "has 0 lines that are not empty (possible: 1 to 1,000)"),
    "long": (b"a\n" * (MOST_LINES + 1), "has 1,001 lines"),
    "latin": ("é".encode("latin-1"), "is not UTF-8 text"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
}


@pytest.mark.parametrize("content", FAULTS)
def test_a_file_that_is_no_such_text_is_refused(content, tmp_path):
    file, (bytes_, said) = tmp_path / "wiki.txt", FAULTS[content]
    if bytes_ is not None:
        file.write_bytes(bytes_)
    with pytest.raises(UserError, match=f'^text "{Path(file)}" ') as error:
        knowledge_of(find_backbone("mini-bart"), file)
    assert said in str(error.value)


def test_the_command_refuses_it_before_anything_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["run", "--method", "lora", "--forgetting", "wiki.txt", "--out", "results"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == 'pet-bench: error: text "wiki.txt" is missing\n'
    assert not [*tmp_path.iterdir()]


def test_words_that_a_vocabulary_grew_by_cannot_be_said(tmp_path, mini_trial, runtime):
    """They are random, others in every trial; the stock model does not have them."""
    folder, file = write(tmp_path / "checkpoint", "bart", grown=False), tmp_path / "text.txt"
    file.write_text("there is a red circle and a small blue square.")
    spec = mini_trial("projector-only", str(folder), suite="mini-image-text/vqa", recipe=SHORT)
    result = run_trial(spec, replace(runtime, forgetting=file))
    losses = result.forgetting[TEXT]
    assert losses.after == losses.before
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ((source, target),) = Reader(tokenizer).recalled([file.read_text()], 256, Random(losses.text))
    lm = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = lm(input_ids=torch.tensor([source]), labels=torch.tensor([target])).loss.item()
    assert losses.before == pytest.approx(expected, rel=1e-4)
    assert not find_backbone(str(folder)).knows


def test_a_vocabulary_without_marks_cannot_be_asked(tmp_path, mini_trial, runtime):
    folder, file = write(tmp_path / "checkpoint", "t5", grown=False), tmp_path / "text.txt"
    file.write_text("there is a red circle and a small blue square, and a large green cross in the first row.\n" * 9)
    spec = mini_trial("full", str(folder), suite="mini-image-text/vqa", recipe=SHORT)
    with pytest.raises(UserError, match="cannot be asked what it knew: its checkpoint lacks a word for it"):
        run_trial(spec, replace(runtime, forgetting=file))


# every method ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bart", "t5", "llama"])
def test_every_method_can_be_asked_without_an_image(name, mini_trial):
    """Its parts read text alone, as task or none that it was built for."""
    spec = mini_trial(backbone=f"mini-{name}")
    some = Knowledge(knowledge().lines[:3], {kind: pairs[:3] for kind, pairs in knowledge().tasks.items()})
    reader = stock(name)[0].family.reader(stock(name)[1])
    anatomy = find_backbone(f"mini-{name}").anatomy
    asked = 0
    for method in METHODS.names():
        built = build_method(MethodSpec(method), anatomy)
        if why_skipped(built, anatomy):
            continue
        model = mini(name)
        attach_method(model, built, design_of(built, model.anatomy), spec.tasks)
        found = losses(nudge(model), reader, spec, some)
        assert all(0 < loss < 100 for loss, _ in found.values()), (method, found)
        asked += 1
    assert asked > 10
