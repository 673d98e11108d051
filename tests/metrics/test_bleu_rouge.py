"""BLEU and ROUGE-L against pycocoevalcap, item by item."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from pet_bench.errors import UserError
from pet_bench.metrics.bleu import BLEU, Counts, counts
from pet_bench.metrics.rouge_l import ROUGEL, common_subsequence, rouge_l
from pet_bench.metrics.scores import Item
from tests.metrics.test_cider import SETS


@pytest.fixture
def captions(expectations):
    return lambda name: json.loads((expectations / "captions" / name).read_text())


@pytest.mark.parametrize("name", SETS)
def test_items_and_corpus_on_officially_tokenised_text(captions, name):
    official = captions(f"{name}.expected.json")
    total = None
    for item in official["items"]:
        texts = item["tokenized_prediction"], item["tokenized_references"]
        found = counts(*texts)
        total = found if total is None else total + found
        for n, ours in enumerate(found.bleu(), start=1):
            assert ours == pytest.approx(item["scores"][f"Bleu_{n}"], abs=1e-6), item["id"]
        assert rouge_l(*texts) == pytest.approx(item["scores"]["ROUGE_L"], abs=1e-6), item["id"]
    for n, ours in enumerate(total.bleu(), start=1):
        assert ours == pytest.approx(official["corpus"][f"Bleu_{n}"], abs=1e-9)


@pytest.mark.parametrize("name", SETS)
def test_corpus_from_raw_text(captions, name):
    rows, official = captions(f"{name}.inputs.json"), captions(f"{name}.expected.json")["corpus"]
    examples = [SimpleNamespace(id=str(row["id"]), references={"captions": row["references"]}) for row in rows]
    predictions = {str(row["id"]): row["prediction"] for row in rows}
    bleu, rouge = BLEU()(predictions, examples), ROUGEL()(predictions, examples)
    assert list(bleu.values) == ["BLEU-4", "BLEU-1", "BLEU-2", "BLEU-3"]
    for n in range(1, 5):
        assert bleu.values[f"BLEU-{n}"] / 100 == pytest.approx(official[f"Bleu_{n}"], abs=0.0005)
    assert rouge.primary / 100 == pytest.approx(official["ROUGE_L"], abs=0.0005)
    assert rouge.primary == pytest.approx(sum(rouge.per_example.values()) / len(rows))


def test_by_hand():
    """ "the cat sat": 3 of 3 words, 2 of 2 pairs and 1 of 1 triple match; five words are meant, so e^(1 - 5/3)."""
    one = counts("the cat sat", ["the cat sat down there", "dogs run very fast indeed today"])
    assert (one.matched, one.possible, one.length, one.reference) == ((3, 2, 1, 0), (3, 2, 1, 0), 3, 5)
    assert one.bleu()[0] == pytest.approx(2.718281828 ** (1 - 5 / 3))
    assert common_subsequence(["a", "b", "c", "d"], ["b", "x", "d", "a"]) == 2
    assert rouge_l("a b", ["a c d e"]) == pytest.approx(2.44 * 0.5 * 0.25 / (0.25 + 1.44 * 0.5))


@pytest.mark.parametrize("metric", [BLEU(), ROUGEL()])
def test_an_example_without_captions_is_refused(metric):
    with pytest.raises(UserError, match="1 examples have no reference caption, the first is '7'"):
        metric({"7": "a dog"}, [SimpleNamespace(id="7", references={"captions": []})])


def test_the_published_bleu_of_the_demonstration_captions(captions):
    """Neither its captions nor its references are here: counts of both as recorded."""
    recorded = captions("fakecap_published_scores.json")
    counted = recorded["bleu_counts"]
    scores = Counts(*(tuple(counted[n]) for n in ("correct", "guess")), counted["testlen"], counted["reflen"]).bleu()
    assert [round(score, 3) for score in scores] == [recorded["published"][f"Bleu_{n}"] for n in range(1, 5)]


@pytest.mark.parametrize("name", SETS)
def test_the_package_behind_published_numbers_agrees(captions, name):
    rows = captions(f"{name}.inputs.json")
    official = captions("language_evaluation_vs_pycocoevalcap.json")[name]["language_evaluation"]
    items = [Item(str(row["id"]), {"captions": row["references"]}) for row in rows]
    predictions = {str(row["id"]): row["prediction"] for row in rows}
    values = BLEU()(predictions, items).values | ROUGEL()(predictions, items).values
    for key, value in values.items():
        official_key = {"ROUGE-L": "ROUGE_L"}.get(key, key.replace("BLEU-", "Bleu_"))
        assert value / 100 == pytest.approx(official[official_key], abs=0.0005)
