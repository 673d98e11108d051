"""A batch in parts: the gradient of the parts together is that of the whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pet_bench.backbone import Reader, find_backbone, load
from pet_bench.data.reading import read_data
from pet_bench.methods.peft_bridge import PeftDoor
from pet_bench.pet import attach, build_method
from pet_bench.spec import MethodSpec
from pet_bench.trial.build import Trial, seed_everything
from pet_bench.trial.run import run_trial
from pet_bench.trial.train import Training

PENALISED = {"name": "peft:adalora", "orth_reg_weight": 5.0, "tinit": 1, "tfinal": 1}


@pytest.mark.parametrize("size", [1, 7, 24])
@pytest.mark.parametrize("parts", [1, 2, 5, 30])
def test_parts_of_a_batch(size, parts, mini_trial, runtime):
    data = read_data(mini_trial(), runtime)
    _, tokenizer = load(find_backbone("mini-bart"), mini_trial().visual)
    trial = Trial(mini_trial(), None, Reader(tokenizer), data, torch.device("cpu"), print)
    batch = next(trial.batches(data.tasks[0], "train").train_batches(0, size, 0))
    found = batch.split(parts)
    sizes = [len(part) for part in found]
    assert len(found) == min(parts, size)
    assert sum(sizes) == size
    assert max(sizes) - min(sizes) <= 1
    assert sum((part.ids for part in found), ()) == batch.ids
    for name in ("text", "features"):
        assert torch.equal(torch.cat([part.tensors[name] for part in found]), batch.tensors[name])
    for name in ("targets", "scores", "indices"):
        assert torch.equal(torch.cat([getattr(part, name) for part in found]), getattr(batch, name))


@pytest.mark.parametrize("reduction", ["sample-mean", "score-weighted", "token-mean"])
@pytest.mark.parametrize("method", ["vl-pet-small", PENALISED])
def test_gradients_add_up_to_the_whole_batchs(method, reduction, mini_trial, runtime, monkeypatch):
    """Also where targets differ in length, a gate counts padding, and a door adds a penalty: once."""
    spec = mini_trial(method, suite="mini-image-text/coco-caption")
    seed_everything(0)
    model, tokenizer = load(find_backbone("mini-bart"), spec.visual)
    design = build_method(MethodSpec.parse(method), model.anatomy).design(model.anatomy)
    attach(model, design, spec.tasks)
    model.double().eval()  # no dropout
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)  # the loss would be in single precision
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *arguments: None)
    monkeypatch.setattr(PeftDoor, "after_step", lambda *arguments: None)
    found = {}
    for parts in (1, 2, 3, 20):
        trial = Trial(
            spec, model, Reader(tokenizer), read_data(spec, runtime), torch.device("cpu"), print, design.doors
        )
        trial.run.accumulation = parts
        training = Training(trial)
        training.reductions["coco-caption"] = reduction
        gradients = {}

        def keep(gradients=gradients, training=training):
            gradients |= {name: p.grad.clone() for name, p in training.trained.items() if p.grad is not None}

        monkeypatch.setattr(training.optimizer, "step", keep)
        monkeypatch.setattr(training.schedule, "step", lambda: None)
        batch = next(training.joint.epoch(0))
        assert len(set((batch.targets != -100).sum(1).tolist())) > 1
        scores = torch.linspace(0.1, 1.0, len(batch), dtype=torch.float64)
        training.update(
            replace(batch, tensors=batch.tensors | {"features": batch.tensors["features"].double()}, scores=scores)
        )
        found[parts] = training.unread.pop()[1].item(), gradients
    whole, gradients = found.pop(1)
    assert any(gradient.abs().max() > 1e-3 for gradient in gradients.values())
    for loss, others in found.values():
        assert loss == pytest.approx(whole, rel=1e-12)
        assert others.keys() == gradients.keys()
        for name in gradients:
            torch.testing.assert_close(others[name], gradients[name], rtol=1e-9, atol=1e-12)


def test_a_trial_in_parts_is_recorded(mini_trial, runtime):
    """Test batches are divided, too: as many are reported as there are parts."""
    spec, seen = mini_trial("lora", suite="mini-image-text/vqa", recipe={"max_steps": 3, "batch_size": 100}), []
    result = run_trial(spec, replace(runtime, accumulation=4), seen.append)
    n = result.metrics["vqa"]["accuracy"].n
    assert result.run.accumulation == 4
    assert result.cost.steps == 3
    assert {p.total_steps for p in seen if p.phase == "evaluate"} == {-(-n // 25)}
    assert result.run.peak_memory_bytes >= result.cost.peak_memory_bytes > 0
