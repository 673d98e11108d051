"""MTL-LoRA and what else its part can be: MoSLoRA, HydraLoRA; merged for one task."""

from __future__ import annotations

import pytest
import torch

from pet_bench.errors import UserError
from pet_bench.methods.mtl_lora import MixedLowRank
from pet_bench.pet import attach, build_method, merge
from pet_bench.spec import MethodSpec
from tests.followups.places import away, projection
from tests.pet.minis import batch, logits, mini, nudge
from tests.tiny import TINY, tiny_model

both = pytest.mark.parametrize("family", TINY)


def test_moslora_by_hand():
    """Wu et al. 2024, section 3: y = W x + (alpha/r) B M A x."""
    layer = away(projection(6, 5, MixedLowRank(rank=3, alpha=2.0, mixers="shared", mixer_start="orthogonal")))
    f, x = layer.inserted.delta, torch.randn(2, 4, 6)
    expected = torch.einsum("or,rs,si,bti->bto", f.B[0], f.mixer, f.A, x) * 2 / 3
    torch.testing.assert_close(
        layer(x) - torch.nn.functional.linear(x, layer.module.weight, layer.module.bias), expected
    )


def test_hydralora_by_hand():
    """Tian et al. 2024, equation 5: y = W x + (alpha/r) Σ_i ω_i B_i A x, ω = softmax(W_g x) of each token."""
    delta = MixedLowRank(rank=3, alpha=2.0, ups=4, mixer="none", router="token")
    layer = away(projection(6, 5, delta))
    f, x = layer.inserted.delta, torch.randn(2, 4, 6)
    omega = torch.softmax(torch.einsum("ki,bti->btk", f.W, x), -1)
    expected = torch.einsum("btk,kor,ri,bti->bto", omega, f.B, f.A, x) * 2 / 3
    torch.testing.assert_close(
        layer(x) - torch.nn.functional.linear(x, layer.module.weight, layer.module.bias), expected
    )


@both
def test_it_is_merged_for_one_task(family):
    model = nudge(mini(family, "mtl-lora"))
    apart = {task: logits(model, batch(family, task=task)) for task in ("vqa", "gqa")}
    assert not torch.allclose(*apart.values(), atol=1e-3)
    undo = merge(model, "gqa")
    torch.testing.assert_close(logits(model, batch(family, task="gqa")), apart["gqa"], atol=2e-5, rtol=2e-5)
    with pytest.raises(UserError, match='task "vqa": the method is merged for gqa'):
        logits(model, batch(family, task="vqa"))
    undo()
    assert torch.equal(logits(model, batch(family, task="vqa")), apart["vqa"])
    with pytest.raises(UserError, match='task "None": the method was built for vqa'):
        merge(model)


@both
@pytest.mark.parametrize(
    "options",
    [
        {"ups": 1, "mixers": "shared", "mixer_start": "orthogonal"},
        {"ups": 3, "mixer": "none", "router": "token", "temperature": 1.0},
        {"mixer": "diagonal"},
    ],
)
def test_settings_that_are_other_methods_start_as_the_backbone(family, options):
    model = mini(family, "mtl-lora", **options)
    assert torch.equal(logits(model, batch(family)), logits(mini(family), batch(family)))
    out = nudge(model)(**batch(family))
    out.logsumexp(-1).sum().backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if name.startswith("pet."))


@both
def test_tasks_are_asked_for(family):
    model = tiny_model(family)
    design = build_method(MethodSpec("mtl-lora"), model.anatomy).design(model.anatomy)
    with pytest.raises(UserError, match="a part for each task, but no tasks were named"):
        attach(model, design, ())
