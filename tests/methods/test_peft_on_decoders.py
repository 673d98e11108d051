"""peft's tuners in decoder-only models and in those that see pixels: integrity, scope, counts, peft's own files."""

from __future__ import annotations

import json
from dataclasses import fields

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
from tests.forms import PIXELS, batch_of, model_of
from tests.methods import test_peft_bridge as bridge

SIZES = bridge.SIZES | {"psoft": {"r": 8}, "trainable_tokens": {"token_indices": [*range(3, 40)]}}
FAMILIES = ["llama", *PIXELS]
TASKS = ("vqa", "gqa")
NOT_THERE = {(family, kind) for family in PIXELS for kind in PROMPTS}
PAIRS = [(family, kind) for family in FAMILIES for kind in bridge.USABLE if (family, kind) not in NOT_THERE]
every = pytest.mark.parametrize(("family", "kind"), PAIRS)
at_start = {"c3a", "fourierft", "p_tuning", "prompt_tuning", "unilora", "vblora"}  # peft's defaults move the output
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def method_of(anatomy, kind, **options):
    return build_method(MethodSpec(f"peft:{kind}", SIZES.get(kind, {}) | options), anatomy)


def attached(family, kind, *, nudged=True, seed=1, scope=None, device="cpu", **options):
    """A tiny model with a type of peft, away from where it changes nothing."""
    model = model_of(family, device=device)
    model.anatomy = model.anatomy.scoped(scope)
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


@torch.no_grad()
def read_by_the_first_layer(model, family):
    """Positions and mask that the stack of the answer is given."""
    seen = {}

    def keep(layer, args, kwargs):
        seen.update(kwargs)

    hook = model.at(model.anatomy.stacks[model.anatomy.reading].blocks).register_forward_pre_hook(
        keep, with_kwargs=True
    )
    logits_of(model, family)
    hook.remove()
    return seen


@every
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


@every
def test_the_start_is_the_backbone_and_what_it_learns_moves_it(family, kind):
    expected = logits_of(model_of(family), family)
    start = logits_of(attached(family, kind, nudged=False), family)
    if kind not in at_start:
        torch.testing.assert_close(start, expected, atol=1e-4, rtol=1e-4)
    assert (logits_of(attached(family, kind), family) - expected).abs().max() > 1e-2


@every
def test_positions_and_masks_are_the_stock_models(family, kind):
    if kind in PROMPTS:
        return  # they are positions themselves
    plain, model = (read_by_the_first_layer(m, family) for m in (model_of(family), attached(family, kind)))
    for name in ("attention_mask", "position_ids", "position_embeddings"):
        if plain.get(name) is not None:
            torch.testing.assert_close(model[name], plain[name], rtol=0, atol=0)
    assert any(plain.get(name) is not None for name in ("position_ids", "position_embeddings", "attention_mask"))


@every
def test_examples_alone_are_what_they_are_in_a_batch(family, kind):
    model, (_, targets) = attached(family, kind), batch_of(family)
    together = logits_of(model, family)
    for i in range(3):
        alone = logits_of(model, family, slice(i, i + 1))
        there = targets[i] != -100
        torch.testing.assert_close(alone[0][there], together[i][there], atol=1e-4, rtol=1e-4)


@every
def test_cached_generation_is_teacher_forcing(family, kind):
    model, (inputs, _) = attached(family, kind), batch_of(family)
    silent = getattr(model, "image_tokens", [])
    ids = model.generate(inputs, num_beams=1, max_length=6)
    with torch.no_grad():
        logits = model.logits(inputs, ids)
    logits[..., silent] = -torch.inf
    end = model.lm.generation_config.eos_token_id
    ended = torch.isin(ids[:, :-1], torch.tensor(end)).cumsum(1) > 0
    alive = torch.cat([ended.new_ones(len(ids), 1), ~ended], dim=1)
    assert torch.equal(logits.argmax(-1)[alive], ids[alive])
    assert len(model.generate(inputs, num_beams=3, max_length=5)) == 3


@every
def test_save_load_and_count(family, kind, tmp_path):
    model = attached(family, kind)
    save_trained(model, tmp_path / "a.safetensors")
    other = attached(family, kind, nudged=False)
    load_trained(other, tmp_path / "a.safetensors")
    torch.testing.assert_close(logits_of(other, family), logits_of(model, family), atol=1e-5, rtol=1e-5)
    assert count(attached(family, kind, nudged=False, device="meta")) == count(model)


@every
def test_the_count_is_pefts_own_on_the_same_targets(family, kind):
    """Its configuration, written out with full paths, in a stock model."""
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


