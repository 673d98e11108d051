"""CIDEr against pycocoevalcap, item by item."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from pet_bench.errors import UserError
from pet_bench.metrics.cider import CIDEr, cider_d, medoid

SETS = ["coco80_leave_one_out", "coco80_shifted", "vatex300_pred1_refs4", "edge_cases"]


@pytest.fixture
def captions(expectations):
    return lambda name: json.loads((expectations / "captions" / name).read_text())


@pytest.mark.parametrize("name", SETS)
def test_items_on_officially_tokenised_text(captions, name):
    official = captions(f"{name}.expected.json")
    items = official["items"]
    ours = cider_d([i["tokenized_prediction"] for i in items], [i["tokenized_references"] for i in items])
    assert ours == pytest.approx([i["scores"]["CIDEr"] for i in items], abs=1e-6)
    assert sum(ours) / len(ours) == pytest.approx(official["corpus"]["CIDEr"], abs=1e-9)


@pytest.mark.parametrize("name", SETS)
def test_corpus_from_raw_text(captions, name):
    rows = captions(f"{name}.inputs.json")
    examples = [SimpleNamespace(id=str(row["id"]), references={"captions": row["references"]}) for row in rows]
    scores = CIDEr()({str(row["id"]): row["prediction"] for row in rows}, examples)
    assert scores.primary / 100 == pytest.approx(captions(f"{name}.expected.json")["corpus"]["CIDEr"], abs=0.0005)
    assert scores.primary == pytest.approx(sum(scores.per_example.values()) / len(rows))


@pytest.mark.parametrize(
    ("references", "said"),
    [
        ([["a cat", "the cat sits"]], "one item has no CIDEr"),
        ([["a cat"], ["A cat."], ["a cat"]], "the references of all 3 items have the same words"),
        ([["a cat", "a dog"], ["a dog", "a cat"]], "the references of all 2 items have the same words"),
        ([["."], ["!"]], "the references of all 2 items have the same words"),
    ],
)
def test_where_nothing_could_score_there_is_no_score(references, said):
    items = [SimpleNamespace(id=str(i), references={"captions": texts}) for i, texts in enumerate(references)]
    for score in (CIDEr().check_examples, lambda items: CIDEr()({item.id: "a cat" for item in items}, items)):
        with pytest.raises(UserError, match=said):
            score(items)


def test_one_item_scores_zero_and_so_does_an_empty_prediction():
    assert cider_d(["a dog runs"], [["a dog runs"]]) == [0.0]
    assert cider_d(["", "a cat"], [["a dog runs"], ["a cat"]])[0] == 0.0


def test_an_example_without_captions_is_refused():
    with pytest.raises(UserError, match="1 examples have no reference caption, the first is '7'"):
        CIDEr()({"7": "a dog"}, [SimpleNamespace(id="7", references={"captions": []})])


def test_the_medoid_is_the_caption_nearest_to_the_others():
    dogs = ["a dog runs on grass", "a dog runs on sand", "a dog runs on grass today"]
    assert medoid(["two cats sleep", *dogs, "red car"]) == "a dog runs on grass"


@pytest.mark.parametrize("name", SETS)
def test_two_more_implementations_agree(captions, name):
    """Of CIDEr-D: the one behind the published numbers, and aac-metrics."""
    items = captions(f"{name}.expected.json")["items"]
    ours = cider_d([i["tokenized_prediction"] for i in items], [i["tokenized_references"] for i in items])
    behind = captions("language_evaluation_vs_pycocoevalcap.json")[name]["language_evaluation"]["CIDEr"]
    other = captions("aac_metrics_cider_d_on_pretokenised_text.json")[name]["aac_metrics.cider_d"]
    assert [sum(ours) / len(ours)] * 2 == pytest.approx([behind, other], abs=1e-9)
