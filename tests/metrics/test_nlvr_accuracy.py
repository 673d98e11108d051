"""Accuracy and consistency against the official NLVR2 scorer."""

from __future__ import annotations

import csv
import json

import pytest

from pet_bench.metrics.nlvr_accuracy import NLVRAccuracy
from pet_bench.tasks.nlvr2 import NLVR2


def test_official_scores(expectations, samples, tmp_path):
    (tmp_path / "nlvr").mkdir()
    rows = (samples / "nlvr2" / "valid.lxmert_format.subset.json").read_text()
    (tmp_path / "nlvr" / "valid.json").write_text(rows)
    examples = NLVR2().examples(tmp_path, "valid")
    compared = 0
    for name, official in json.loads((expectations / "nlvr2" / "expected.json").read_text()).items():
        path = expectations / "nlvr2" / name
        if not path.is_file():
            continue  # of all of dev; the file is kept back
        with path.open() as file:
            predictions = {identifier: label.lower() for identifier, label in csv.reader(file)}
        assert NLVRAccuracy()(predictions, examples).values == pytest.approx(
            {key: 100 * value for key, value in official.items()}
        )
        compared += 1
    assert compared == 3
