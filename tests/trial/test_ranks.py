"""A trial in several processes is that of one."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from pet_bench.errors import Stop
from pet_bench.results.predictions import name as file_of
from pet_bench.trial import ranks
from pet_bench.trial.ranks import Ranks, together
from pet_bench.trial.run import run_trial
from pet_bench.trial.train import Training

pytestmark = pytest.mark.xdist_group("ranks")


def options(**recipe):
    return {"suite": "mini-image-text/vqa+coco-caption", "recipe": {"max_steps": 4, "batch_size": 7, **recipe}}


@pytest.mark.parametrize(("method", "count"), [("lora", 2), ("hyperformer", 3)])
def test_two_are_one(method, count, mini_trial, runtime):
    """Within rounding: what it learnt, its losses, its predictions; parts of a batch count by their words or rows."""
    spec = mini_trial(method, **options())
    one = run_trial(spec, runtime)
    tensors = load_file(runtime.out / spec.id / "adapter.safetensors")
    several = replace(runtime, out=runtime.out / "several", ranks=count)
    more = run_trial(spec, several)
    assert (more.status, more.parameters, more.cost.steps) == (one.status, one.parameters, one.cost.steps)
    for name, tensor in load_file(several.out / spec.id / "adapter.safetensors").items():
        torch.testing.assert_close(tensor, tensors[name], rtol=1e-3, atol=1e-5)
    for ours, theirs in zip(more.curve, one.curve, strict=True):
        assert (ours.split, ours.task, ours.step) == (theirs.split, theirs.task, theirs.step)
        if theirs.loss is not None:
            assert ours.loss == pytest.approx(theirs.loss, rel=1e-4)
    for task in spec.tasks:
        ours, theirs = ((r.out / file_of(spec.id, task)).read_bytes() for r in (several, runtime))
        assert ours == theirs


def test_interrupted_it_goes_on_to_the_bit(mini_trial, runtime):
    """Dropout and all: each update draws from a seed of its own."""
    spec = mini_trial({"name": "lora", "dropout": 0.3}, **options())
    runtime = replace(runtime, ranks=2, checkpoint_steps=1)
    run_trial(spec, runtime)
    whole = load_file(runtime.out / spec.id / "adapter.safetensors")

    def stop(progress):
        if progress.phase == "train" and progress.step == 2:
            raise Stop

    again = replace(runtime, out=runtime.out / "again")
    with pytest.raises(Stop):
        run_trial(spec, again, stop)
    result = run_trial(spec, again)
    assert result.run.resumed == [2]
    for name, tensor in load_file(again.out / spec.id / "adapter.safetensors").items():
        assert torch.equal(tensor, whole[name]), name


def test_a_lost_process_is_named_and_the_trial_goes_on(mini_trial, runtime, monkeypatch):
    spec, started = mini_trial("lora", **options()), []
    popen = ranks.subprocess.Popen

    def noted(*arguments, **more):
        started.append(popen(*arguments, **more))
        return started[-1]

    def kill(progress):
        if progress.phase == "train" and progress.step == 2:
            os.kill(started[0].pid, signal.SIGKILL)

    monkeypatch.setattr(ranks.subprocess, "Popen", noted)
    runtime = replace(runtime, ranks=2, checkpoint_steps=1)
    with pytest.raises(RuntimeError, match=r"lost process 1 \(-9\) of 2 of the trial"):
        run_trial(spec, runtime, kill)
    result = run_trial(spec, runtime)
    assert result.status in ("done", "suspect")
    assert result.run.resumed == [2]


def test_who_cannot_begin_is_not_waited_for(mini_trial, runtime):
    spec = mini_trial("lora")
    with (
        pytest.raises(RuntimeError, match="lost process 1"),
        together(spec, replace(runtime, ranks=2, plugins=("nowhere.py",))),
    ):
        pytest.fail("it began")


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_every_row_is_somebodys(count, mini_trial, runtime):
    from pet_bench.trial.build import build_trial

    batch = next(Training(build_trial(mini_trial("lora", **options()), runtime)).joint.epoch(0))
    shares = [Ranks(rank, count).share(batch) for rank in range(count)]
    assert [id for share in shares if share for id in share.ids] == list(batch.ids)
    assert shares[0] is not None
