"""Ladder side-tuning: what the generic properties and the parity fixture do not show."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutput

from pet_bench.errors import UserError
from pet_bench.methods.lst import Side, fisher_importance
from pet_bench.pet import Bottleneck, Design, Insert, SmallGate, attach, trained_parameters
from tests.tiny import TASKS, TINY, tiny_batch, tiny_model

families = pytest.mark.parametrize("family", TINY)


def nudged(family, **options):
    model = tiny_model(family, "lst", **options)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.pet.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@families
def test_images_pass_through_the_side_network_only(family):
    model, bare, batch = nudged(family), tiny_model(family), tiny_batch()
    text, features = batch["text"], batch["features"]
    with torch.no_grad():
        one, other = model.encode(text, features), model.encode(text, features.flip(0))
        stock = bare.lm.get_encoder()(input_ids=text).last_hidden_state
    torch.testing.assert_close(one.last_hidden_state, stock, atol=1e-5, rtol=1e-5)
    assert torch.equal(one.last_hidden_state, other.last_hidden_state)
    assert one.side.shape == (3, 7 + 4, 8) and one.side_mask.shape == (3, 11)
    assert not torch.allclose(one.side, other.side, atol=1e-3)
    with torch.no_grad():
        apart = [model.decode(encoded, model.shift_right(batch["targets"])) for encoded in (one, other)]
    assert not torch.allclose(*apart, atol=1e-5)


@families
def test_the_stock_model_without_side_states_is_untouched(family):
    model, bare, batch = nudged(family), tiny_model(family), tiny_batch()
    targets = batch["targets"].clamp(min=0)
    with torch.no_grad():
        model(**batch)
        ours, stock = (m.lm(input_ids=batch["text"], labels=targets).logits for m in (model, bare))
    assert torch.equal(ours, stock)


@families
def test_beams_with_and_without_a_cache(family):
    model, batch = nudged(family), tiny_batch()
    model.lm.generation_config.early_stopping = True
    ids = []
    for cached in (True, False):
        model.lm.generation_config.use_cache = cached
        ids.append(model.generate({"text": batch["text"], "features": batch["features"]}, num_beams=4, max_length=9))
    assert torch.equal(*ids)
    assert len({tuple(row) for row in ids[0].tolist()}) > 1


def test_pruning_keeps_what_matters():
    """All importance is put on chosen rows; the block must hold these rows, with the columns chosen before them."""
    model = tiny_model("bart", "lst", init="random")
    layer, side = model.lm.model.encoder.layers[0], model.pet["side"]
    words = model.lm.get_input_embeddings().weight
    wanted = {words: torch.arange(3, 32, 4)}  # columns of the table
    rows = {"q_proj": torch.arange(8), "out_proj": torch.arange(8, 16)}
    for name in ("q_proj", "k_proj", "v_proj"):
        wanted[layer.self_attn.get_submodule(name).weight] = rows["q_proj"]
    wanted[layer.self_attn.out_proj.weight] = rows["out_proj"]

    def importance(weight):
        found = torch.ones_like(weight)
        if weight is words:
            found[:, wanted[weight]] = 9.0
        elif weight in wanted:
            found[wanted[weight]] = 9.0
        return found

    side.prune(model, importance)
    block = side.encoder.blocks[0]
    stock, pruned = layer.self_attn, block.self_attn
    assert torch.equal(pruned.k_proj.weight, stock.k_proj.weight[rows["q_proj"]][:, wanted[words]])
    assert torch.equal(pruned.v_proj.bias, stock.v_proj.bias[rows["q_proj"]])
    assert torch.equal(pruned.out_proj.weight, stock.out_proj.weight[rows["out_proj"]][:, rows["q_proj"]])
    norm = layer.self_attn_layer_norm
    assert torch.equal(block.self_attn_layer_norm.weight, norm.weight[rows["out_proj"]])
    assert block.fc1.weight.shape == (16, 8)


@families
def test_fisher_importance_is_a_sum_of_squared_gradients(family):
    model, batch = tiny_model(family, "lst"), tiny_batch()
    pad = model.lm.config.pad_token_id
    text = batch["text"].clone()
    text[0, 5:] = pad
    batches = [SimpleNamespace(inputs={"text": text}, targets=batch["targets"])]
    squared = fisher_importance(model, batches, 2)
    assert not any(p.requires_grad for name, p in model.named_parameters() if name.startswith("lm."))

    bare = tiny_model(family)
    weight = (
        bare.lm.get_decoder()
        .get_submodule("layers.1.fc1" if family == "bart" else "block.1.layer.2.DenseReluDense.wi")
        .weight
    )
    expected = torch.zeros_like(weight)
    for ids, target in zip((text[:1, :5], text[1:2]), (batch["targets"][:1], batch["targets"][1:2, :2]), strict=True):
        states = bare.lm.get_encoder()(input_ids=ids).last_hidden_state
        logits = bare.lm(
            encoder_outputs=BaseModelOutput(last_hidden_state=states), decoder_input_ids=bare.shift_right(target)
        ).logits
        loss = torch.nn.functional.cross_entropy(logits[0], target[0])
        expected += torch.autograd.grad(loss, weight)[0] ** 2
    names = {id(p): name for name, p in model.named_parameters()}
    ours = {names[id(key)]: value for key, value in squared.items()}
    name = next(name for name, p in bare.named_parameters() if p is weight)
    torch.testing.assert_close(ours[name], expected, rtol=1e-3, atol=1e-7 * expected.max().item())


@families
def test_training_begins_from_the_pruning_by_fisher_information(family):
    model, batch = tiny_model(family, "lst"), tiny_batch()
    before = {name: p.clone() for name, p in model.pet.named_parameters()}
    batches = [SimpleNamespace(inputs={"text": batch["text"]}, targets=batch["targets"])]
    for init, changes in (("fisher", True), ("magnitude", False)):
        Side(reduction=4, init=init, samples=3).before_training(model, batches)
        changed = {name for name, p in model.pet.named_parameters() if not torch.equal(p, before[name])}
        assert bool(changed) == changes
        assert all(".blocks." in name or name.endswith("norm.weight") for name in changed)
        before = {name: p.clone() for name, p in model.pet.named_parameters()}


def test_a_width_that_does_not_divide():
    with pytest.raises(UserError, match="lst: d_model = 32 does not divide by the reduction 5"):
        tiny_model("bart", "lst", reduction=5)


def logits(model, batch):
    with torch.no_grad():
        return model(**batch)


@families
def test_word_by_word(family):
    """The cache holds all that the words before have left in both networks."""
    model, batch = nudged(family), tiny_batch()
    with torch.no_grad():
        encoded = model.encode(batch["text"], batch["features"])
        words, past, found = model.shift_right(batch["targets"]), None, []
        for i in range(words.shape[1]):
            out = model.lm(
                encoder_outputs=encoded, attention_mask=encoded.mask, decoder_input_ids=words[:, i : i + 1],
                past_key_values=past, use_cache=True,
            )  # fmt: skip
            past = out.past_key_values
            found.append(out.logits)
    torch.testing.assert_close(torch.cat(found, 1), logits(model, batch), atol=1e-4, rtol=1e-4)


@families
def test_nothing_is_left_of_a_pass(family):
    """Neither of generation and training nor of a pass that failed half-way."""
    model, batch = nudged(family), tiny_batch()
    before = logits(model, batch)
    model.generate({"text": batch["text"], "features": batch["features"]}, num_beams=3, max_length=6)
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        model(**batch).float().sum().backward()
    model.eval()
    assert all(p.grad is not None for p in trained_parameters(model).values())

    def fail(module, args):
        raise RuntimeError

    hook = model.pet["side"].decoder.blocks[1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError):
        model(**batch)
    hook.remove()
    assert torch.equal(logits(model, batch), before)


@families
def test_the_side_attends_as_the_backbone_does(family):
    """Whatever the backbone is switched to later on: a mask that only one kernel can do without is never missing."""
    fused, batch = nudged(family), tiny_batch()
    model = tiny_model(family)
    model.lm.set_attn_implementation("eager")
    attach(model, Design(doors=(Side(reduction=4, init="random", samples=1),))).eval()
    model.load_state_dict(fused.state_dict())
    for kernel in ("eager", "sdpa", "eager"):
        model.lm.set_attn_implementation(kernel)
        torch.testing.assert_close(logits(model, batch), logits(fused, batch), atol=1e-4, rtol=1e-4)


@families
def test_a_copy_is_a_model_of_its_own(family):
    model, batch = nudged(family), tiny_batch()
    before, twin = logits(model, batch), copy.deepcopy(model)
    assert torch.equal(logits(twin, batch), before)
    with torch.no_grad():
        twin.pet["side"].up.bias.add_(1.0)
    assert not torch.allclose(logits(twin, batch), before, atol=1e-3)
    assert torch.equal(logits(model, batch), before)


@families
def test_inserts_beside_it_know_the_mask(family):
    """The backbone's encoder reads the text alone, and so do gates in it: padding does not matter."""
    model, batch = tiny_model(family), tiny_batch()
    gated = Insert(("encoder.ffn",), Bottleneck(4), gate=SmallGate(padding="masked"))
    attach(model, Design(inserts=(gated,), doors=(Side(reduction=4, init="random", samples=1),)), TASKS).eval()
    text, pad = batch["text"].clone(), model.lm.config.pad_token_id
    text[:, 5:] = pad
    short = batch | {"text": text[:, :5]}
    torch.testing.assert_close(logits(model, batch | {"text": text}), logits(model, short), atol=1e-5, rtol=1e-5)


