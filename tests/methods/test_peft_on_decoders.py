"""peft's tuners in decoder-only models and in all that see pixels: integrity, scope, counts, peft's own files.

A case is a family and a type that it does not skip. `make test-all` runs all of them, else two of each family run,
drawn by a seed that is the family's name; tests of the scope have every family with LoRA.
"""

from __future__ import annotations

import json
from dataclasses import fields
from functools import cache

import peft
import pytest
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from torch import nn

from pet_bench.errors import UserError
from pet_bench.methods.peft_bridge import PROMPTS, TYPES, load_exported, wrapped
from pet_bench.pet import attach, build_method, count, load_trained, save_trained, why_skipped
from pet_bench.pet import trained_parameters as trained
from pet_bench.spec import MethodSpec
from tests.forms import DECODERS, PIXELS, batch_of, drawn, model_of
from tests.methods import test_peft_bridge as bridge
from tests.vlms.attached import TASKS, anatomy_of, reader_of
from tests.vlms.test_integrity import masks, same

SIZES = bridge.SIZES | {
    "c3a": {"block_size": 8},
    "psoft": {"r": 8},
    "trainable_tokens": {"token_indices": [*range(3, 39)]},  # words and their end
    "vblora": {"vector_length": 8},
}
every = pytest.mark.parametrize("family", DECODERS)
seeing = pytest.mark.parametrize("family", PIXELS)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def method_of(anatomy, kind, **options):
    return build_method(MethodSpec(f"peft:{kind}", SIZES.get(kind, {}) | options), anatomy)


@cache
def skipped(family, kind):
    return why_skipped(method_of(anatomy_of(family), kind), anatomy_of(family))


def cases():
    """Families and types; of all types, those that have no place in a family are refused below."""
    there = [(family, kind) for family in DECODERS for kind in bridge.USABLE if not skipped(family, kind)]
    there.remove(("t5gemma2", "trainable_tokens"))
    return drawn(there, 2)


cased = pytest.mark.parametrize(("family", "kind"), cases())


def attached(family, kind, *, nudged=True, seed=1, scope=None, **options):
    """A tiny model with a type of peft, away from where it changes nothing."""
    model = model_of(family, scope)
    torch.manual_seed(seed)
    attach(model, method_of(model.anatomy, kind, **options).design(model.anatomy), TASKS)
    torch.manual_seed(7)
    with torch.no_grad():
        for name in own(model) if nudged else ():
            parameter = model.get_parameter(name)
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def own(model):
    """Names of what peft trains; the projector trains too, as with every method."""
    return {name for name in trained(model) if model.anatomy.part_of(name) != "projector"}


@torch.no_grad()
def logits_of(model, family, rows=slice(None)):
    return model.logits(*batch_of(family, rows))


@cased
def test_it_starts_as_the_stock_model_and_reads_as_it_does(family, kind):
    """To the bit where that is claimed, at the same positions and through the same masks; what it learns moves it."""
    plain, model = model_of(family), attached(family, kind, nudged=False)
    expected, start = logits_of(plain, family), logits_of(model, family)
    if method_of(model.anatomy, kind).identity_at_start:
        assert torch.equal(start, expected)
    if not model.text_edits:  # prompts are positions themselves
        ours, theirs = masks(model, *batch_of(family)), masks(plain, *batch_of(family))
        assert len(ours) == len(theirs) >= 1
        for here, there in zip(ours, theirs, strict=True):
            assert there and here.keys() == there.keys()
            assert all(same(here[name], there[name]) for name in there)
    assert (logits_of(attached(family, kind), family) - start).abs().max() > 1e-3


@cased
def test_gradients_reach_what_peft_trains_in_the_scope(family, kind):
    model = attached(family, kind)
    before = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    assert own(model)
    inputs, targets = batch_of(family)
    model.train().logits(inputs, targets).logsumexp(-1).square().sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    assert own(model) <= reached <= trained(model).keys()
    assert {model.anatomy.part_of(name) for name in trained(model)} <= {"language", "projector"}
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters() if name in before)


