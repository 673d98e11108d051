"""lora, dora and ia3 against peft's own modules with the same weights; and their merging into the backbone."""

from __future__ import annotations

import peft
import pytest
import torch

from pet_bench.errors import UserError
from pet_bench.pet import Design, Insert, LowRank, VectorGate, WeightDecomposed, attach, merge
from pet_bench.pet import trained_parameters as trained
from tests.tiny import TINY, tiny_batch, tiny_model

both = pytest.mark.parametrize("family", TINY)
QUERY_VALUE = {"bart": ["q_proj", "v_proj"], "t5": ["q", "v"]}
KEY_VALUE = {"bart": ["k_proj", "v_proj"], "t5": ["k", "v"]}
DOWN = {"bart": "fc2", "t5": "wo"}
LOW_RANK = {"r": 4, "lora_alpha": 6, "task_type": "SEQ_2_SEQ_LM"}
THEIRS = {
    "lora": lambda family: peft.LoraConfig(target_modules=QUERY_VALUE[family], **LOW_RANK),
    "dora": lambda family: peft.LoraConfig(target_modules=QUERY_VALUE[family], use_dora=True, **LOW_RANK),
    "ia3": lambda family: peft.IA3Config(
        target_modules=[*KEY_VALUE[family], DOWN[family]], feedforward_modules=[DOWN[family]], task_type="SEQ_2_SEQ_LM"
    ),
}
PART = {  # ours, below an insert → peft's, below a layer
    "delta.A": "lora_A.default.weight",
    "delta.B": "lora_B.default.weight",
    "delta.m": "lora_magnitude_vector.default.weight",
    "gate.g": "ia3_l.default",
}


def ours(family, method, **options):
    options = {"rank": 4, "alpha": 6.0, "dropout": 0.0, "biases": False} | options if method != "ia3" else options
    if method == "dora":
        options = {"norm": "constant", "norms": False} | options
    return moved(tiny_model(family, method, **options))


def moved(model):
    """Every trained tensor away from where it starts."""
    torch.manual_seed(11)
    with torch.no_grad():
        for parameter in trained(model).values():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def counterparts(model):
    """Name of each of our tensors → peft's."""
    sites, found = model.anatomy.sites, {}
    for name in trained(model):
        if not name.startswith("pet."):
            continue
        stack, layer, *site, index, part, leaf = name.removeprefix("pet.").split(".")
        assert index == "0"
        where = sites[".".join((stack, *site))]
        found[name] = f"{(where.feeds or where.writer).format(i=layer)}.{PART[f'{part}.{leaf}']}"
    return found


@both
@pytest.mark.parametrize("method", THEIRS)
def test_logits_and_gradients_are_those_of_peft(family, method):
    """Of every trained tensor; the visual embedding trains in both."""
    mine = ours(family, method)
    theirs = tiny_model(family)
    peft.get_peft_model(theirs.lm, THEIRS[method](family))
    names = counterparts(mine)
    adapters = {name for name, p in theirs.named_parameters() if name.startswith("lm.") and p.requires_grad}
    assert set(names.values()) == adapters
    theirs.visual.load_state_dict(mine.visual.state_dict())
    with torch.no_grad():
        for name, other in names.items():
            parameter = theirs.get_parameter(other)
            parameter.copy_(mine.get_parameter(name).view_as(parameter))
    batch = tiny_batch()
    batch["features"] = batch["features"].double()
    logits = [model.double()(**batch) for model in (mine, theirs)]
    torch.testing.assert_close(*logits)
    assert not torch.allclose(logits[0], tiny_model(family).double()(**batch), atol=1e-2)
    for out in logits:
        out.logsumexp(-1).square().mean().backward()
    names |= {name: name for name in trained(mine) if name.startswith("visual.")}
    for name, other in names.items():
        gradient, expected = mine.get_parameter(name).grad, theirs.get_parameter(other).grad
        assert (gradient is None) == (expected is None)
        if gradient is not None:
            torch.testing.assert_close(gradient.view_as(expected), expected)


# Merging

MERGED = [("lora", {}), ("dora", {}), ("ia3", {}), ("ia3", {"feed_forward": False}), ("lora", {"biases": True})]


@pytest.mark.parametrize(
    ("family", "method", "options"), [(f, *m) for f in TINY for m in MERGED if f == "bart" or "biases" not in m[1]]
)
def test_merging_changes_the_weights_and_nothing_else(family, method, options):
    check_merge(ours(family, method, **options))


def check_merge(model):
    """Merged logits equal unmerged ones, with the stock modules alone; undone, every bit is as before."""
    batch = tiny_batch()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        expected = model(**batch)
        undo = merge(model)
        torch.testing.assert_close(model(**batch), expected, atol=2e-5, rtol=2e-5)
        bare = tiny_model(model.anatomy.family)
        bare.lm.load_state_dict(model.lm.state_dict())
        bare.visual.load_state_dict(model.visual.state_dict())
        torch.testing.assert_close(bare(**batch), expected, atol=2e-5, rtol=2e-5)
        changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
        assert changed
        assert all(name.startswith("lm.") for name in changed)
        with pytest.raises(UserError, match="is merged already"):
            merge(model)
        torch.testing.assert_close(model(**batch), expected, atol=2e-5, rtol=2e-5)
        undo()
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        assert torch.equal(model(**batch), expected)


@both
def test_inserts_on_one_projection_merge_whatever_their_order(family):
    """A gate on hidden units stands before a ΔW of the projection that reads them, wherever the design names it."""
    hidden = Insert(("encoder.ffn.hidden",), gate=VectorGate(init="one"), scale=0.5, base_scale=3.0)
    low_rank = Insert(("encoder.ffn.out",), LowRank(3, 2.0), reads="input", delta_scale=2.0, base_scale=0.5)
    decomposed = Insert(("encoder.ffn.out",), WeightDecomposed(3, 2.0), reads="input", gate=VectorGate(offset=1.0))
    for inserts in ((hidden, low_rank), (low_rank, hidden), (hidden, decomposed), (decomposed, hidden)):
        check_merge(moved(attach(tiny_model(family), Design(inserts))))


def refused(model, message):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        expected = model(**tiny_batch())
        with pytest.raises(UserError, match=message):
            merge(model)
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        assert torch.equal(model(**tiny_batch()), expected)


@both
@pytest.mark.parametrize(
    "method, options, message",
    [
        ("vl-pet-large", {}, r"encoder.0.self_attn.0: .* is no linear map at a projection: it cannot be merged"),
        ("lora", {"per_task": True, "rank": 4, "biases": False}, "it cannot be merged"),
        ("prompt-tuning", {}, '"prompt" is no insert: it cannot be merged'),
    ],
)
def test_what_cannot_be_merged_is_left_alone(family, method, options, message):
    refused(moved(tiny_model(family, method, **options)), message)


@both
def test_the_tied_output_layer_is_not_merged(family):
    """It is the word table as well, which would change with it."""
    head = Insert(("decoder.head",), LowRank(3, 2.0), reads="input")
    refused(moved(attach(tiny_model(family), Design((head,)))), "the projection is the word table too")


@both
def test_one_part_that_cannot_be_merged_keeps_all_from_it(family):
    fine = Insert(("encoder.self_attn.query",), LowRank(3, 2.0), reads="input")
    for other in (LowRank(3, 2.0), None):  # X is the input of the whole sub-layer, not of its last projection
        norm = None if other else "layer"
        whole = Insert(("encoder.ffn",), other, reads="input", norm=norm)
        refused(moved(attach(tiny_model(family), Design((fine, whole)))), r"encoder\.0\.ffn")
