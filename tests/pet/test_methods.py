"""Properties of every registered method on both backbone families."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open

from pet_bench.errors import UserError
from pet_bench.methods.vl_pet import VLPET
from pet_bench.pet import Design, Insert, attach, build_method, count, load_trained, save_trained, trained_parameters
from pet_bench.pet.attach import select
from pet_bench.pet.deltas import Bottleneck
from pet_bench.registry import METHODS
from pet_bench.spec import MethodSpec
from tests.tiny import TINY, tiny_batch, tiny_model

every = pytest.mark.parametrize(("family", "method"), [(f, m) for f in TINY for m in METHODS.names()])


def logits_of(model, batch):
    with torch.no_grad():
        return model(**batch)


@every
def test_identity_at_start_where_claimed(family, method):
    model, bare = tiny_model(family, method), tiny_model(family)
    same = torch.allclose(logits_of(model, tiny_batch()), logits_of(bare, tiny_batch()), atol=1e-6)
    assert same == METHODS.get(method).identity_at_start


@every
def test_gradients_reach_exactly_what_is_declared(family, method):
    model = tiny_model(family, method, **_not_zero(method))
    design = build_method(MethodSpec(method), model.shape).design(model.shape)
    declared = set().union(*(select(model, selector) for selector in design.train))
    declared |= {name for name, _ in model.named_parameters() if name.startswith("pet.")}
    _nudge(model)
    batch = tiny_batch(images=2) | {"boxes": torch.rand(3, 2, 9, 4)}  # without boxes their weights have no part
    model(**batch).logsumexp(-1).square().sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    assert reached == declared
    still = {name for name in declared if not model.get_parameter(name).grad.abs().max() > 0}
    assert all("k_proj.bias" in name or "embed_positions" in name for name in still), still


def _not_zero(method):
    if issubclass(METHODS.get(method), VLPET):
        return {"module_init": "default", "gate_init": "default", "value_init": "default"}
    return {}


def _nudge(model):
    """Away from points where a gradient is zero by symmetry (LoRA's B = 0)."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in trained_parameters(model).values():
            parameter.add_(0.05 * torch.randn_like(parameter))


@every
def test_save_and_load(family, method, tmp_path):
    model, path = tiny_model(family, method), tmp_path / "adapter.safetensors"
    _nudge(model)
    assert save_trained(model, path) == path.stat().st_size
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == set(trained_parameters(model))
    other = tiny_model(family, method)
    assert not torch.equal(logits_of(other, tiny_batch()), logits_of(model, tiny_batch()))
    load_trained(other, path)
    assert torch.equal(logits_of(other, tiny_batch()), logits_of(model, tiny_batch()))


@every
def test_batch_and_padding_do_not_matter(family, method):
    """Or do, where the method says so."""
    model, batch = tiny_model(family, method), tiny_batch()
    _nudge(model)
    pad = model.lm.config.pad_token_id
    alone = {key: value[1:2] for key, value in batch.items()}
    padded = {**batch, "text": torch.nn.functional.pad(batch["text"], (0, 5), value=pad)}
    apart = logits_of(model, alone)
    for together in (logits_of(model, batch)[1:2], logits_of(model, padded)[1:2]):
        if METHODS.get(method).batch_invariant:
            torch.testing.assert_close(together, apart, atol=1e-4, rtol=1e-4)
    if not METHODS.get(method).batch_invariant:
        assert not torch.allclose(logits_of(model, padded)[1:2], apart, atol=1e-4)


@every
def test_counts_add_up(family, method):
    counts = count(tiny_model(family, method))
    assert sum(counts["groups"].values()) == counts["trainable"] <= counts["total"]
    assert counts["groups"]["visual"] == sum(p.numel() for p in tiny_model(family).visual.parameters())


@every
def test_bfloat16_agrees(family, method):
    model, batch = tiny_model(family, method), tiny_batch()
    full = logits_of(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        half = logits_of(model, batch)
    assert (half.float() - full).norm() < 0.05 * full.norm()


def test_load_refuses_another_methods_tensors(tmp_path):
    path = tmp_path / "adapter.safetensors"
    save_trained(tiny_model("bart", "lora"), path)
    with pytest.raises(UserError, match="is not trained by this method"):
        load_trained(tiny_model("bart", "vl-adapter"), path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="no readable safetensors file"):
        load_trained(tiny_model("bart", "lora"), path)


def test_all_faults_of_a_design_at_once():
    design = Design((Insert(("encoder.self_atn", "decoder.ffn"), Bottleneck(4)),), train=("visual", "lm.*.nothing"))
    with pytest.raises(UserError) as error:
        attach(tiny_model("t5"), design)
    assert error.value.faults == (
        error.value.faults[0],
        'selector "lm.*.nothing" matches no parameter of tiny-t5 (possible: all, visual, norms, encoder.norms, '
        "decoder.norms, biases, encoder.biases, decoder.biases, or a pattern over parameter names)",
    )
    assert error.value.faults[0].startswith('unknown site "encoder.self_atn": did you mean "encoder.self_attn"?')


def test_a_selector_that_t5_cannot_meet_is_an_error():
    with pytest.raises(UserError, match='selector "biases" matches no parameter of tiny-t5'):
        tiny_model("t5", "lora", biases=True)


def test_inserts_on_one_site_apply_in_order():
    """H' = 2 (3 H): two scales on one sub-layer, and none of it left on the others."""
    model, bare = tiny_model("bart"), tiny_model("bart")
    site = ("encoder.self_attn",)
    attach(model, Design((Insert(site, scale=3.0), Insert(site, scale=2.0))))
    seen = []
    for m in (model, bare):
        m.lm.model.encoder.layers[0].self_attn.register_forward_hook(lambda module, args, out: seen.append(out[0]))
        logits_of(m, tiny_batch())
    torch.testing.assert_close(seen[0], 6 * seen[1])
