"""What an answer takes: operations against counts by hand, merged against unmerged."""

from __future__ import annotations

from mmap import mmap

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pet_bench.data.batches import Batch, TaskBatches, labels_of
from pet_bench.data.reading import read_data
from pet_bench.pet import build_method
from pet_bench.results.consistency import contradictions
from pet_bench.spec import MethodSpec
from pet_bench.trial.build import Pace
from pet_bench.trial.evaluate import predict
from pet_bench.trial.inference import KERNELS, flops, latency, merged
from pet_bench.trial.memory import Samples, memory_now, peak_memory
from pet_bench.trial.run import run_trial
from tests.pet.minis import mini, nudge, stock
from tests.tiny import VISUAL, tiny_batch, tiny_model

CPU = torch.device("cpu")
B, L, T, P = 3, 7, 4, VISUAL.pooled  # of `tiny_batch`
N = L + P
D, FF, LAYERS = 32, 64, 2


def tiny() -> Batch:
    given = tiny_batch()
    targets, task = given.pop("targets"), given.pop("task")
    empty = torch.zeros(B)
    return Batch(task, ("a", "b", "c"), given, targets, labels_of(targets), empty, empty)


def stack(length: int, memory: int = 0) -> int:
    """Of one layer: projections, scores and sums of values, feed-forward; a decoder's reads the memory too."""
    own = 4 * 2 * length * D * D + 2 * 2 * length * length * D
    cross = (2 * length + 2 * memory) * 2 * D * D + 2 * 2 * length * memory * D if memory else 0
    return own + cross + 2 * 2 * length * D * FF


# features and boxes enter by a linear layer each, the boxes' being one row for all
SEEN = B * P * 2 * VISUAL.width * D + 2 * 5 * D


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_operations_of_a_stock_model_are_those_counted_by_hand(family):
    model = tiny_model(family)
    rows = len(model.words)
    expected = B * LAYERS * (stack(N) + stack(T, N)) + B * T * 2 * D * rows + SEEN
    assert flops(model, tiny()) == expected / B


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_they_are_what_the_counter_of_torch_says(family):
    """Of attention written out as products of matrices, which it knows on every device."""
    model, batch = tiny_model(family, "lora"), tiny()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.logits(batch.inputs, batch.targets)
    assert flops(model, batch) == counter.get_total_flops() / B


def test_attention_of_this_processor_is_counted_as_any_other():
    query, key = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 7, 8)
    with FlopCounterMode(display=False, custom_mapping=KERNELS) as counter:
        F.scaled_dot_product_attention(query, key, key, enable_gqa=True)
    assert counter.get_total_flops() == 2 * 2 * (2 * 4 * 5 * 7 * 8)


def test_a_low_rank_update_costs_its_two_products_until_it_is_merged():
    rank, model, plain = 4, tiny_model("bart", "lora", rank=4), tiny_model("bart")
    batch, stock_flops = tiny(), flops(plain, tiny())
    inserted = [module for name, module in model.pet.named_modules() if name.endswith(".delta")]
    assert inserted
    extra = flops(model, batch) - stock_flops
    sites = build_method(MethodSpec("lora", {"rank": rank}), model.anatomy).design(model.anatomy).inserts[0].sites
    passes = {"encoder": N, "decoder": T}
    tokens = sum(LAYERS * (N if "cross_attn.key" in s or "cross_attn.value" in s else passes[s.split(".")[0]])
                 for s in sites)  # fmt: skip
    assert extra == tokens * 2 * rank * (D + D)
    undo = merged(nudge(model), "vqa")
    assert undo is not None
    assert flops(model, batch) == stock_flops
    undo()
    assert flops(model, batch) == stock_flops + extra


@pytest.mark.parametrize("method", ["adapter", "prompt-tuning", "projector-only", "full", "bitfit"])
def test_what_cannot_be_merged_or_has_nothing_to_merge(method):
    assert merged(tiny_model("bart", method), "vqa") is None


