"""Multiple-choice accuracy against VALUE's official scorer."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from pet_bench.errors import UserError
from pet_bench.metrics.multiple_choice import MultipleChoiceAccuracy


def example(key, answer):
    return SimpleNamespace(id=str(key), references={"answer": answer})


def test_how2qa(expectations, samples):
    official = json.loads((expectations / "videoqa" / "expected.json").read_text())
    lines = (samples / "how2qa" / "how2qa_val_release.jsonl").read_text().splitlines()
    examples = [example(row["qid"], f"a{row['answer_idx']}") for row in map(json.loads, lines)]
    submission = json.loads((samples / "how2qa" / "how2qa_val_predictions.sample_submission.json").read_text())
    scores = MultipleChoiceAccuracy()({key: f"a{choice}" for key, choice in submission.items()}, examples)
    right, total = official["counts_for_exactness"]["how2qa"]
    assert (sum(scores.per_example.values()), len(examples)) == (100 * right, total)
    assert round(scores.primary, 2) == official["how2qa_val_accuracy_percent"]


def test_only_the_very_choice_is_right():
    examples = [example(i, "a1") for i in range(4)]
    scores = MultipleChoiceAccuracy()({"0": "a1", "1": "A1", "2": "a1.", "3": ""}, examples)
    assert scores.values == {"accuracy": 25.0}
    with pytest.raises(UserError, match="1 examples have no prediction, the first is '3'"):
        MultipleChoiceAccuracy()({"0": "a1", "1": "a1", "2": "a1"}, examples)
