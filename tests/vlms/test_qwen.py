"""Qwen2.5-VL and Qwen3-VL: tiny random models against the stock ones, called by themselves."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

import pet_bench
from pet_bench.backbone import find_backbone
from pet_bench.backbone.loading import Stock, load, read_stock
from pet_bench.errors import UserError
from pet_bench.pet import Bottleneck, Design, Insert, LowRank, attach, count, merge
from pet_bench.pet.deltas import WeightDecomposed
from pet_bench.pet.gates import SmallGate
from pet_bench.registry import FAMILIES
from pet_bench.spec import SCOPE, MethodSpec, Runtime, Visual
from pet_bench.trial.resolve import resolve
from pet_bench.trial.run import run_trial
from tests.conftest import ROUNDED, part
from tests.vlms.tiny import build, folder

QWEN = ("qwen2.5-vl", "qwen3-vl")
VISUAL = Visual(width=12, tokens=9, pooled=4)
TEXTS = ("what is this ?", "how many red circle are there ?", "a")
SIZES = ([(48, 48)], [(32, 64), (60, 30)], [(16, 40)])  # of the pictures of each example, (height, width)
ANSWERS = ("yes", "two red circle", "0")
both = pytest.mark.parametrize("family", QWEN)


@cache
def stock(family: str) -> Stock:
    return Stock(*build(family))


def model_of(family: str, design: Design | None = None, scope=SCOPE):
    lm, processor = stock(family).copy()
    kind = FAMILIES.get(family)
    model = kind.model(lm, kind.anatomy("tiny", lm.config).scoped(scope), VISUAL)
    torch.manual_seed(1)
    attach(model, design or Design(), ()) if design else None
    return model.eval(), kind.reader(processor)


def batch(reader, rows=slice(None)):
    """Inputs and targets (B, T) of examples with one picture, two of two shapes, and a small one."""
    draw = np.random.default_rng(0)
    pictures = [[draw.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes] for sizes in SIZES]
    targets = [torch.tensor(ids) for ids in reader.targets(ANSWERS[rows], None)]
    padded = nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=-100)
    return reader.inputs(torch.empty(0), pictures[rows], TEXTS[rows]), padded


def randomised(model, std=0.3):
    torch.manual_seed(2)
    for parameter in model.pet.parameters():
        nn.init.normal_(parameter, std=std)
    return model


@torch.no_grad()
def logits(model, inputs, targets):
    return model.logits(inputs, targets)


def adapted(family):
    """With random adapters in every layer of every stack, so that what is compared depends on all of them."""
    sites = ("vision.self_attn", "vision.ffn", "projector.output", "decoder.self_attn", "decoder.ffn")
    return model_of(family, Design((Insert(sites, Bottleneck(4)),)))


# positions and masks --------------------------------------------------------------------------------------------------


@contextmanager
def watched(lm):
    """What the decoder is told of positions and mask, and the tower of pictures, at every call."""
    told = {"positions": [], "mask": [], "grid": []}
    decoder, hooks = lm.model.language_model, []

    def keep(name, value):
        told[name].append(None if value is None else value.clone())

    for module, seen in (
        (decoder.rotary_emb, lambda args, kwargs: keep("positions", kwargs.get("position_ids", args[-1]))),
        (decoder.layers[0], lambda args, kwargs: keep("mask", kwargs["attention_mask"])),
        (lm.model.visual, lambda args, kwargs: keep("grid", kwargs["grid_thw"])),
    ):
        hook = module.register_forward_pre_hook(lambda _, args, kwargs, seen=seen: seen(args, kwargs), with_kwargs=True)
        hooks.append(hook)
    try:
        yield told
    finally:
        for hook in hooks:
            hook.remove()


def by_itself(reader, rows=slice(None)):
    """What the processor gives, as its documentation has it: no part of pet-bench has touched it."""
    inputs, targets = batch(reader, rows)
    flat = {name: value.flat if isinstance(value, tuple) else value for name, value in inputs.items()}
    return flat, targets


def joined(given, targets):
    """The stock model's input for prompt and answer."""
    answer = targets[:, :-1]
    behind = {
        "input_ids": answer.clamp(min=0),
        "attention_mask": (answer != -100).long(),
        "mm_token_type_ids": 0 * answer,
    }
    return {name: torch.cat([it, behind[name]], 1) if name in behind else it for name, it in given.items()}


