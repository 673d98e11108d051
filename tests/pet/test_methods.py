"""Properties of every registered method on both mini backbones."""

from __future__ import annotations

import json
import subprocess
import sys
from operator import itemgetter

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from pet_bench.pet import build_method, count, default_spec, load_trained, save_trained, trained_parameters
from pet_bench.pet.select import select
from pet_bench.spec import MethodSpec
from tests.conftest import ROOT, one_each
from tests.pet.minis import CASES, SUITE, alone, batch, built, every, logits, mini, nudge, stock

FRESH = one_each(CASES, itemgetter(1), "fresh")
not_invariant = pytest.mark.parametrize(
    ("family", "method"), [(f, m) for f, m in CASES if not built(f, m).batch_invariant]
)


@every
def test_identity_at_start_where_claimed(family, method):
    """To the last bit."""
    same = torch.equal(logits(mini(family, method), batch(family)), logits(mini(family), batch(family)))
    assert same == built(family, method).identity_at_start


@every
def test_gradients_reach_exactly_what_is_declared(family, method):
    """In float64, where what is zero in exact arithmetic and what is merely small are far apart."""
    model = nudge(mini(family, method)).double()
    design = built(family, method).design(model.anatomy)
    declared = {name for name, _ in model.named_parameters() if name.startswith("pet.")}
    declared = declared.union(*(select(model, selector) for selector in design.train))
    declared = declared.union(*(door.trained(model) for door in design.doors))
    task, *others = SUITE.tasks
    others = {name for name in declared if set(name.split(".")) & {*others, "noise"}}  # routers' is of training alone

    # Both images and their boxes: without them the weights that read them have no part.
    inputs = batch(family, images=2, task=task) | {"boxes": torch.rand(3, 2, SUITE.visual.tokens, 4).double()}
    out = model(**inputs | {"features": inputs["features"].double()})
    loss = (out.log_softmax(-1) * torch.randn_like(out)).sum()
    (loss + sum(door.penalty(model) for door in design.doors)).backward()
    gradients = {name: p.grad.abs().max() for name, p in model.named_parameters() if p.grad is not None}
    assert gradients.keys() == declared - others
    still = {name for name, size in gradients.items() if size < 1e-9 * max(gradients.values())}
    # A softmax does not see what all of its scores have in common.
    seen_by_none = (".k_proj.bias", ".k.bias", ".key.0.delta.beta", ".confidence.bias")
    assert still == {name for name in declared if name.endswith(seen_by_none)}


@every
def test_save_and_load(family, method, tmp_path):
    model, path = nudge(mini(family, method)), tmp_path / "adapter.safetensors"
    trained = trained_parameters(model)
    size = save_trained(model, path)
    assert size == path.stat().st_size
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == set(trained)
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    assert size - header == sum(4 * parameter.numel() for parameter in trained.values())
    other = mini(family, method)
    assert not torch.equal(logits(other, batch(family)), logits(model, batch(family)))
    load_trained(other, path)
    assert torch.equal(logits(other, batch(family)), logits(model, batch(family)))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Logits of every method here, those of its saved tensors in a process of its own, and what that one printed."""
    folder = tmp_path_factory.mktemp("fresh")
    here = {}
    for family, method in FRESH:
        model = nudge(mini(family, method))
        save_trained(model, folder / f"{family} {method}.safetensors")
        here[f"{family} {method}"] = logits(model, batch(family))
    done = subprocess.run(
        [sys.executable, "-m", "tests.pet.fresh", folder], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    return here, load_file(folder / "logits"), done.stderr


@pytest.mark.xdist_group("fresh")
@pytest.mark.parametrize(("family", "method"), FRESH)
def test_the_same_in_a_fresh_process(family, method, fresh):
    here, there, printed = fresh
    assert f"{family} {method}" in there, printed
    torch.testing.assert_close(there[f"{family} {method}"], here[f"{family} {method}"], atol=1e-5, rtol=1e-5)


def differences(model, family) -> list[float]:
    """Of an example's logits, alone, from those in a batch and from those with padding, relative to the largest."""
    inputs, pad, row = batch(family), model.lm.config.pad_token_id, 1
    tokens = inputs["targets"][row] != -100
    apart = logits(model, alone(inputs, row, pad))[0, tokens]
    padded = logits(model, alone(inputs, row, pad, extra=5))[0, tokens]
    together = logits(model, inputs)[row, tokens]
    return [float((other - apart).abs().max() / apart.abs().max()) for other in (together, padded)]


@every
def test_batch_and_padding_do_not_matter(family, method):
    """Or do, where the method says so."""
    found = differences(nudge(mini(family, method)), family)
    assert max(found) < 1e-5 if built(family, method).batch_invariant else min(found) > 1e-4


@not_invariant
def test_a_masked_gate_does_not_depend_on_the_batch(family, method):
    options = {"gate_padding": "masked"}
    assert built(family, method, **options).batch_invariant
    assert max(differences(nudge(mini(family, method, **options)), family)) < 1e-5


@every
def test_generation_agrees_with_teacher_forcing(family, method):
    """Each word is the likeliest after those before it: keys and values kept between steps lose nothing."""
    model = nudge(mini(family, method))
    inputs = {key: value for key, value in batch(family).items() if key != "targets"}
    words = model.generate(inputs, num_beams=1, max_length=6)
    likeliest = logits(model, inputs | {"targets": words}).argmax(-1)
    ended = (words == model.lm.config.eos_token_id).cumsum(1) - (words == model.lm.config.eos_token_id).long()
    assert torch.equal(likeliest.where(ended == 0, words), words)


@every
def test_bfloat16_agrees(family, method):
    model = nudge(mini(family, method))
    full = logits(model, batch(family))
    with torch.autocast("cpu", torch.bfloat16):
        half = logits(model, batch(family))
    assert not torch.equal(half.float(), full)
    assert (half.float() - full).norm() < 0.02 * full.norm()


@every
def test_counts_add_up(family, method):
    model, bare = mini(family, method), mini(family)
    counts, names = count(model), dict(model.named_parameters())
    trained = [parameter.numel() for parameter in names.values() if parameter.requires_grad]
    stock = dict(bare.named_parameters())
    added = [names[name].numel() for name in names.keys() - stock.keys()]
    kept = [stock[name].numel() for name in names.keys() & stock.keys()]  # without a visual embedding that was replaced
    assert sum(counts["groups"].values()) == counts["trainable"] == sum(trained)
    assert counts["total"] == sum(added) + sum(kept)
    assert counts["percent"] == 100 * counts["trainable"] / counts["total"]
    visual = sum(parameter.numel() for parameter in model.visual.parameters() if parameter.requires_grad)
    assert counts["groups"].get("visual", 0) == visual


@every
def test_a_resolved_spec_is_the_same_method(family, method):
    first = built(family, method)
    spec = default_spec(first)
    again = MethodSpec(spec.name, json.loads(json.dumps(spec.options)))
    assert build_method(again, stock(family)[0].anatomy) == first
