"""Ladder side-tuning: what the generic properties and the parity fixture do not show."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutput

from pet_bench.errors import UserError
from pet_bench.methods.lst import Side, fisher_importance
from tests.tiny import TINY, tiny_batch, tiny_model

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
        ids.append(model.generate(batch["text"], batch["features"], num_beams=4, max_length=9))
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
    batches = [SimpleNamespace(input_ids=text, target_ids=batch["targets"])]
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
    batches = [SimpleNamespace(input_ids=batch["text"], target_ids=batch["targets"])]
    for init, changes in (("fisher", True), ("magnitude", False)):
        Side(reduction=4, init=init, samples=3).before_training(model, batches)
        changed = {name for name, p in model.pet.named_parameters() if not torch.equal(p, before[name])}
        assert bool(changed) == changes
        assert all(".blocks." in name or name.endswith("norm.weight") for name in changed)
        before = {name: p.clone() for name, p in model.pet.named_parameters()}


def test_a_width_that_does_not_divide():
    with pytest.raises(UserError, match="lst: d_model = 32 does not divide by the reduction 5"):
        tiny_model("bart", "lst", reduction=5)
