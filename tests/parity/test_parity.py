"""Equal to the reference implementations: states, logits, losses, gradients, generation and three updates.

The fixtures are what the authors' own code computed on tiny models (../shared/parity/README.md, tolerances there).
"""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from pet_bench.trial.loss import per_token_loss, reduce_loss
from pet_bench.trial.optim import ReferenceAdamW, decayed, linear_schedule
from tests.conftest import SHARED
from tests.parity.reference import Fixture, method_of, model_of, rename, translate

PATHS = sorted((SHARED / "parity").glob("*.safetensors"))
REDUCTION = {"vqa": "score-weighted", "gqa": "sample-mean", "nlvr": "sample-mean", "caption": "token-mean"}
if not PATHS:
    pytest.skip(f"no parity fixtures in {SHARED / 'parity'}", allow_module_level=True)


@lru_cache(maxsize=1)
def read(path):
    return Fixture.read(path)


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def fixture(request):
    fixture = read(request.param)
    if method_of(fixture) is None:
        pytest.skip("no registered method has these flags")
    return fixture


def batch_of(fixture, task):
    batch = fixture.section("input.nlvr" if task == "nlvr" else "input.vqa")
    if batch["vis_feats"].dim() == 3:
        batch = batch | {"vis_feats": batch["vis_feats"][:, None], "boxes": batch["boxes"][:, None]}
    return batch


def loss_of(model, fixture, task):
    batch = batch_of(fixture, task)
    logits = model(batch["input_ids"], batch["vis_feats"], batch["target_ids"], batch["boxes"], task=task)
    return reduce_loss(
        per_token_loss(logits, batch["target_ids"]), batch["target_ids"], REDUCTION[task], batch.get("scores")
    )


def close(ours, reference, tolerance):
    assert ours.shape == reference.shape
    assert (ours - reference).abs().max() <= tolerance * reference.abs().max()


@pytest.mark.parametrize("task", ["vqa", "nlvr"])
def test_states_and_logits(fixture, task):
    model, batch = model_of(fixture, method_of(fixture)), batch_of(fixture, task)
    with torch.no_grad():
        encoded = model.encode(batch["input_ids"], batch["vis_feats"], batch["boxes"], task=task)
        logits = model.decode(encoded, model.shift_right(batch["target_ids"]))
    close(encoded.last_hidden_state, fixture.tensors[f"output.{task}/encoder_last_hidden_state"], 1e-5)
    close(logits, fixture.tensors[f"output.{task}/logits"], 1e-5)
    losses = per_token_loss(logits, batch["target_ids"])
    close(losses, fixture.tensors[f"output.{task}/loss_per_token"], 1e-5)


@pytest.mark.parametrize("task", REDUCTION)
def test_losses(fixture, task):
    loss = loss_of(model_of(fixture, method_of(fixture)), fixture, task)
    close(loss.reshape(1), fixture.tensors[f"output.{task}/loss"], 1e-5)


@pytest.mark.parametrize("task", ["vqa", "nlvr"])
def test_gradients(fixture, task):
    model = model_of(fixture, method_of(fixture))
    # the unfused kernel: the fused one's rounding shows where a gradient is zero in exact arithmetic (key biases)
    with sdpa_kernel(SDPBackend.MATH):
        loss_of(model, fixture, task).backward()
    reference = translate(fixture.section(f"grad.{task}"), fixture.family)
    ours = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert ours.keys() == reference.keys(), sorted(ours.keys() ^ reference.keys())
    floor = 1e-4 * max(gradient.abs().max() for gradient in reference.values())
    for name, gradient in reference.items():
        error = (ours[name] - gradient).abs().max()
        assert error <= 2e-3 * max(gradient.abs().max(), floor), name


def test_counts(fixture):
    model = model_of(fixture, method_of(fixture))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == fixture.about["trainable_count"]
    assert sum(p.numel() for p in model.parameters()) == fixture.about["total_count"]


@pytest.mark.parametrize("beams", [1, 5])
def test_generation(fixture, beams):
    key = f"output.vqa/generate_beams{beams}"
    if key not in fixture.tensors:
        pytest.skip("ablation fixtures hold no generated ids")
    model, batch = model_of(fixture, method_of(fixture)), batch_of(fixture, "vqa")
    lengths = {"num_beams": beams, "max_length": 10}
    ids = model.generate(batch["input_ids"], batch["vis_feats"], boxes=batch["boxes"], task="vqa", **lengths)
    expected = fixture.tensors[key]
    padded = torch.full_like(expected, model.lm.config.pad_token_id)
    padded[:, : ids.shape[1]] = ids
    assert torch.equal(padded, expected)


def test_three_updates(fixture):
    record = fixture.about["three_steps"]
    if record is None:
        pytest.skip("no record of updates in this fixture")
    model = model_of(fixture, method_of(fixture))
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in trained if decayed(name)} == {rename(n, fixture.family) for n in record["decayed_names"]}
    optimizer = ReferenceAdamW(
        [
            {"params": [p for n, p in trained.items() if decayed(n)], "weight_decay": record["weight_decay"]},
            {"params": [p for n, p in trained.items() if not decayed(n)], "weight_decay": 0.0},
        ],
        lr=record["base_lr"], betas=tuple(record["betas"]), eps=record["eps"],
    )  # fmt: skip
    schedule = linear_schedule(optimizer, warmup=2, total=20)
    for task, lr, norm in zip(record["order"], record["lr_used"], record["grad_norm_before_clip"], strict=True):
        assert schedule.get_last_lr()[0] == pytest.approx(lr)
        loss_of(model, fixture, task).backward()
        assert torch.nn.utils.clip_grad_norm_(trained.values(), record["clip"]).item() == pytest.approx(norm, rel=1e-3)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    for name, expected in translate(fixture.section("after3"), fixture.family).items():
        # a key projection's bias has no gradient in exact arithmetic: Adam turns its rounding noise into full steps
        limit = 2 * record["base_lr"] if "k_proj.bias" in name else 2e-5 * max(1.0, expected.abs().max().item())
        assert (trained[name] - expected).abs().max() <= limit, name
