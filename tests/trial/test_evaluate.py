"""Batches of an evaluation are as large as memory has room for, and what is predicted does not depend on them."""

from __future__ import annotations

import pytest
import torch

from pet_bench.trial.build import build_trial
from pet_bench.trial.evaluate import fitting, sizes_of, unheard
from pet_bench.trial.ranks import ALONE

GPU = torch.device("cuda")


@pytest.fixture
def trial(mini_trial, runtime):
    return build_trial(mini_trial("lora", suite="mini-image-text/vqa+nlvr2"), runtime)


def asked(trial, task, sizes, room):
    """Predictions of a task's test split, and how many examples each pass had, where `room` is how many may."""
    rows = []

    def counted(**given):
        rows.append(len(given["text"]))
        if rows[-1] > room:
            raise torch.OutOfMemoryError("too many rows")
        return encode(**given)

    encode, batches = trial.model.encode, trial.batches(task, "test")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial.model, "encode", counted)
        parts = fitting(trial.model, trial.reader, batches, sizes, trial.spec.recipe, unheard, ALONE)
    return ALONE.gathered(parts), rows


def test_the_largest_that_fits(trial):
    for task in trial.data.tasks:
        n = len(trial.batches(task, "test"))
        as_ever, rows = asked(trial, task, (5,), 5)
        assert max(rows) == 5
        larger, rows = asked(trial, task, sizes_of(5, GPU), 45)
        assert rows[:3] == [80, 40, 40]
        assert sum(rows[1:]) == n
        assert larger == as_ever


def test_the_last_one_may_fail(trial):
    task = trial.data.tasks[0]
    with pytest.raises(torch.OutOfMemoryError, match="too many rows"):
        asked(trial, task, sizes_of(5, GPU), 4)


def test_other_errors_are_not_taken_for_it(trial, monkeypatch):
    task, calls = trial.data.tasks[0], []
    monkeypatch.setattr(trial.model, "encode", lambda **_: calls.append(1) or [][1])
    with pytest.raises(IndexError):
        fitting(trial.model, trial.reader, trial.batches(task, "test"), (8, 4), trial.spec.recipe, unheard, ALONE)
    assert len(calls) == 1