@cased
def test_what_it_says(family, kind, tmp_path):
    """Alone as in a batch, from a cache as from all at once, and when it was saved and loaded."""
    model, (inputs, targets) = attached(family, kind), batch_of(family)
    together = logits_of(model, family)
    for i in range(3):
        alone = logits_of(model, family, slice(i, i + 1))
        there = targets[i] != -100
        torch.testing.assert_close(alone[0][there], together[i][there], atol=1e-4, rtol=1e-4)

    ids = model.generate(inputs, num_beams=1, max_length=6)
    with torch.no_grad():
        logits = model.logits(inputs, ids)
    logits[..., getattr(model, "image_tokens", [])] = -torch.inf
    ended = torch.isin(ids[:, :-1], torch.tensor(model.lm.generation_config.eos_token_id)).cumsum(1) > 0
    alive = torch.cat([ended.new_ones(len(ids), 1), ~ended], dim=1)
    alive[:, : len(getattr(reader_of(family), "begin", ()))] = False  # what the checkpoint has said first
    assert torch.equal(logits.argmax(-1)[alive], ids[alive])
    assert len(model.generate(inputs, num_beams=3, max_length=5)) == 3

    save_trained(model, tmp_path / "a.safetensors")
    other = attached(family, kind, nudged=False)
    load_trained(other, tmp_path / "a.safetensors")
    torch.testing.assert_close(logits_of(other, family), together, atol=1e-5, rtol=1e-5)


@cased
def test_the_count_is_pefts_own_on_the_same_targets(family, kind):
    """Its configuration, written out with full paths, in a stock model; and without any weights it is the same."""
    model = attached(family, kind, nudged=False)
    config, anatomy = wrapped(model).active_peft_config, model.anatomy
    options = {field.name: getattr(config, field.name) for field in fields(PEFT_TYPE_TO_CONFIG_MAPPING[TYPES[kind]])}
    options.pop("peft_type", None)
    stock = model_of(family).lm
    if hasattr(config, "target_modules") and kind != "trainable_tokens":
        leaves = method_of(anatomy, kind).target_modules
        words = [anatomy.stacks[stack].path.removeprefix("lm.") for stack in anatomy.words]
        options["target_modules"] = [
            path
            for path, _ in stock.named_modules()
            if path.rpartition(".")[2] in leaves and any(path.startswith(f"{word}.") for word in words)
        ]
        assert options["target_modules"]
    if kind == "ia3":
        last = method_of(anatomy, kind).feedforward_modules
        options["feedforward_modules"] = [p for p in options["target_modules"] if p.rpartition(".")[2] in last]
    theirs = peft.get_peft_model(stock, type(config)(**options))
    ours = sum(model.get_parameter(name).numel() for name in own(model))
    assert theirs.get_nb_trainable_parameters()[0] == ours
    blank = model_of(family).to("meta")
    blank.lm.tie_weights()
    attach(blank, method_of(blank.anatomy, kind).design(blank.anatomy), TASKS)
    assert count(blank) == count(model)


@cased
def test_stock_peft_reads_what_is_exported(family, kind, tmp_path):
    model = attached(family, kind)
    (door,) = method_of(model.anatomy, kind).design(model.anatomy).doors
    door.export(model, tmp_path)
    assert json.loads((tmp_path / "peft/adapter_config.json").read_text())["peft_type"] == TYPES[kind].value
    if kind not in PROMPTS and kind != "poly":
        base = model_of(family)
        peft.PeftModel.from_pretrained(base.lm, tmp_path / "peft").eval()
        torch.testing.assert_close(logits_of(base, family), logits_of(model, family), atol=1e-4, rtol=1e-4)
    other = attached(family, kind, nudged=False)
    if kind == "p_tuning":
        with pytest.raises(UserError, match="without the network"):
            load_exported(other, tmp_path / "peft")
        return
    load_exported(other, tmp_path / "peft")
    torch.testing.assert_close(logits_of(other, family), logits_of(model, family), atol=1e-5, rtol=1e-5)


