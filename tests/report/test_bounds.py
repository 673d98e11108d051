from __future__ import annotations

import math

import numpy as np
import pytest

from pet_bench.report.bounds import bounds
from pet_bench.report.figures.look import beneath, reach


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        (["vqa"], (0, 100)),
        (["coco-caption"], (0, 1000)),
        (["vqa", "gqa", "nlvr2", "coco-caption"], (0, 325)),
        (["vqa", "somebody's"], (-math.inf, math.inf)),
        ([], (-math.inf, math.inf)),
    ],
)
def test_what_a_score_or_an_average_can_be(tasks, expected):
    assert bounds(tasks) == expected


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [(97, 5, (92, 100)), (3, 5, (0, 8)), (50, 5, (45, 55)), (100.5, 1, (99.5, 100.5)), (-1, 0.5, (-1, -0.5))],
)
def test_a_bar_ends_where_scores_end_and_never_turns_round(mean, std, expected):
    assert reach(mean, std, (0, 100)) == expected


def test_without_a_deviation_there_is_no_bar():
    assert np.isnan(reach(50.0, math.nan, (0, 100))).all()


def test_twins_are_counted_by_what_lies_on_them():
    assert beneath([(1, 1), (5, 9), (1.004, 1), (1, 1), (1, 2)], (1, 1)) == [2, 0, 1, 0, 0]
    assert beneath([(1, 1), (1, 1, 1), (1, 1)], 1) == [1, 0, 0]
