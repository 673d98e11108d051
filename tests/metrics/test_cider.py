"""CIDEr against pycocoevalcap, item by item."""

from __future__ import annotations

import json
from functools import reduce
from operator import add
from types import SimpleNamespace

import pytest

from pet_bench.errors import UserError
from pet_bench.metrics.bleu import counts
from pet_bench.metrics.cider import CIDEr, cider_d, medoid
from pet_bench.metrics.ptb import tokenize

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


def test_one_item_scores_zero_and_so_does_an_empty_prediction():
    assert cider_d(["a dog runs"], [["a dog runs"]]) == [0.0]
    assert cider_d(["", "a cat"], [["a dog runs"], ["a cat"]])[0] == 0.0


def test_an_example_without_captions_is_refused():
    with pytest.raises(UserError, match="1 examples have no reference caption, the first is '7'"):
        CIDEr()({"7": "a dog"}, [SimpleNamespace(id="7", references={"captions": []})])


def test_the_medoid_is_the_caption_nearest_to_the_others():
    dogs = ["a dog runs on grass", "a dog runs on sand", "a dog runs on grass today"]
    assert medoid(["two cats sleep", *dogs, "red car"]) == "a dog runs on grass"


def test_every_recorded_corpus_score_whose_captions_are_here(captions, samples):
    """As two other implementations found it; and what an item per reference, as in the published code, would score."""
    found = {}
    for name in SETS:
        rows = captions(f"{name}.inputs.json")
        found[name] = [row["prediction"] for row in rows], [row["references"] for row in rows]
    lines = (samples / "tvc" / "tvc_val_joined_with_tvr_one_reference.first1500.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    recorded = captions("aac_metrics_cider_d_on_pretokenised_text.json")["tvc1500_one_tvr_reference"]["pycocoevalcap"]
    tvc = {
        key: ([row[key] for row in rows], [row["ref_from_tvr"] for row in rows]) for key in ("pred_mmt", "pred_value")
    }
    corpus = {name: mean_cider(*texts) for name, texts in (found | tvc).items()}
    assert any(corpus[key] == pytest.approx(recorded, abs=0.0005) for key in tvc)
    for name in SETS:
        for file in ("aac_metrics_cider_d_on_pretokenised_text.json", "language_evaluation_vs_pycocoevalcap.json"):
            official = captions(file).get(name, {}).get("pycocoevalcap")
            official = official["CIDEr"] if isinstance(official, dict) else official
            assert corpus[name] == pytest.approx(official, abs=0.0005)

    texts, references = found["vatex300_pred1_refs4"]
    single = [(text, [one]) for text, several in zip(texts, references, strict=True) for one in several]
    official = captions("multi_reference_vs_expanded_single_reference.json")["vatex_val_first300"]
    (expanded,) = (scores for name, scores in official.items() if "1 ref each" in name)
    assert mean_cider(*zip(*single, strict=True)) == pytest.approx(expanded["CIDEr"], abs=0.0005)
    total = reduce(add, (counts(tokenize(text), [tokenize(one)]) for text, (one,) in single))
    assert total.bleu()[3] == pytest.approx(expanded["Bleu_4"], abs=0.0005)


def mean_cider(texts, references):
    scores = cider_d([tokenize(text) for text in texts], [[tokenize(one) for one in some] for some in references])
    return sum(scores) / len(scores)