# prompts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(PROMPTS))
def test_prompts_stand_before_the_text(kind):
    """What peft's own forward pass makes of [prompt; words] is what these words come to here."""
    model = attached("llama", kind)
    wrapper = wrapped(model)
    text = torch.randint(5, 50, (2, 6), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(text)
    with torch.no_grad():
        theirs = wrapper(input_ids=text, attention_mask=mask).logits
        words, seen = model.text_edits[0](model.embed(text), mask.bool())
        ours = model.lm(inputs_embeds=words, attention_mask=seen.long()).logits
    torch.testing.assert_close(theirs[:, -6:], ours[:, -6:], atol=1e-5, rtol=1e-5)


@seeing
@pytest.mark.parametrize("kind", sorted(PROMPTS))
def test_prompts_among_images_are_refused(family, kind):
    model = model_of(family)
    method = method_of(model.anatomy, kind)
    assert "positions and the masks of the images" in (why_skipped(method, model.anatomy) or "")
    with pytest.raises(UserError, match=f"peft:{kind} on .*positions and the masks of the images") as error:
        attach(model, method.design(model.anatomy), TASKS)
    assert len(error.value.faults) == 1


def test_a_table_that_gives_more_than_its_rows_is_refused():
    """T5Gemma 2's has one vector for the end of an image, which stock peft would take from the rows instead."""
    with pytest.raises(UserError, match=r"peft:trainable_tokens on .*reads eoi_embedding besides its rows") as error:
        attached("t5gemma2", "trainable_tokens")
    assert len(error.value.faults) == 1


# scope ----------------------------------------------------------------------------------------------------------------


@seeing
@pytest.mark.parametrize(
    ("targets", "scope"),
    [(None, ("language", "vision")), ("all-linear", ("language", "projector")), ("all-linear", ("vision",))],
)
def test_targets_are_those_of_the_scope(family, targets, scope):
    """ "all-linear" reaches the projector and the tower in peft; here, what the scope has and inserts go to."""
    model = attached(
        family, "lora", nudged=False, scope=scope, **({} if targets is None else {"target_modules": targets})
    )
    adapted = {path for path, m in model.named_modules() if isinstance(m, peft.tuners.lora.LoraLayer)}
    assert {model.anatomy.part_of(path) for path in adapted} == {*scope} - {"projector"}
    tower = model.anatomy.stacks["vision"]
    read = [tower.blocks.format(i=tower.name_of(i)) for i in range(tower.layers)]
    layers = [model.anatomy.stacks[stack].path for stack in model.anatomy.words] if "language" in scope else []
    layers += read if "vision" in scope else []
    linear = {path for path, m in model_of(family).named_modules() if isinstance(m, nn.Linear)}
    within = {path for path in linear if path.startswith(tuple(f"{layer}." for layer in layers))}
    within -= {path for path in within if model.anatomy.part_of(path) not in scope}  # T5Gemma 2's tower is inside
    assert adapted == within if targets else adapted < within


@seeing
def test_what_would_train_outside_of_the_scope_is_refused(family):
    model = model_of(family)
    scope = ", ".join(model.anatomy.scope)
    tower = next(
        path.removeprefix("lm.") for path, m in model.named_modules()
        if isinstance(m, nn.Linear) and model.anatomy.part_of(path) == "vision"
    )  # fmt: skip
    with pytest.raises(UserError, match=f"target_modules are in vision, which is not in the scope {scope}$") as error:
        attached(family, "lora", target_modules=[tower])
    assert len(error.value.faults) == 1
    biases = any(n.endswith(".bias") and model.anatomy.part_of(n) == "vision" for n, _ in model.named_parameters())
    if linear := model.anatomy.sites.get("projector.in"):
        with pytest.raises(UserError, match="target_modules are in no layer of the language model or of the tower"):
            attached(family, "lora", target_modules=[linear.writer.removeprefix("lm.")])
    if biases:
        with pytest.raises(UserError, match=f"would train, which is not in the scope {scope}$") as error:
            attached(family, "lora", bias="all")
        assert len(error.value.faults) == 1


@every
def test_where_nothing_can_be_adapted_it_is_skipped(family):
    anatomy = model_of(family).anatomy.scoped(("projector",))
    reason = why_skipped(build_method(MethodSpec("peft:trainable_tokens", SIZES["trainable_tokens"]), anatomy), anatomy)
    assert reason and "neither in the scope" in reason
