"""Florence-2, InternVL, LLaVA-OneVision and SmolVLM: tiny random models against the stock ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ray import cloudpickle

import pet_bench
from pet_bench.backbone.known import find_backbone
from pet_bench.backbone.loading import load, read_stock
from pet_bench.data.batches import Batch, labels_of
from pet_bench.errors import UserError
from pet_bench.pet import attach
from pet_bench.pet.deltas import Bottleneck
from pet_bench.pet.design import Design, Insert
from pet_bench.pet.inserted import Inserted
from pet_bench.results import predictions
from pet_bench.spec import SCOPE, MethodSpec, Runtime, Visual
from pet_bench.trial.resolve import resolve
from pet_bench.trial.run import run_trial
from tests.conftest import ROUNDED, part
from tests.vlms.tiny import folder

FAMILIES = ("florence2", "internvl", "llava-onevision", "smolvlm")
VISUAL = Visual(width=12, tokens=9, pooled=4)
TEXTS = ("what is this ?", "how many red circle are there ?", "a")
SIZES = ([(48, 48)], [(32, 64), (60, 30)], [(70, 20)])  # of the pictures of each example, (height, width)
ANSWERS = ("yes", "red circle", "0")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def stock(family, tmp_path_factory):
    backbone = find_backbone(str(folder(family, tmp_path_factory.mktemp(family))))
    return backbone, read_stock(backbone)


def loaded(stock, scope=None):
    backbone, read = stock
    model, processor = load(backbone, VISUAL, read, scope)
    return model.eval(), model.family.reader(processor)


def pictures():
    draw = np.random.default_rng(0)
    return [[draw.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes] for sizes in SIZES]


def batch(reader, rows=slice(None)) -> Batch:
    targets = [torch.tensor(ids) for ids in reader.targets(ANSWERS[rows], None)]
    tensors = reader.inputs(torch.empty(0), pictures()[rows], TEXTS[rows])
    padded = torch.nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=-100)
    rows = torch.arange(len(padded))
    return Batch("vqa", tuple(map(str, rows)), tensors, padded, labels_of(padded), rows.float(), rows)


@torch.no_grad()
def logits(model, batch):
    return model.logits(batch.inputs, batch.targets)


def given(model, batch):
    """What the stock model is given of a batch of one example."""
    return model.taken(batch.inputs)


@torch.no_grad()
def of_stock(model, one):
    """The stock model's logits of an answer, as its own documentation calls it."""
    lm, inputs = model.lm, given(model, one)
    if lm.config.is_encoder_decoder:
        return lm(**inputs, labels=one.targets).logits
    whole = torch.cat([inputs.pop("input_ids"), one.targets[:, :-1]], dim=1)
    inputs.pop("attention_mask")
    return lm(input_ids=whole, **inputs).logits[:, -one.targets.shape[1] :]


def test_each_example_as_the_stock_model_has_it_alone(stock):
    model, reader = loaded(stock)
    together = batch(reader)
    for i, rows in enumerate(logits(model, together)):
        one = batch(reader, slice(i, i + 1))
        length = one.targets.shape[1]
        torch.testing.assert_close(rows[:length], of_stock(model, one)[0], atol=2e-5, rtol=1e-4)


def test_positions_and_masks_are_the_stock_models(stock):
    model, reader = loaded(stock)
    told = []

    def keep(layer, args, kwargs):
        told.append({name: kwargs.get(name) for name in ("position_ids", "attention_mask", "position_embeddings")})

    for stack in model.anatomy.words:
        model.at(model.anatomy.stacks[stack].blocks, 0).register_forward_pre_hook(keep, with_kwargs=True)
    one = batch(reader, slice(1, 2))
    logits(model, one)
    of_stock(model, one)
    half = len(told) // 2
    assert half == len(model.anatomy.words)
    for ours, theirs in zip(told[:half], told[half:], strict=True):
        torch.testing.assert_close(ours, theirs, atol=0, rtol=0)


@pytest.mark.parametrize("beams", (1, 3))
def test_generation_is_the_stock_models(stock, beams):
    model, reader = loaded(stock)
    said = model.generate(batch(reader).inputs, num_beams=beams, max_length=6)
    for i, ids in enumerate(said):
        one = batch(reader, slice(i, i + 1))
        prompt = 1 if model.lm.config.is_encoder_decoder else one.tensors["input_ids"].shape[1]
        alone = model.lm.generate(
            **given(model, one), num_beams=beams, max_new_tokens=5, do_sample=False, pad_token_id=0,
            suppress_tokens=model.image_tokens,
        )  # fmt: skip
        alone = alone[0, prompt:]
        assert ids[: len(alone)].tolist() == alone.tolist()
        assert (ids[len(alone) :] == 0).all()


def test_cached_generation_is_teacher_forcing(stock):
    model, reader = loaded(stock)
    part = batch(reader)
    said = model.generate(part.inputs, num_beams=1, max_length=6)
    with torch.no_grad():
        scores = model.logits(part.inputs, said)
    scores[..., model.image_tokens] = -torch.inf
    forced = len(reader.begin)  # the checkpoint may have these said first
    ended = (said == reader.end).cumsum(1).cumsum(1) > 1
    agree = (scores.argmax(-1) == said) | ended
    assert agree[:, forced:].all()


