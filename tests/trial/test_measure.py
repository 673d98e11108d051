from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from pet_bench.errors import UserError
from pet_bench.trial.build import build_trial
from pet_bench.trial.measure import Measured, Workload, measure, workload
from pet_bench.trial.run import run_trial
from pet_bench.trial.shared import Shared
from pet_bench.trial.train import Training


def sizes(data):
    return {task: {split: len(examples) for split, examples in parts.items()} for task, parts in data.examples.items()}


@pytest.mark.parametrize(
    "recipe",
    [
        {"max_steps": None, "epochs": 3},
        {"max_steps": None, "epochs": 1, "batch_size": 7},
        {"max_steps": 5},
        {"max_steps": 10**6, "epochs": 2},
    ],
)
def test_updates_are_those_that_training_makes(recipe, mini_trial, runtime):
    spec = mini_trial(recipe=recipe)
    trial = build_trial(spec, runtime)
    training, work = Training(trial), workload(spec, trial.data.tasks, sizes(trial.data))
    assert (work.steps, work.epoch) == (training.total, training.joint.counts)


@pytest.mark.parametrize("valid_every, accumulation", [(2, 1), (0, 2)])
def test_the_workload_is_what_a_trial_does(valid_every, accumulation, mini_trial, runtime):
    runtime = replace(runtime, accumulation=accumulation)
    recipe = {"max_steps": None, "epochs": 3, "batch_size": 80, "valid_every": valid_every}
    spec = mini_trial(suite="mini-image-text/vqa+nlvr2", recipe=recipe)
    seen, shared = [], Shared()
    result = run_trial(spec, runtime, seen.append, shared)
    data = shared.data(spec, runtime)
    work = workload(spec, data.tasks, sizes(data), accumulation)
    assert result.cost.steps == work.steps == 3 * sum(work.epoch.values())
    assert sum(work.evaluation.values()) == sum(progress.phase == "evaluate" for progress in seen)


def test_seconds_are_those_of_the_work():
    measured = Measured({"a": 2.0, "b": 5.0}, {"a": 0.5, "b": 1.0}, before=3.0, peak_memory_bytes=0)
    work = Workload(epoch={"a": 3, "b": 1}, evaluation={"a": 4, "b": 7}, steps=8)
    assert measured.seconds(work) == 3.0 + 2 * (3 * 2.0 + 5.0) + 4 * 0.5 + 7 * 1.0


@pytest.mark.parametrize("control", ["none", "text-only"])
def test_measuring_leaves_no_trace(control, mini_trial, runtime):
    def state():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before, threads = state(), torch.get_num_threads()
    spec = mini_trial("lora", control=control, recipe={"max_steps": 1})
    measured = measure(spec, runtime, steps=1)
    assert measured.update.keys() == measured.evaluation.keys() == set(spec.tasks)
    assert all(seconds > 0 for seconds in (*measured.update.values(), *measured.evaluation.values()))
    assert measured.peak_memory_bytes > 0
    assert state() == before
    assert torch.get_num_threads() == threads
    assert not runtime.out.exists()


def test_what_cannot_be_read_is_said(mini_trial, runtime, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        measure(mini_trial(), replace(runtime, data=tmp_path / "nowhere"))