def test_pruning_of_t5_by_hand():
    """What q would keep, k outvotes; columns that are gone have no say."""
    model = tiny_model("t5", "lst", init="random")
    layer, side = model.lm.decoder.block[0].layer, model.pet["side"]
    block, words = side.decoder.blocks[0].layer, model.lm.get_input_embeddings().weight
    q, k, v, o = (layer[0].SelfAttention.get_submodule(name).weight for name in "qkvo")
    rising = torch.arange(32.0)

    def importance(weight):
        found = torch.ones_like(weight)
        if weight is words:
            found *= rising  # the last eight columns
        elif weight is q:
            found *= 1 + rising[:, None]  # on its own: the last eight rows
        elif weight is k:
            found[:8] = 1e3  # with it: the first eight
        elif weight is v:
            found[8:] *= 1e-3
            found[:, :24] = torch.flip(found[:, :24], (0,)) * 1e6  # columns that are gone have no say
        elif weight is o:
            found[::4] = 2.0
        return found

    side.prune(model, importance)
    columns, rows, out = torch.arange(24, 32), torch.arange(8), torch.arange(0, 32, 4)
    assert torch.equal(block[0].layer_norm.weight, layer[0].layer_norm.weight[columns])
    for name, weight in {"q": q, "k": k, "v": v}.items():
        assert torch.equal(block[0].SelfAttention.get_submodule(name).weight, weight[rows][:, columns])
    assert torch.equal(block[0].SelfAttention.o.weight, o[out][:, rows])
    table = layer[0].SelfAttention.relative_attention_bias.weight
    assert torch.equal(block[0].SelfAttention.relative_attention_bias.weight, table)
    # what cross-attention reads of the encoder are the columns selected last, too
    assert torch.isin(block[1].EncDecAttention.k.weight, layer[1].EncDecAttention.k.weight[:, out]).all()


def test_a_width_that_the_heads_do_not_divide():
    with pytest.raises(UserError, match="lst: 4 heads do not divide the width 2"):
        tiny_model("bart", "lst", reduction=16)