def assert_told_alike(ours, theirs):
    for name in theirs:
        assert len(ours[name]) == len(theirs[name]) > 0
        for one, other in zip(ours[name], theirs[name], strict=True):
            torch.testing.assert_close(one, other, atol=0, rtol=0)


@both
@pytest.mark.parametrize("rows", (slice(None), slice(0, 1), slice(1, 2)))
def test_forward_has_the_stock_models_positions_and_masks(family, rows):
    model, reader = model_of(family)
    given, targets = by_itself(reader, rows)
    lm = stock(family).copy()[0]
    with watched(lm) as theirs, torch.no_grad():
        expected = lm(**joined(given, targets), use_cache=False).logits[:, -targets.shape[1] :]
    with watched(model.lm) as ours:
        said = logits(model, *batch(reader, rows))
    assert_told_alike(ours, theirs)
    there = targets != -100
    torch.testing.assert_close(said[there], expected[there], **ROUNDED)
    axes = ours["positions"][0][-3:]
    pictures = joined(given, targets)["input_ids"] == lm.config.image_token_id
    assert any((axes[0] != axes[i])[pictures].any() for i in (1, 2))  # they do differ, at pictures
    assert all(torch.equal(axes[0][~pictures], axes[i][~pictures]) for i in (1, 2))  # and nowhere else


@both
@pytest.mark.parametrize("beams", (1, 3))
def test_generation_has_the_stock_models_positions_and_masks(family, beams):
    model, reader = model_of(family)
    given, _ = by_itself(reader)
    lm = stock(family).copy()[0]
    with watched(lm) as theirs, torch.no_grad():
        expected = lm.generate(
            **given, num_beams=beams, max_new_tokens=5, do_sample=False, pad_token_id=0,
            suppress_tokens=model.image_tokens,
        )  # fmt: skip
    with watched(model.lm) as ours:
        said = model.generate(batch(reader)[0], num_beams=beams, max_length=6)
    assert_told_alike(ours, theirs)
    assert torch.equal(said, expected[:, given["input_ids"].shape[1] :])


@both
def test_generation_counts_on_from_where_training_counted(family):
    """The positions of an answer are the same, word by word, whether it is given or said."""
    model, reader = model_of(family)
    inputs, _ = batch(reader)
    with watched(model.lm) as saying:
        said = model.generate(inputs, num_beams=1, max_length=5)
    with watched(model.lm) as given:
        logits(model, inputs, torch.cat([said, said[:, -1:]], 1))
    steps = torch.cat([positions[-3:] for positions in saying["positions"]], dim=2)
    seen = inputs["attention_mask"].bool()  # where nothing is read, it does not matter what is counted
    kept = torch.cat([seen, seen.new_ones(len(said), steps.shape[2] - seen.shape[1])], dim=1)
    assert torch.equal(steps[:, kept], given["positions"][0][-3:, :, : steps.shape[2]][:, kept])


# generation and batches -----------------------------------------------------------------------------------------------


@both
def test_cached_generation_is_teacher_forcing(family):
    model, reader = adapted(family)
    inputs, _ = batch(reader)
    said = model.generate(inputs, num_beams=1, max_length=6)
    scores = logits(model, inputs, said)
    scores[..., model.image_tokens] = -torch.inf
    ended = (said == reader.end).cumsum(1).cumsum(1) > 1
    assert ((scores.argmax(-1) == said) | ended).all() and said.shape[1] > 1


@both
@pytest.mark.parametrize("beams", (1, 3))
def test_each_is_told_what_it_is_told_alone(family, beams):
    model, reader = adapted(family)
    said = model.generate(batch(reader)[0], num_beams=beams, max_length=6)
    for i, ids in enumerate(said):
        alone = model.generate(batch(reader, slice(i, i + 1))[0], num_beams=beams, max_length=6)[0]
        assert ids[: len(alone)].tolist() == alone.tolist() and not ids[len(alone) :].any()


@both
def test_batch_and_padding_do_not_matter(family):
    model, reader = adapted(family)
    together = logits(model, *batch(reader))
    for i, rows in enumerate(together):
        alone = logits(model, *batch(reader, slice(i, i + 1)))[0]
        torch.testing.assert_close(rows[: len(alone)], alone, atol=1e-4, rtol=1e-4)


