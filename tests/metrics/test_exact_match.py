from __future__ import annotations

from types import SimpleNamespace

import pytest

from pet_bench.errors import UserError
from pet_bench.metrics.exact_match import ExactMatch


def example(key, **label):
    return SimpleNamespace(id=key, references={"label": label})


def test_equal_strings_earn_the_label_score_and_case_counts():
    scores = ExactMatch()(
        {"1": "yes", "2": "Yes", "3": "red "}, [example("1", yes=1.0), example("2", yes=1.0), example("3", red=1.0)]
    )
    assert scores.per_example == {"1": 100.0, "2": 0.0, "3": 0.0}
    assert scores.values == {"accuracy": pytest.approx(100 / 3)}


def test_nothing_to_score():
    with pytest.raises(UserError, match="exact-match: no examples to score"):
        ExactMatch()({}, [])
