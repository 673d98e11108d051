"""A backbone is what its checkpoint says: tied or not, gated or not, here, in another process and without weights."""

from __future__ import annotations

import pytest
import torch
from transformers import BartForConditionalGeneration, DynamicCache, EncoderDecoderCache, T5ForConditionalGeneration

from pet_bench.backbone import build, find_backbone, load
from pet_bench.backbone.loading import GrownHead, read_stock
from pet_bench.backbone.ties import ties
from pet_bench.pet import (
    Bottleneck,
    Design,
    Insert,
    LowRank,
    NoVision,
    attach,
    build_method,
    count,
    merge,
    trained_parameters,
)
from pet_bench.registry import METHODS
from pet_bench.spec import MethodSpec
from tests.backbone.checkpoints import KINDS, tensors_of, write
from tests.tiny import TASKS, VISUAL, tiny_batch
from tests.trial.test_shared import handed_over

kinds = pytest.mark.parametrize("kind", KINDS)
grown = pytest.mark.parametrize("grown", [True, False], ids=["grown", "to grow"])
STOCK = {"bart": BartForConditionalGeneration, "t5": T5ForConditionalGeneration}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """The folder of a kind of checkpoint, written once."""
    home, there = tmp_path_factory.mktemp("checkpoints"), {}

    def folder(kind, grown=True):
        if (kind, grown) not in there:
            there[kind, grown] = write(home / f"{kind} {grown}", kind, grown=grown)
        return str(there[kind, grown])

    return folder


def loaded(name, stock=None):
    torch.manual_seed(0)
    return load(find_backbone(name), VISUAL, stock)[0].eval()


@kinds
@grown
def test_what_is_tied_is_what_the_checkpoint_has(checkpoint, kind, grown):
    """Each stored table stays a tensor of its own, and grows by itself; every count is that of the stored tensors."""
    name, further = checkpoint(kind, grown), set(KINDS[kind][1])
    model, meta = loaded(name), build(find_backbone(name), VISUAL, device="meta")
    tables = {n: p for n, p in model.lm.named_parameters(remove_duplicate=False) if len(p) == len(model.words)}
    assert {n for n in tables if n not in ties(model.lm)} - {"shared.weight", "model.shared.weight"} == further
    stored = {n: tensor for n, tensor in tensors_of(name).items() if n != "final_logits_bias"}
    for n, tensor in stored.items():
        assert torch.equal(model.lm.get_parameter(n)[: len(tensor)], tensor)
    added = 0 if grown else 200 * model.anatomy.d * (1 + len(further))
    total = sum(tensor.numel() for tensor in stored.values()) + added
    assert sum(p.numel() for p in model.lm.parameters()) == total
    assert {n: p.shape for n, p in model.named_parameters()} == {n: p.shape for n, p in meta.named_parameters()}
    assert ties(model.lm) == ties(meta.lm)
    model.lm.tie_weights()  # as transformers does at many a turn
    assert sum(p.numel() for p in model.lm.parameters()) == total


@kinds
@grown
def test_another_process_has_the_same_model(checkpoint, kind, grown):
    stock = read_stock(find_backbone(checkpoint(kind, grown)))
    here, there = (loaded(checkpoint(kind, grown), one) for one in (stock, handed_over(stock)))
    assert ties(here.lm) == ties(there.lm)
    ours, theirs = here.state_dict(), there.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert [n for n, _ in here.named_parameters()] == [n for n, _ in there.named_parameters()]
    for model in (here, there):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            model(**tiny_batch()).logsumexp(-1).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert torch.equal(here(**tiny_batch()), there(**tiny_batch()))


@kinds
@pytest.mark.parametrize("beams", [1, 4])
def test_before_training_it_says_what_the_stock_model_says(checkpoint, kind, beams):
    """Without an image. New words of an own head do not change that; those of a tied one may, as published."""
    family, own_head = kind.split()[0], "lm_head.weight" in KINDS[kind][1]
    text, features = tiny_batch()["text"], tiny_batch()["features"]
    lengths = {"num_beams": beams, "max_length": 12}
    for grown in (True, False) if own_head else (True,):
        name = checkpoint(kind, grown)
        config = STOCK[family].config_class.from_pretrained(name)
        config.tie_word_embeddings = True  # of BART, transformers 5 leaves tables that it does not find at random
        stock = STOCK[family].from_pretrained(name, config=config).eval()
        expected = stock.generate(
            input_ids=text, attention_mask=torch.ones_like(text), do_sample=False,
            forced_eos_token_id=2 if family == "bart" and beams > 1 else None, **cache(), **lengths,
        )  # fmt: skip
        assert len(expected.unique()) > 2  # it does say something
        model = attach(loaded(name), Design(doors=(NoVision(),), train=("lm.*",)))
        assert torch.equal(model.generate({"text": text, "features": features}, **lengths), expected[:, 1:])


def cache():
    """Room for any number of layers: transformers' own is as long as T5's encoder."""
    return {"past_key_values": EncoderDecoderCache(DynamicCache(), DynamicCache())}


