"""Prefix-tuning against the same function written as a mixture of two attentions."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedModel

from pet_bench.errors import UserError
from pet_bench.pet import build_method, count, merge, trained_parameters
from pet_bench.pet.attention import IMPLEMENTATION
from pet_bench.spec import MethodSpec
from tests.tiny import BART, TINY, tiny_batch, tiny_model

both = pytest.mark.parametrize("family", TINY)
ATTENTIONS = ("encoder.self_attn", "decoder.self_attn", "decoder.cross_attn")
SIZES = {"length": 3, "hidden": 8}


def tiny(family, **options):
    model = tiny_model(family, "prefix-tuning", **SIZES | options)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.pet.parameters():
            parameter.normal_(std=0.5)
    return model


def stock_attention(model, name, layer):
    return model.at(model.anatomy.sites[name].writer, layer)


@both
@pytest.mark.parametrize("name", ATTENTIONS)
@pytest.mark.parametrize("layer", [0, 1])
def test_it_is_a_mixture_of_two_attentions(family, name, layer):
    """He et al. (ICLR 2022), equation 4, per head: (1 - λ) Attn(Q, K, V) + λ Attn(Q, P_k, P_v), with

    λ = Σ exp(q P_kᵀ) / (Σ exp(q P_kᵀ) + Σ exp(q Kᵀ)), masked positions and T5's position bias in the second sum only.
    """
    model, batch, seen = tiny(family), tiny_batch(), {}
    batch["text"][1:, 4:] = model.lm.config.pad_token_id
    attention = stock_attention(model, name, layer)

    def keep(module, args, kwargs, output):
        seen["x"] = args[0] if args else kwargs["hidden_states"]
        seen["memory"] = kwargs.get("key_value_states")
        seen["output"] = output[0]

    attention.register_forward_hook(keep, with_kwargs=True)
    with torch.no_grad():
        model(**batch)

        x, heads = seen["x"], model.anatomy.heads
        memory = x if seen["memory"] is None else seen["memory"]
        q, k, v, o = (attention.get_submodule(path) for path in model.family.projections.values())
        split = lambda states: states.view(*states.shape[:-1], heads, -1).transpose(-3, -2)  # noqa: E731
        Q, K, V = split(q(x)), split(k(memory)), split(v(memory))
        if family == "bart":
            Q = Q * Q.shape[-1] ** -0.5
        network = model.pet["prefix"][name.replace(".", "_")]
        P = network.up[layer](torch.tanh(network.down(network.table)))
        P_k, P_v = split(P[:, : P.shape[1] // 2]), split(P[:, P.shape[1] // 2 :])

        scores = Q @ K.mT
        text = batch["text"]
        if family == "t5" and name.endswith("self_attn"):
            stack = model.lm.encoder if name.startswith("encoder") else model.lm.decoder
            length = text.shape[1] if name.startswith("encoder") else x.shape[1]
            bias = stack.block[0].layer[0].SelfAttention.compute_bias(length, length)
            scores = scores + F.pad(bias, (0, x.shape[1] - length, 0, x.shape[1] - length))
        if name == "decoder.self_attn":
            look = torch.ones(x.shape[1], x.shape[1]).tril().bool()
        else:
            look = F.pad(text != model.lm.config.pad_token_id, (0, memory.shape[1] - text.shape[1]), value=True)
            look = look[:, None, None, :]
        scores = scores.masked_fill(~look, float("-inf"))

        of_prefix = Q @ P_k.mT
        sums = of_prefix.exp().sum(-1), scores.exp().sum(-1)
        share = (sums[0] / (sums[0] + sums[1]))[..., None]
        mixed = (1 - share) * (scores.softmax(-1) @ V) + share * (of_prefix.softmax(-1) @ P_v)
        expected = o(mixed.transpose(1, 2).flatten(2))
    assert 0.01 < share.mean() < 0.99
    torch.testing.assert_close(seen["output"], expected, atol=1e-4, rtol=1e-4)


@both
def test_an_attention_without_a_prefix_is_the_stock_one(family):
    """With the prefixes taken away again, the logits are those of the bare backbone, to rounding."""
    model, bare = tiny(family), tiny_model(family)
    for name in ATTENTIONS:
        for layer in range(2):
            del stock_attention(model, name, layer).edits
    with torch.no_grad():
        torch.testing.assert_close(model(**tiny_batch()), bare(**tiny_batch()), atol=1e-5, rtol=1e-5)


@both
def test_other_models_keep_their_implementation(family):
    before = tiny_model(family).lm.config._attn_implementation
    model = tiny(family)
    stack = model.lm.model if family == "bart" else model.lm
    assert {stack.encoder.config._attn_implementation, stack.decoder.config._attn_implementation} == {IMPLEMENTATION}
    assert tiny_model(family).lm.config._attn_implementation == before != IMPLEMENTATION
    assert IMPLEMENTATION in AttentionInterface()


@both
def test_an_attention_that_would_not_be_edited_is_refused(family, monkeypatch):
    """transformers 5.17 set the whole model's, and not that of T5's stacks; another version might set none."""
    monkeypatch.setattr(PreTrainedModel, "set_attn_implementation", lambda model, name: None)
    with pytest.raises(UserError, match=r"^transformers 5\S+ does not let \w+Attention be edited"):
        tiny(family)


@both
@pytest.mark.parametrize("beams", [1, 3])
def test_generation_with_a_cache_is_generation_without(family, beams):
    """The cache holds no prefix: the words, and every score along the way, are those of the whole sequence anew."""
    model, batch = tiny(family), tiny_batch()
    batch.pop("targets")
    bare, settings = tiny_model(family), {"num_beams": beams, "max_length": 9}
    for m in (model, bare):
        m.lm.generation_config.suppress_tokens = [0]  # all that the random T5 would say
    cached = model.generate(batch, **settings)
    model.lm.generation_config.use_cache = False
    assert torch.equal(cached, model.generate(batch, **settings))
    assert not torch.equal(cached, bare.generate(batch, **settings))


@both
def test_cached_steps_are_teacher_forcing(family):
    model, batch = tiny(family), tiny_batch()
    ids = torch.cat([torch.zeros(3, 1, dtype=torch.long), torch.randint(5, 50, (3, 5))], dim=1)
    batch.pop("targets")
    with torch.no_grad():
        encoded = model.encode(**batch)
        whole, cache, steps = model.decode(encoded, ids), None, []
        for t in range(ids.shape[1]):
            out = model.lm(
                encoder_outputs=encoded, attention_mask=encoded.mask, decoder_input_ids=ids[:, t : t + 1],
                past_key_values=cache, use_cache=True,
            )  # fmt: skip
            cache = out.past_key_values
            steps.append(out.logits)
    assert cache.get_seq_length() == ids.shape[1]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=1e-4, rtol=1e-4)


@both
def test_the_decoder_stays_causal(family):
    model, batch = tiny(family), tiny_batch()
    changed = batch | {"targets": batch["targets"].clone()}
    changed["targets"][:, 2] = 7  # read from position 3 on
    with torch.no_grad():
        a, b = model(**batch), model(**changed)
    torch.testing.assert_close(a[:, :3], b[:, :3])
    assert not torch.allclose(a[:, 3:], b[:, 3:])


@both
def test_every_task_can_have_its_own(family):
    model, batch = tiny(family, per_task=True), tiny_batch()
    with torch.no_grad():
        assert not torch.equal(model(**batch), model(**batch | {"task": "gqa"}))
    model(**batch).logsumexp(-1).sum().backward()
    with_gradient = {name for name, p in trained_parameters(model).items() if p.grad is not None and "pet." in name}
    assert with_gradient == {name for name in trained_parameters(model) if ".of.vqa." in name}


def test_counts():
    """Per kind of attention: T (m, d), W_1 (h, d) and b_1, W_2 (layers · 2 d, h) and b_2."""
    d, layers, length, hidden = 32, 2, 3, 8
    one = length * d + hidden * d + hidden + layers * 2 * d * hidden + layers * 2 * d
    assert count(tiny("bart"))["groups"]["prefix"] == 3 * one
    assert count(tiny("bart", attentions=["decoder.self_attn"]))["groups"]["prefix"] == one
    assert build_method(MethodSpec("prefix-tuning"), BART.anatomy).hidden == 16


def test_what_cannot_be():
    with pytest.raises(UserError, match=r"attentions\.0: Input should be 'vision.self_attn', 'encoder.self_attn'"):
        tiny("bart", attentions=["encoder.cross_attn"])
    with pytest.raises(UserError, match='"prefix" is no insert: it cannot be merged'):
        merge(tiny("bart"))
