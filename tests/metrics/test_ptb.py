"""The tokeniser against output of the Java one."""

from __future__ import annotations

import json
from runpy import run_path

import pytest

from pet_bench.metrics.ptb import tokenize


def missed(tokenizer, pairs):
    """Which of them come out otherwise, and how."""
    made = ((pair, tokenizer(pair["raw"])) for pair in pairs)
    return [(pair["raw"], tokens) for pair, tokens in made if tokens != pair["tokens"]]


@pytest.fixture
def pairs(expectations):
    return json.loads((expectations / "tokenizer" / "ptb_pairs.json").read_text(encoding="utf-8"))["pairs"]


def test_recorded_pairs(pairs):
    wrong = missed(tokenize, pairs)
    assert len(wrong) <= 0.005 * len(pairs), wrong


def test_the_draft_of_the_rules_is_no_nearer(expectations, pairs):
    draft = run_path(str(expectations / "tokenizer" / "ptb_lite_draft.txt"))["tokenize"]
    assert len(missed(tokenize, pairs)) <= len(missed(lambda text: " ".join(draft(text)), pairs))


def test_captions_of_the_scored_sets(expectations):
    for path in sorted((expectations / "captions").glob("*.expected.json")):
        items = json.loads(path.read_text())["items"]
        inputs = json.loads(path.with_name(path.name.replace("expected", "inputs")).read_text())
        for item, given in zip(items, inputs, strict=True):
            assert tokenize(given["prediction"]) == item["tokenized_prediction"]
            assert [tokenize(text) for text in given["references"]] == item["tokenized_references"]


@pytest.mark.parametrize(
    ("raw", "tokens"),
    [
        ("The man shouldn't've left at 3:30pm.", "the man should n't 've left at 3:30 pm"),
        ("I cannot, he's gonna!", "i can not he 's gon na"),
        ("(a 1,000-foot tower) [sic]", "-lrb- a 1,000-foot tower -rrb- -lsb- sic -rsb-"),
        ("Vitamin C. The pill", "vitamin c the pill"),
        ("'Nutrition facts' and rock 'n roll 'n' more", "nutrition facts and rock 'n roll 'n' more"),
        ("AT&T but a&b", "at&t but a & b"),
        ("line\r\nbreaks\u2028and\vtabs", "line breaks and tabs"),
        ("   ", ""),
    ],
)
def test_rules(raw, tokens):
    assert tokenize(raw) == tokens


def test_a_long_degenerate_prediction_is_one_token():
    assert tokenize("a-" * 400 + "b") == "a-" * 400 + "b"
