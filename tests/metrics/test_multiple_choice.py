"""Multiple-choice accuracy against VALUE's official scorer."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pet_bench.errors import UserError
from pet_bench.metrics.multiple_choice import MultipleChoiceAccuracy


def example(key, answer):
    return SimpleNamespace(id=str(key), references={"answer": answer})


def test_only_the_very_choice_is_right():
    examples = [example(i, "a1") for i in range(4)]
    scores = MultipleChoiceAccuracy()({"0": "a1", "1": "A1", "2": "a1.", "3": ""}, examples)
    assert scores.values == {"accuracy": 25.0}
    with pytest.raises(UserError, match="1 examples have no prediction, the first is '3'"):
        MultipleChoiceAccuracy()({"0": "a1", "1": "a1", "2": "a1"}, examples)
