"""What docs/differences.md says, shown."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from pet_bench.backbone import build
from pet_bench.pet import attach, build_method
from pet_bench.pet.select import select
from pet_bench.spec import MethodSpec
from tests.conftest import ROOT
from tests.parity.reference import Fixture, method_of, model_of
from tests.tiny import TINY, VISUAL, tiny_batch, tiny_model

PAIRS = [(f"vl-pet-{gate}", f"vl-adapter+{gate}") for gate in ("large", "middle-x", "middle-y", "small")]


def logits_of(model, batch=None):
    with torch.no_grad():
        return model(**(batch or tiny_batch()))


# same-model ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_same_model(family, pair):
    """One design but for the number of heads, and one random draw: all tensors and all logits are equal."""
    shape = TINY[family].anatomy
    first, second = (build_method(MethodSpec(name), shape).design(shape) for name in pair)
    assert first != second
    single = tuple(
        replace(insert, delta=replace(insert.delta, heads=1)) if insert.delta else insert for insert in first.inserts
    )
    assert replace(first, inserts=single) == second
    one, other = (tiny_model(family, name) for name in pair)
    for (name, tensor), (same, equal) in zip(one.state_dict().items(), other.state_dict().items(), strict=True):
        assert name == same
        assert torch.equal(tensor, equal), name
    assert torch.equal(logits_of(one), logits_of(other))


def test_heads_side_by_side_are_one_layer():
    """The published multi-head down projection, head by head, against our single matrix."""
    model = tiny_model("bart", "vl-pet-large", bottleneck=8)
    layer = model.pet["encoder"]["0"]["ffn"]["0"].delta.down
    x = torch.randn(3, 5, 32)
    heads = [F.linear(x, layer.weight[i : i + 2], layer.bias[i : i + 2]) for i in range(0, 8, 2)]
    torch.testing.assert_close(torch.cat(heads, dim=-1), layer(x))


@pytest.mark.parametrize("name", ["bart_vlpet_large", "t5_vlpet_large"])
def test_the_single_headed_model_with_the_authors_multi_head_weights_gives_their_logits(name):
    fixture = Fixture.read(name)
    options = method_of(fixture).options
    assert options["heads"] == 4
    model = model_of(fixture, MethodSpec("vl-adapter+large", options | {"heads": 1}))
    batch = fixture.section("input.vqa")
    features, boxes = batch["vis_feats"][:, None], batch["boxes"][:, None]
    with torch.no_grad():
        logits = model(batch["input_ids"], features, batch["target_ids"], boxes, task="vqa")
    expected = fixture.tensors["output.vqa/logits"]
    assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_the_printed_gaps_between_the_same_models():
    rows = {}
    for table in ("vlpet_table2_image_text", "vlpet_table9_transfer"):
        with (ROOT / "results" / "published" / f"{table}.csv").open() as file:
            rows |= {row["method"]: row for row in csv.DictReader(file) if row["backbone"] == "bart-base"}
    gaps = [float(rows[a]["avg"]) - float(rows[b]["avg"]) for a, b in PAIRS]
    assert [f"{gap:.2f}" for gap in gaps] == ["0.71", "0.37", "0.65", "0.40"]
    text = (ROOT / "docs" / "differences.md").read_text(encoding="utf-8")
    for name in PAIRS[0]:
        assert f"{rows[name]['avg']} ± {rows[name]['avg_std']}" in text
        assert f"{rows[name]['coco_cider']} ± {rows[name]['coco_cider_std']}" in text
    for task in ("vqa", "gqa", "nlvr2"):
        assert f"({rows['vl-pet-large'][task]}, {rows['vl-adapter+large'][task]})" in text


# training ------------------------------------------------------------------------------------------------------------


def test_key_biases_do_nothing():
    """Whatever they are; and the `design` of the page trains all other biases of BitFit."""
    model = tiny_model("bart", "bitfit")
    before = logits_of(model)
    keys = {name for name in select(model, "biases") if "k_proj" in name}
    with torch.no_grad():
        for name in keys:
            model.get_parameter(name).normal_()
    torch.testing.assert_close(logits_of(model), before, atol=1e-4, rtol=1e-4)
    patterns = ["lm.*.[qv]_proj.bias", "lm.*.out_proj.bias", "lm.*.fc?.bias", "lm.*norm*.bias"]
    assert set().union(*(select(model, pattern) for pattern in patterns)) == select(model, "biases") - keys


@pytest.mark.parametrize("method", ["full", "vl-pet-small"])
def test_the_padding_index_makes_no_difference(method):
    gradients = []
    for index in (1, None):
        model = tiny_model("bart", method)
        for table in (model.lm.model.shared, model.lm.model.encoder.embed_tokens, model.lm.model.decoder.embed_tokens):
            table.padding_idx = index
        model.lm.model.shared.weight.requires_grad_(True)
        batch = tiny_batch()
        batch["text"][1:, 4:] = 1
        targets = batch["targets"]
        loss = F.cross_entropy(model(**batch).flatten(0, 1), targets.flatten(), ignore_index=-100)
        loss.backward()
        gradients.append(model.lm.model.shared.weight.grad)
    same = torch.equal(*gradients)
    assert same == (method == "full")  # the small gate reads padded positions
    assert gradients[0][1].abs().max() > 0


@pytest.mark.parametrize(("gate", "start", "undone"), [("large", 0.15, 2.0), ("small", 0.15, 2.0),
                                                       ("middle-x", 0.15, 2.0), ("middle-y", 0.3, 1.0)])  # fmt: skip
def test_how_t5_starts(gate, start, undone):
    bare = tiny_model("t5")
    torch.testing.assert_close(logits_of(tiny_model("t5", f"vl-pet-{gate}", scale=undone)), logits_of(bare))
    seen = []
    for model in (tiny_model("t5", f"vl-pet-{gate}"), bare):
        block = model.lm.encoder.block[0].layer[0].SelfAttention
        block.register_forward_hook(lambda module, args, output: seen.append(output[0]))
        logits_of(model)
    torch.testing.assert_close(seen[0], start * seen[1])


# VL-PET's ablations --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "read"), [("replace", False), ("sequential", True), ("parallel", True)])
def test_replacing_the_values_drops_their_projection(how, read):
    model = tiny_model("bart", "vl-pet-large", decoder={"cross_attn.value": how})
    before = logits_of(model)
    with torch.no_grad():
        for layer in model.lm.model.decoder.layers:
            layer.encoder_attn.v_proj.weight.add_(1.0)
    assert torch.equal(logits_of(model), before) != read


def test_values_put_in_the_place_of_the_projection_are_the_published_ones():
    """V = E + f(E) (METHODS.md section 10, 3)."""
    anatomy = TINY["bart"].anatomy
    model = build(TINY["bart"], VISUAL).eval()
    spec = MethodSpec("vl-pet-large", {"decoder": {"cross_attn.value": "replace"}})
    attach(model, build_method(spec, anatomy).design(anatomy))
    value = model.lm.model.decoder.layers[1].encoder_attn.v_proj
    seen = []
    value.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    logits_of(model)
    ((memory, values),) = seen
    module = model.pet["decoder"]["1"]["cross_attn"]["value"]["0"].delta
    hidden = F.gelu(F.linear(memory, module.down.weight, module.down.bias), approximate="tanh")
    torch.testing.assert_close(values, memory + F.linear(hidden, module.up.weight, module.up.bias))
