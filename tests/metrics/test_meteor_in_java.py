"""METEOR against the official scores, where there is a Java to run it."""

from __future__ import annotations

import json
from importlib.util import find_spec
from shutil import which

import pytest

from pet_bench.metrics.captions import CaptionMetric
from pet_bench.metrics.cider import CIDEr
from pet_bench.metrics.meteor import METEOR
from pet_bench.metrics.scores import Item
from tests.metrics.test_cider import SETS
from tests.metrics.test_meteor import PACKAGE

if not (find_spec(PACKAGE) and which("java")):
    claim = "METEOR equals the official scores, item by item"
    pytest.skip(f"unchecked: {claim} (needs Java and {PACKAGE})", allow_module_level=True)


@pytest.mark.parametrize("name", SETS)
def test_official_scores(expectations, name):
    official = json.loads((expectations / "captions" / f"{name}.expected.json").read_text())
    rows = json.loads((expectations / "captions" / f"{name}.inputs.json").read_text())
    items = [Item(str(row["id"]), {"captions": row["references"]}) for row in rows]
    predictions = {str(row["id"]): row["prediction"] for row in rows}
    scores = METEOR("java")(predictions, items)
    assert scores.primary / 100 == pytest.approx(official["corpus"]["METEOR"], abs=1e-6)
    for item in official["items"]:
        assert scores.per_example[str(item["id"])] / 100 == pytest.approx(item["scores"]["METEOR"], abs=1e-6)
    found = CaptionMetric.tokenised(CIDEr("java"), predictions, items)
    tokenised = [(item["tokenized_prediction"], item["tokenized_references"]) for item in official["items"]]
    assert [(text, captions) for _, text, captions in found] == tokenised