@both
def test_rows_of_a_batch_take_the_patches_of_their_own_pictures(family):
    _, reader = model_of(family)
    whole, _ = batch(reader)
    grid, pixels = whole["image_grid_thw"], whole["pixel_values"]
    assert grid.counts.tolist() == [len(sizes) for sizes in SIZES]
    assert pixels.counts.sum() == len(pixels.flat) and len({*map(tuple, grid.flat.tolist())}) > 1
    for i in range(len(SIZES)):
        alone, _ = batch(reader, slice(i, i + 1))
        assert torch.equal(pixels.of(slice(i, i + 1)).flat, alone["pixel_values"].flat)
        assert torch.equal(grid.of(slice(i, i + 1)).flat, alone["image_grid_thw"].flat)


@both
def test_an_example_may_have_no_picture(family):
    """Neither one among others nor a whole batch of them; rows of as many patches as examples are no ids."""
    model, reader = model_of(family)
    picture = np.zeros((32, 32, 3), np.uint8)
    for pictures in ([[picture, picture], []], [[], []]):
        inputs = reader.inputs(torch.empty(0), pictures, TEXTS[:2])
        said = logits(model, inputs, torch.tensor([[5, 6], [7, 8]]))
        for i in range(2):
            alone = reader.inputs(torch.empty(0), pictures[i : i + 1], TEXTS[i : i + 1])
            torch.testing.assert_close(
                logits(model, alone, torch.tensor([[5, 6], [7, 8]])[i : i + 1])[0], said[i], atol=1e-4, rtol=1e-4
            )


# sites ----------------------------------------------------------------------------------------------------------------

SITES = [(family, site) for family in QWEN for site in FAMILIES.get(family).anatomy("", build(family)[0].config).sites]


@pytest.mark.parametrize(("family", "site"), SITES)
def test_an_insert_at_each_site(family, site):
    """Of a zero-initialised one nothing is seen; another changes what is said, and all of it gets a gradient."""
    bare, reader = model_of(family)
    inputs, targets = batch(reader)
    before = logits(bare, inputs, targets)
    model, _ = model_of(family, Design((Insert((site,), Bottleneck(4, zero_init=True)),), train=()))
    assert torch.equal(logits(model, inputs, targets), before)
    said = randomised(model).logits(inputs, targets)
    assert not torch.allclose(said, before, atol=1e-4)
    said.square().mean().backward()
    dead = [name for name, one in model.pet.named_parameters() if one.grad is None or not one.grad.any()]
    assert not dead
    assert all(parameter.grad is None for parameter in model.lm.parameters())


@both
def test_query_key_and_value_are_thirds_of_the_fused_projection(family):
    """What the stock module attends with, of the first patch: at place (0, 0) no rotation changes it."""
    taken = {}

    def attention(module, query, key, value, attention_mask, **settings):
        if "Vision" in type(module).__name__ and not taken:
            taken.update(query=query, key=key, value=value)
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)

    AttentionInterface.register("tests-taking", attention)
    model, reader = model_of(family)
    model.lm.set_attn_implementation("tests-taking")
    written = []
    model.lm.model.visual.blocks[0].attn.qkv.register_forward_hook(lambda *call: written.append(call[-1]))
    logits(model, *batch(reader))
    for name, states in taken.items():
        part = model.anatomy.sites[f"vision.self_attn.{name}"].part
        assert part is not None
        k, n = part
        assert torch.equal(states[0, :, 0].flatten(), written[0].chunk(n, dim=-1)[k][0])


@both
@pytest.mark.parametrize("delta", (LowRank(2, 4), WeightDecomposed(2, 4)), ids=lambda delta: delta.kind)
def test_low_rank_updates_of_a_fused_projection_merge(family, delta):
    sites = tuple(f"{stack}.self_attn.{name}" for stack in ("vision", "decoder") for name in ("query", "key", "value"))
    model, reader = model_of(family, Design((Insert(sites, delta, reads="input"),)))
    inputs, targets = batch(reader)
    assert torch.allclose(logits(model, inputs, targets), logits(model_of(family)[0], inputs, targets), atol=1e-5)
    torch.manual_seed(3)
    for name, parameter in model.pet.named_parameters():
        if name.endswith(".B"):
            nn.init.normal_(parameter, std=0.3)
    unmerged = logits(model, inputs, targets)
    undo = merge(model)
    merged = logits(model, inputs, targets)
    undo()
    torch.testing.assert_close(merged, unmerged, atol=1e-4, rtol=1e-4)
    assert torch.equal(logits(model, inputs, targets), unmerged)
    assert not torch.allclose(merged, logits(model_of(family)[0], inputs, targets), atol=1e-2)