def test_new_words_of_an_own_head_start_below_and_can_be_learnt(checkpoint):
    name = checkpoint("t5 gated own head", grown=False)
    model, old = loaded(name), len(tensors_of(name)["lm_head.weight"])
    assert isinstance(model.lm.lm_head, GrownHead)
    logits = model(**tiny_batch())
    assert (logits[..., old:].amax(-1) <= logits[..., :old].amax(-1) - GrownHead.BELOW).all()
    probabilities = logits.softmax(-1)
    assert (probabilities[..., old:] == 0).all()
    assert torch.equal(logits.logsumexp(-1), logits[..., :old].logsumexp(-1))
    loss = torch.nn.functional.cross_entropy(logits[0], torch.full((4,), old + 3))
    loss.backward()
    assert model.lm.lm_head.weight.grad[old + 3].abs().max() > 0


@pytest.mark.parametrize("method", [*METHODS.names(), "peft:lora", "peft:ia3"])
def test_every_method_works_on_a_gated_t5_with_its_own_head(checkpoint, method):
    """As Flan-T5 is: counted without weights as with them, and it can be trained."""
    backbone = find_backbone(checkpoint("t5 gated own head"))
    design = build_method(MethodSpec(method), backbone.anatomy).design(backbone.anatomy)
    model, meta = loaded(backbone.name), build(backbone, VISUAL, device="meta")
    for one in (model, meta):
        attach(one, design, TASKS)
    assert count(model) == count(meta)
    model(**tiny_batch()).logsumexp(-1).square().mean().backward()
    gradients = [p.grad for p in trained_parameters(model).values() if p.grad is not None]
    assert gradients and all(g.isfinite().all() for g in gradients)


@pytest.fixture
def gated(checkpoint):
    """A gated T5 with a design attached, its inserts away from zero."""

    def make(*inserts, method=None, **options):
        backbone = find_backbone(checkpoint("t5 gated"))
        torch.manual_seed(0)
        design = Design(inserts=inserts)
        if method:
            design = build_method(MethodSpec(method, options), backbone.anatomy).design(backbone.anatomy)
        model = attach(loaded(backbone.name), design)
        with torch.no_grad():
            for parameter in trained_parameters(model).values():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return model

    return make


def test_hidden_units_of_a_gated_feed_forward_are_the_product(gated):
    """H of `.ffn.hidden` is act(W_gate x) ⊙ (W_in x), and `.ffn.out` reads H'; X is the sub-layer's input."""
    model = gated(
        Insert(sites=("decoder.ffn.hidden",), delta=Bottleneck(4)),
        Insert(sites=("decoder.ffn.gate",), reads="input", delta=LowRank(2, alpha=4)),
        Insert(sites=("decoder.ffn.in",), reads="input", delta=LowRank(2, alpha=4)),
    )
    ffn, pet, seen = model.lm.decoder.block[1].layer[2].DenseReluDense, model.pet["decoder"]["1"]["ffn"], {}
    ffn.register_forward_pre_hook(lambda module, args: seen.update(x=args[0]))
    ffn.wo.register_forward_pre_hook(lambda module, args: seen.update(h=args[0]))
    model(**tiny_batch())
    x = seen["x"]
    gate, linear = (pet[name]["0"](x, x @ part.weight.T) for name, part in (("gate", ffn.wi_0), ("in", ffn.wi_1)))
    product = torch.nn.functional.gelu(gate, approximate="tanh") * linear
    torch.testing.assert_close(seen["h"], pet["hidden"]["0"](x, product))


def test_ia3_on_a_gated_feed_forward_scales_its_linear_part(gated):
    """As the reference of IA³ has it on such models: to scale wi_1's output is to scale the hidden units."""
    model, batch = gated(method="ia3"), tiny_batch()
    with torch.no_grad():
        expected = model(**batch)
        undo = merge(model)
        torch.testing.assert_close(model(**batch), expected, atol=1e-4, rtol=1e-4)
        undo()
        for stack, layer in (("encoder", 1), ("decoder", 2)):
            for i, block in enumerate(getattr(model.lm, stack).block):
                insert = model.pet[stack][str(i)]["ffn"]["hidden"]["0"]
                block.layer[layer].DenseReluDense.wi_1.weight *= insert.gate.g[:, None]
                insert.is_merged = True
        torch.testing.assert_close(model(**batch), expected, atol=1e-4, rtol=1e-4)


def test_a_side_network_is_pruned_from_both_of_a_gated_feed_forwards_matrices(gated):
    """They keep the same rows, those with the largest product of importances, which the next matrix reads."""
    model = gated(method="lst", init="random", reduction=4)
    source = model.lm.encoder.block[0].layer[1].DenseReluDense
    weight = {source.wi_0.weight: torch.ones(24), source.wi_1.weight: torch.ones(24)}
    weight[source.wi_0.weight][[1, 3, 5, 7, 9, 11, 13]] = 3.0
    weight[source.wi_1.weight][[3, 5, 7, 9, 11, 15]] = 5.0
    model.pet["side"].prune(
        model, lambda w: weight[w][:, None].expand_as(w) if w in weight else torch.arange(w.numel()).reshape(w.shape)
    )
    target = model.pet["side"].encoder.blocks[0].layer[1].DenseReluDense
    rows = torch.tensor([3, 5, 7, 9, 11, 15])
    for name in ("wi_0", "wi_1"):
        ours, theirs = target.get_submodule(name).weight, source.get_submodule(name).weight
        columns = [c for c in range(16) if any(torch.equal(theirs[rows, c], ours[:, k]) for k in range(4))]
        assert torch.equal(ours, theirs[rows][:, columns])
    assert all(any(torch.equal(row, other[rows]) for other in source.wo.weight) for row in target.wo.weight)