@every
def test_stock_peft_reads_what_is_exported(family, kind, tmp_path):
    model = attached(family, kind)
    (door,) = method_of(model.anatomy, kind).design(model.anatomy).doors
    door.export(model, tmp_path)
    assert json.loads((tmp_path / "peft/adapter_config.json").read_text())["peft_type"] == TYPES[kind].value
    base = model_of(family)
    if "projector" in base.anatomy.stacks and family != "llama":
        names = {n for n in trained(model) if model.anatomy.part_of(n) == "projector"}
        base.load_state_dict({n: model.get_parameter(n).data for n in names}, strict=False)
    theirs = peft.PeftModel.from_pretrained(base.lm, tmp_path / "peft").eval()
    if kind not in PROMPTS and kind != "poly":
        base.context, fed = base.context, logits_of(base, family) if family != "llama" else None
        ids = torch.randint(5, 30, (2, 6), generator=torch.Generator().manual_seed(1))
        if fed is None:
            with torch.no_grad():
                fed, expected = theirs(input_ids=ids).logits, model.lm(input_ids=ids).logits
        else:
            expected = logits_of(model, family)
        torch.testing.assert_close(fed, expected, atol=1e-4, rtol=1e-4)
    other = attached(family, kind, nudged=False)
    if kind == "p_tuning":
        with pytest.raises(UserError, match="without the network"):
            load_exported(other, tmp_path / "peft")
        return
    load_exported(other, tmp_path / "peft")
    projectors = {n: p.data for n, p in trained(model).items() if n not in own(model)}
    other.load_state_dict(projectors, strict=False)
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


@pytest.mark.parametrize(("family", "kind"), sorted(NOT_THERE))
def test_prompts_among_images_are_refused(family, kind):
    model = model_of(family)
    method = method_of(model.anatomy, kind)
    assert "positions and the masks of the images" in (why_skipped(method, model.anatomy) or "")
    with pytest.raises(UserError, match=f"peft:{kind} on .*positions and the masks of the images") as error:
        attach(model, method.design(model.anatomy), TASKS)
    assert len(error.value.faults) == 1


# scope ----------------------------------------------------------------------------------------------------------------


def parts_of(model):
    return {model.anatomy.part_of(name) for name in own(model)}


@pytest.mark.parametrize("family", PIXELS)
@pytest.mark.parametrize("targets", [None, "all-linear"])
def test_targets_are_those_of_the_scope(family, targets):
    """ "all-linear" reaches the projector and the tower in peft; here, what the scope has and inserts go to."""
    options = {} if targets is None else {"target_modules": targets}
    for scope in (("language", "projector"), ("language", "projector", "vision"), ("vision",), ("language",)):
        model = attached(family, "lora", scope=scope, **options)
        assert parts_of(model) == {*scope} - {"projector"}
        adapted = {path for path, m in model.named_modules() if isinstance(m, peft.tuners.lora.LoraLayer)}
        assert {model.anatomy.part_of(path) for path in adapted} == {*scope} - {"projector"}
        assert f"{model.anatomy.head}" not in adapted
        if targets and scope == ("language", "projector"):
            words = [f"{model.anatomy.stacks[stack].path}." for stack in model.anatomy.words]
            every = {n for n, m in model_of(family).named_modules() if isinstance(m, nn.Linear)}
            assert adapted == {name for name in every if any(name.startswith(word) for word in words)}


@pytest.mark.parametrize("family", PIXELS)
def test_what_would_train_outside_of_the_scope_is_refused(family):
    model = model_of(family)
    tower = next(
        path.removeprefix("lm.") for path, m in model.named_modules()
        if isinstance(m, nn.Linear) and model.anatomy.part_of(path) == "vision"
    )  # fmt: skip
    with pytest.raises(UserError, match="target_modules are in vision, which is not in the scope") as error:
        attached(family, "lora", target_modules=[tower])
    assert len(error.value.faults) == 1
    biases = any(n.endswith(".bias") and model.anatomy.part_of(n) == "vision" for n, _ in model.named_parameters())
    if biases:
        with pytest.raises(UserError, match="would train, which is not in the scope language, projector") as error:
            attached(family, "lora", bias="all")
        assert len(error.value.faults) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_where_nothing_can_be_adapted_it_is_skipped(family):
    anatomy = model_of(family).anatomy.scoped(("projector",))
    reason = why_skipped(build_method(MethodSpec("peft:trainable_tokens", SIZES["trainable_tokens"]), anatomy), anatomy)
    assert reason and "neither in the scope" in reason