def test_choices_are_what_training_says_of_the_first_word(stock):
    model, reader = loaded(stock)
    words = reader.firsts(["yes", "no", "2"])
    part = batch(reader)
    with torch.no_grad():
        chosen = model.choose(part.inputs, words)
    torch.testing.assert_close(chosen, logits(model, part)[:, len(reader.begin), words], atol=2e-5, rtol=1e-4)


def test_the_context_has_the_visual_tokens_of_each_beam(stock):
    model, reader = loaded(stock)
    part = batch(reader)
    logits(model, part)
    visual, seen = model.context.visual, model.context.seen
    places = torch.isin(part.tensors["input_ids"], torch.tensor(model.image_tokens)).sum(1)
    assert seen.sum(1).tolist() == places.tolist() and visual.shape[:2] == (3, places.max())
    model.generate(part.inputs, num_beams=2, max_length=3)
    assert torch.equal(model.context.seen, seen.repeat_interleave(2, 0))
    torch.testing.assert_close(model.context.visual, visual.repeat_interleave(2, 0), atol=2e-5, rtol=1e-4)
    assert len(model.context.mask) == 6


def test_a_batch_can_be_split(stock):
    model, reader = loaded(stock)
    whole = batch(reader)
    parts = torch.cat([logits(model, part) for part in whole.split(2)])
    torch.testing.assert_close(parts, logits(model, whole), atol=2e-5, rtol=1e-4)


def test_inserts_at_every_site(stock):
    """Of zero-initialised ones nothing is seen; others change what is said, and each gets a gradient."""
    plain, reader = loaded(stock)
    part = batch(reader)
    before = logits(plain, part)
    model, _ = loaded(stock, SCOPE)  # one that has not run: what transformers records of layers it hooks on then
    sites = tuple(site for site, at in model.anatomy.sites.items() if at.argument is None)
    attach(model, Design((Insert(sites, Bottleneck(width=2, zero_init=True)),), train=()), ())
    model.eval()
    torch.testing.assert_close(logits(model, part), before, **ROUNDED)
    inserted = {path: module for path, module in model.pet.named_modules() if isinstance(module, Inserted)}
    anatomy = model.anatomy
    layers = sum(
        anatomy.stacks[site.partition(".")[0]].layers if "{i" in anatomy.sites[site].writer else 1 for site in sites
    )
    assert len(inserted) == layers
    for module in inserted.values():
        torch.nn.init.normal_(module.delta.up.weight, std=0.02)
    loss = torch.nn.functional.cross_entropy(model.logits(part.inputs, part.targets).transpose(1, 2), part.targets)
    loss.backward()
    grads = {path: module.delta.up.weight.grad for path, module in inserted.items()}
    dead = [path for path, grad in grads.items() if grad is None or not grad.abs().sum()]
    assert not dead
    assert not torch.allclose(logits(model, part), before, **ROUNDED)
    each = {path: module.delta.up.weight for path, module in inserted.items()}
    for path, weight in each.items():  # by itself
        kept = weight.detach().clone()
        for other in each.values():
            torch.nn.init.zeros_(other)
        weight.data.copy_(kept + 0.1)
        assert not torch.equal(logits(model, part), before), path


def test_parts_of_the_model(stock):
    model, _ = loaded(stock)
    counts = dict.fromkeys(SCOPE, 0)
    for name, parameter in model.named_parameters():
        counts[model.anatomy.part_of(name)] += parameter.numel()
    anatomy, size = model.anatomy, lambda path: sum(p.numel() for p in model.get_submodule(path).parameters())
    newline = getattr(model.lm.model, "image_newline", torch.empty(0)).numel()
    assert counts["vision"] == size(anatomy.stacks["vision"].path) == size(model.family.tower)
    assert counts["projector"] == size(anatomy.stacks["projector"].path) + newline
    assert sum(counts.values()) == sum(p.numel() for p in model.lm.parameters())
    assert all(counts.values())


@pytest.mark.parametrize("family", part(FAMILIES, 2), indirect=True)
def test_a_folder_trains_loads_and_answers(family, stock, tmp_path):
    backbone, _ = stock
    recipe = {"lr": 1e-3, "max_steps": 2, "batch_size": 8, "valid_every": 0}
    scope = MethodSpec("lora", scope=SCOPE)
    spec = resolve(backbone.name, scope, "mini-image-text/nlvr2", 0, recipe=recipe)  # two pictures an example
    result = run_trial(spec, Runtime(tmp_path, device="cpu", threads=1, accumulation=2))
    assert result.metrics  # of so short a training; the predictions may have collapsed
    assert {"vision.delta", "decoder.delta"} <= result.parameters.groups.keys()
    again = pet_bench.load_trial(str(tmp_path / f"{spec.id}.json")).predict_test()
    saved = predictions.read(tmp_path / predictions.name(spec.id, "nlvr2"))
    assert again == {id: text for id, (text, _) in saved.items()}


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    backbone = find_backbone(str(folder("smolvlm", tmp_path)))
    monkeypatch.setattr("pet_bench.backbone.smolvlm.is_num2words_available", lambda: False)
    with pytest.raises(UserError, match=r"num2words: pip install 'pet-bench\[vlm\]'") as raised:
        read_stock(backbone)
    assert "\n" not in str(raised.value)


def test_a_processor_goes_to_another_process(stock):
    processor = stock[1].tokenizer
    there = cloudpickle.loads(cloudpickle.dumps(processor))
    assert there.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert type(there).__name__ == type(processor).__name__
