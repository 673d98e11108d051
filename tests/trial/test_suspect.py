"""Results that nobody should trust say so."""

from __future__ import annotations

import pytest

from pet_bench.data.task import Example
from pet_bench.registry import TASKS
from pet_bench.results import store
from pet_bench.trial import evaluate
from pet_bench.trial.run import run_trial
from pet_bench.trial.suspect import suspicions


def examples(n, *answers):
    return [Example(str(i), "", (), ((answers[i % len(answers)], 1.0), ("rare", 0.3))) for i in range(n)]


def said(task, n, predicted, answers=("yes", "no"), primary=60.0, majority=50.0):
    predictions = {str(i): predicted[i % len(predicted)] for i in range(n)}
    return suspicions(TASKS.get(task)(), predictions, examples(n, *answers), primary, majority)


def test_predictions_that_have_collapsed():
    assert said("vqa", 500, ["yes"]) == ['vqa: all 500 predictions are "yes"']
    assert said("vqa", 20, [""]) == ['vqa: all 20 predictions are ""']
    assert said("vqa", 19, ["yes"]) == []  # may happen
    assert said("vqa", 500, ["yes"], answers=["yes"]) == []  # and be right
    assert said("vqa", 500, ["yes", "yes", "no"]) == []


@pytest.mark.parametrize("task", ["nlvr2", "nlvr-v1", "tvqa", "how2qa"])
def test_closed_answers_at_chance(task):
    mixed = ["true", "false"]
    assert said(task, 9, mixed, primary=50.2) == [f"{task} is at chance: 50.20, the majority answer has 50.00"]
    assert said(task, 9, mixed, primary=51.0) != []
    assert said(task, 9, mixed, primary=40.0) != []
    assert said(task, 9, mixed, primary=51.1) == []
    assert said(task, 500, ["true"], primary=50.0) == [
        f'{task}: all 500 predictions are "true"',
        f"{task} is at chance: 50.00, the majority answer has 50.00",
    ]


@pytest.mark.parametrize("task", ["vqa", "gqa", "coco-caption", "tvc", "yc2c"])
def test_open_answers_may_score_like_the_majority_answer(task):
    assert said(task, 500, ["a", "b"], primary=20.0, majority=50.0) == []


@pytest.mark.parametrize("control", ["none", "text-only"])
def test_of_a_whole_trial(control, mini_trial, runtime, monkeypatch):
    """All else is as in a trial that is done. One that cannot see may be blind."""
    spec = mini_trial("lora", suite="mini-image-text/vqa+nlvr2", control=control, recipe={"max_steps": 1})

    def predicted(model, reader, batches, *arguments):
        return [dict.fromkeys((example.id for example in batches.examples), "true")]

    monkeypatch.setattr(evaluate, "predicted", predicted)
    result = run_trial(spec, runtime)
    n = {task: score["accuracy"].n for task, score in result.metrics.items()}
    value, majority = result.metrics["nlvr2"]["accuracy"].value, result.metrics["nlvr2"]["accuracy"].majority
    if control == "none":
        assert result.status == "suspect"
        assert result.error == (
            f'vqa: all {n["vqa"]} predictions are "true"; nlvr2: all {n["nlvr2"]} predictions are "true"; '
            f"nlvr2 is at chance: {value:.2f}, the majority answer has {majority:.2f}"
        )
    else:
        assert (result.status, result.error) == ("done", None)
    assert result.average is not None
    assert result.breakdowns.keys() == result.predictions.keys() == {"vqa", "nlvr2"}
    assert result.cost.adapter_bytes == (runtime.out / spec.id / "adapter.safetensors").stat().st_size
    assert store.load(runtime.out / f"{spec.id}.json") == result


def test_a_loss_that_is_not_finite_ends_the_trial(mini_trial, runtime):
    recipe = {"lr": 4e9, "max_steps": None, "epochs": 3, "batch_size": 200, "valid_every": 1, "warmup": 1.0}
    spec = mini_trial("full", suite="mini-image-text/vqa", recipe=recipe)
    folder = runtime.out / spec.id
    folder.mkdir(parents=True)
    (folder / "adapter.safetensors").write_text("of an earlier attempt")
    result = run_trial(spec, runtime)
    assert result.status == "suspect"
    assert result.error.split(" at step ")[0] in ("the loss of task vqa is nan", "the loss of task vqa is inf")
    assert result.error.endswith(f" at step {result.cost.steps} (lr 4000000000.0)")
    assert (result.metrics, result.average, result.selected, result.predictions) == ({}, None, None, {})
    assert (result.cost.adapter_bytes, list(folder.iterdir())) == (0, [])
    assert result.parameters.trainable > 0
    assert store.load(runtime.out / f"{spec.id}.json") == result
