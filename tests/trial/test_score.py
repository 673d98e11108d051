"""Breakdowns in a result, and scoring a trial's saved predictions again."""

from __future__ import annotations

import json

import pytest

from pet_bench.errors import UserError
from pet_bench.metrics import java
from pet_bench.results import predictions, store
from pet_bench.results.schema import TrialResult
from pet_bench.trial.check import check_data
from pet_bench.trial.resolve import resolve
from pet_bench.trial.run import run_trial
from pet_bench.trial.score import score_trial
from tests.test_cli import call  # noqa: F401

SUITE = "mini-image-text/vqa+coco-caption"


@pytest.fixture
def trial(mini_trial, runtime):
    spec = mini_trial(
        "projector-only",
        suite=SUITE,
        recipe={"max_steps": 2},
        protocol={"coco-caption": {"also": ["bleu", "rouge-l"], "max_length": 8}},
    )
    return run_trial(spec, runtime), runtime.out / f"{spec.id}.json"


def test_from_the_trial_to_new_scores(trial, runtime, call):  # noqa: F811
    result, path = trial
    assert list(result.metrics["coco-caption"]) == ["CIDEr", "BLEU-4", "BLEU-1", "BLEU-2", "BLEU-3", "ROUGE-L"]
    parts = result.breakdowns
    assert parts["vqa"].keys() == {"question type", "answer type", "length"}
    assert parts["coco-caption"].keys() == {"length"}
    for task, groups in parts.items():
        primary = next(iter(result.metrics[task].values()))
        for values in groups.values():
            assert sum(part.n for part in values.values()) == primary.n
            total = sum(part.n * part.value for part in values.values())
            assert total / primary.n == pytest.approx(primary.value)
    for kind, part in parts["vqa"]["answer type"].items():
        assert part.value == pytest.approx(result.metrics["vqa"][f"accuracy-{kind}"].value)
    assert store.load(path) == result
    old = {key: value for key, value in result.model_dump(mode="json").items() if key != "breakdowns"}
    assert TrialResult.model_validate(old).breakdowns == {}

    before = path.read_bytes()
    for one in score_trial(path, runtime.data):
        assert one.scores.values == one.old
    file = path.parent / result.predictions["vqa"]
    rows = predictions.read(file)
    predictions.write(file, dict.fromkeys(rows, "?"), {})
    code, out, _ = call("score", path, "--data", runtime.data, "--format", "json")
    vqa, caption = json.loads(out)
    assert (code, vqa["values"]["accuracy"], vqa["n"]) == (0, 0.0, len(rows))
    assert vqa["old"] == {name: score.value for name, score in result.metrics["vqa"].items()}
    assert caption["values"] == caption["old"]
    code, out, _ = call("score", path, "--data", runtime.data)
    (line,) = (line.split() for line in out.splitlines() if line.startswith("vqa") and " accuracy " in line)
    assert line == ["vqa", "accuracy", f"{result.metrics['vqa']['accuracy'].value:.4f}", "0.0000", str(len(rows))]
    assert path.read_bytes() == before


def test_a_trial_that_failed_while_scoring_is_scored(trial, runtime):
    result, path = trial
    nothing = {"metrics": {}, "predictions": {}, "breakdowns": {}, "average": None, "inference": {}, "forgetting": {}}
    failed = result.model_copy(update={"status": "failed", "error": "Java is gone"} | nothing)
    path.write_text(failed.model_dump_json())
    found = score_trial(path, runtime.data)
    assert [one.old for one in found] == [{}, {}]
    assert found[0].scores.primary == next(iter(result.metrics["vqa"].values())).value


def test_predictions_that_do_not_fit_are_a_line_each(trial, runtime, call):  # noqa: F811
    result, path = trial
    vqa, caption = (path.parent / result.predictions[task] for task in ("vqa", "coco-caption"))
    predictions.write(vqa, {id: text for id, (text, _) in list(predictions.read(vqa).items())[1:]}, {})
    caption.unlink()
    code, out, err = call("score", path, "--data", runtime.data)
    assert (code, out) == (2, "")
    first, second = err.splitlines()
    assert "vqa-accuracy: 1 examples have no prediction" in first
    assert f"coco-caption: predictions {caption} are missing" in second


@pytest.mark.parametrize("change", [{"also": ["meteor"]}, {"tokenizer": "java"}])
def test_what_a_metric_needs_is_looked_for_before_training(change, mini_trial, runtime, monkeypatch):
    monkeypatch.setattr(java, "find_spec", lambda name: None)
    spec = mini_trial(suite=SUITE, protocol={"coco-caption": change})
    for start in (lambda: check_data([spec], runtime), lambda: run_trial(spec, runtime)):
        with pytest.raises(UserError, match="needs the package pycocoevalcap") as error:
            start()
        assert len(error.value.faults) == 1


def test_only_metrics_of_captions_go_beside_cider(mini_trial):
    with pytest.raises(UserError, match="also"):
        mini_trial(suite=SUITE, protocol={"coco-caption": {"also": ["vqa-accuracy"]}})
    assert resolve("mini-bart", mini_trial().method, SUITE, 0).protocol == {}
