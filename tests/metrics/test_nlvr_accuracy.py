"""Accuracy and consistency against the official NLVR2 scorer."""

from __future__ import annotations

import csv
import json

import pytest

from pet_bench.metrics.nlvr_accuracy import NLVRAccuracy
from pet_bench.tasks.nlvr2 import NLVR2
from tests.data.roots import lines


def as_published(labels):
    """Rows of the official annotations with the labels of that file of the scorer's, which are all right."""
    with labels.open() as file:
        return [{"identifier": key, "sentence": "x", "label": label} for key, label in csv.reader(file)]


def test_official_scores(expectations, tmp_path):
    lines(tmp_path / "nlvr" / "dev.json", as_published(expectations / "nlvr2" / "predictions_subset_perfect.csv"))
    examples = NLVR2(valid="dev").examples(tmp_path, "valid")
    compared = 0
    for name, official in json.loads((expectations / "nlvr2" / "expected.json").read_text()).items():
        path = expectations / "nlvr2" / name
        if not path.is_file():
            continue  # of all of dev: that file is not here
        with path.open() as file:
            predictions = {identifier: label.lower() for identifier, label in csv.reader(file)}
        assert NLVRAccuracy()(predictions, examples).values == pytest.approx(
            {key: 100 * value for key, value in official.items()}
        )
        compared += 1
    assert compared == 3