@pytest.mark.parametrize(("family", "method"), [("bart", "lora"), ("t5", "mtl-lora"), ("t5", "ia3")])
def test_merged_and_unmerged_say_the_same(family, method, mini_trial, runtime):
    spec = mini_trial(method, f"mini-{family}", suite="mini-image-text/vqa+nlvr2")
    data, model = read_data(spec, runtime), nudge(mini(family, method))
    reader = stock(family)[0].family.reader(stock(family)[1])
    for task in data.tasks:
        batches = TaskBatches(task, data.examples[task.name]["test"][:8], reader, data.store)
        (batch,) = batches.eval_batches(8)
        before, logits = predict(model, reader, batches, 8, spec.recipe), _logits(model, batch)
        undo = merged(model, task.name)
        assert undo is not None
        assert predict(model, reader, batches, 8, spec.recipe) == before
        assert torch.allclose(_logits(model, batch), logits, atol=1e-3, rtol=1e-4)
        undo()
        assert predict(model, reader, batches, 8, spec.recipe) == before
        assert torch.equal(_logits(model, batch), logits)


@torch.no_grad()
def _logits(model, batch):
    return model.logits(batch.inputs, batch.targets)


def test_latency_is_the_median_over_batches():
    assert latency([Pace(10, 5.0), Pace(10, 1.0), Pace(2, 0.4)]) == 0.2


# in a trial -----------------------------------------------------------------------------------------------------------


def test_a_trial_says_what_its_answers_take(mini_trial, runtime):
    suite = "mini-image-text/vqa+nlvr2"
    results = {
        method: run_trial(mini_trial(method, suite=suite, recipe={"max_steps": 2}), runtime)
        for method in ("lora", "adapter", "projector-only")
    }
    assert not any(result.run.notes or contradictions(result) for result in results.values())
    for result in results.values():
        assert [*result.inference] == ["vqa", "nlvr2"]
        assert all(taken.latency_seconds > 0 for taken in result.inference.values())
        assert result.inference["vqa"].batch_size == 24
    for task in ("vqa", "nlvr2"):
        lora, adapter, plain = (result.inference[task] for result in results.values())
        assert lora.flops > plain.flops < adapter.flops
        assert lora.merged_flops == plain.flops
        assert lora.merged_latency_seconds > 0
        assert (adapter.merged_flops, plain.merged_flops, plain.merged_latency_seconds) == (None, None, None)
    assert results["lora"].inference["nlvr2"].flops > results["lora"].inference["vqa"].flops  # two images


def test_memory_is_sampled_at_every_update_and_batch(mini_trial, runtime, monkeypatch):
    taken = []
    real = Samples.take
    monkeypatch.setattr(Samples, "take", lambda self, device: taken.append(device) or real(self, device))
    result = run_trial(mini_trial("lora", suite="mini-image-text/vqa", recipe={"max_steps": 5}), runtime)
    batches = -(-result.metrics["vqa"]["accuracy"].n // 24)
    assert taken == [CPU] * (5 + batches)
    assert 0 < result.cost.p99_memory_bytes <= 1.01 * result.cost.peak_memory_bytes


def test_the_percentile_is_that_of_numpy():
    samples = Samples()
    assert samples.percentile(99) is None
    for count in (1, 2, 7, 250):
        samples.bytes.extend(map(int, np.random.default_rng(count).integers(0, 2**40, count)))
        assert samples.percentile(99) == pytest.approx(np.percentile(samples.bytes, 99), abs=1)


def test_memory_now_is_this_process():
    before = memory_now(CPU)
    with mmap(-1, size := 64 * 2**20) as fresh:  # torch may have as much left of what it no longer needs
        fresh.write(b"\1" * size)
        assert before is not None
        assert 48 * 2**20 < memory_now(CPU) - before <= peak_memory(CPU)