@both
def test_a_gate_of_each_example_has_no_place_where_there_is_no_axis_of_examples(family):
    insert = Insert(("vision.ffn",), Bottleneck(4), gate=SmallGate(), gating="multiply")
    with pytest.raises(UserError, match=r"vision\.ffn: the gate is a mean of each example"):
        model_of(family, Design((insert,)))


# parts ----------------------------------------------------------------------------------------------------------------


@both
def test_parts_of_the_model(family):
    model, _ = model_of(family)
    counts = dict.fromkeys(SCOPE, 0)
    for name, parameter in model.named_parameters():
        counts[model.anatomy.part_of(name)] += parameter.numel()
    visual = model.lm.model.visual
    mergers = [visual.merger, *getattr(visual, "deepstack_merger_list", ())]
    projector = sum(one.numel() for merger in mergers for one in merger.parameters())
    tower = sum(one.numel() for one in visual.parameters()) - projector
    everything = sum(one.numel() for one in model.lm.parameters())
    assert len(mergers) == (1 if family == "qwen2.5-vl" else 2)
    assert counts == {"language": everything - tower - projector, "projector": projector, "vision": tower}


@both
def test_what_trains_by_default(family):
    """The mergers, all of them, and what is inserted into the decoder; the tower around them is frozen."""
    model, _ = model_of(family, Design((Insert(("decoder.ffn",), Bottleneck(4)),), train=("visual",)), None)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name in trained if not name.startswith("pet.")} == {
        name for name, _ in model.named_parameters() if "merger" in name
    }
    assert {*count(model)["groups"]} == {"visual", "decoder.delta"}


@both
def test_norms_of_the_tower_are_not_those_of_its_mergers(family):
    model, _ = model_of(family, Design(train=("vision.norms",)))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and all(".blocks." in name for name in trained)


# checkpoints ----------------------------------------------------------------------------------------------------------


def with_videos(path: Path) -> None:
    """As transformers saves it where there is torchvision: one file, with a part for videos."""
    settings = json.loads((path / "processor_config.json").read_text())
    settings["video_processor"] = {"video_processor_type": "Qwen2VLVideoProcessor", "patch_size": 8}
    (path / "processor_config.json").write_text(json.dumps(settings))


def with_old_files(path: Path) -> None:
    """As the hub has it: a file for pictures, one for videos, the template in JSON."""
    settings = json.loads((path / "processor_config.json").read_text())
    pictures = settings["image_processor"] | {"processor_class": settings["processor_class"]}
    (path / "preprocessor_config.json").write_text(json.dumps(pictures))
    (path / "video_preprocessor_config.json").write_text('{"video_processor_type": "Qwen2VLVideoProcessor"}')
    template = (path / "chat_template.jinja").read_text()
    (path / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    for name in ("processor_config.json", "chat_template.jinja"):
        (path / name).unlink()


@both
@pytest.mark.parametrize("change", (lambda path: None, with_videos, with_old_files))
def test_a_folder_is_read_without_a_video_processor(family, change, tmp_path):
    change(folder(family, tmp_path))
    backbone = find_backbone(str(tmp_path))
    assert backbone.family == family
    model, processor = load(backbone, VISUAL, read_stock(backbone))
    inputs, targets = batch(model.family.reader(processor))
    bare, reader = model_of(family)
    assert torch.equal(logits(model.eval(), inputs, targets), logits(bare, *batch(reader)))


@pytest.mark.parametrize("family", part(QWEN, 1))
def test_a_saved_folder_trains_and_is_loaded_again(family, tmp_path):
    path = folder(family, tmp_path / "checkpoint")
    recipe = {"lr": 1e-3, "max_steps": 3, "batch_size": 8, "valid_every": 0}
    spec = resolve(str(path), MethodSpec("lora"), "mini-image-text/vqa", 0, recipe=recipe)
    result = run_trial(spec, Runtime(tmp_path / "out", device="cpu", threads=1))
    assert result.status == "done" and "vqa" in result.metrics
    assert {*result.parameters.groups} == {"decoder.delta"}  # the projector is frozen, as published
    trial = pet_bench.load_trial(str(tmp_path / "out" / f"{spec.id}.json"))
    assert trial.predict_test()
    shutil.rmtree(tmp_path / "out")
