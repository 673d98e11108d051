"""Breakdowns of a score."""

from __future__ import annotations

import json

import pytest

from pet_bench.metrics.multiple_choice import MultipleChoiceAccuracy
from pet_bench.metrics.scores import Item, Scores, breakdowns, length_group
from pet_bench.registry import METRICS


def test_means_and_numbers_in_natural_order():
    groups = {"1": {"length": "11-15", "show": "b"}, "2": {"length": "6-10", "show": "a"}, "3": {"length": "6-10"}}
    scores = Scores({"accuracy": 50.0}, {"1": 100.0, "2": 50.0, "3": 0.0})
    found = breakdowns(scores, [Item(key, {}, of) for key, of in groups.items()])
    assert found == {"length": {"6-10": (25.0, 2), "11-15": (100.0, 1)}, "show": {"a": (50.0, 1), "b": (100.0, 1)}}
    assert [list(found["length"]), list(found["show"])] == [["6-10", "11-15"], ["a", "b"]]


@pytest.mark.parametrize(
    ("words", "group"),
    [(0, "1-5"), (1, "1-5"), (5, "1-5"), (6, "6-10"), (10, "6-10"), (20, "16-20"), (21, "21+"), (99, "21+")],
)
def test_lengths_in_steps_of_five(words, group):
    assert length_group("word " * words) == group


def test_the_length_of_several_texts_is_their_mean():
    assert length_group("a b", "a b c d e f g h i j") == "6-10"


def test_accuracy_by_show(expectations):
    """As many right answers a show as VALUE's scorer counted."""
    official = json.loads((expectations / "videoqa" / "expected.json").read_text())
    counts = official["counts_for_exactness"]["tvqa_correct_total_per_show"]
    items, predictions = [], {}
    for show, (right, total) in counts.items():
        for i in range(total):
            items.append(Item(f"{show} {i}", {"answer": "a3"}, {"show": show}))
            predictions[f"{show} {i}"] = "a3" if i < right else "a1"
    scores = MultipleChoiceAccuracy()(predictions, items)
    assert (sum(scores.per_example.values()) / 100, len(items)) == tuple(official["counts_for_exactness"]["tvqa"])
    assert round(scores.primary, 2) == official["tvqa_val_accuracy_percent"]
    shows = breakdowns(scores, items)["show"]
    assert shows == {show: (pytest.approx(100 * r / n), n) for show, (r, n) in counts.items()}


SAID = "b c d e f", "g h i j k"
REFERENCES = {
    "vqa-accuracy": lambda said: {"answers": [said] * 10},
    "textvqa-accuracy": lambda said: {"answers": [said] * 10},
    "vizwiz-accuracy": lambda said: {"answers": [said] * 10},
    "exact-match": lambda said: {"label": {said: 1.0}},
    "nlvr-accuracy": lambda said: {"label": said, "group": said},
    "multiple-choice-accuracy": lambda said: {"answer": said},
    "cider": lambda said: {"captions": [said]},
    "bleu": lambda said: {"captions": [said]},
    "rouge-l": lambda said: {"captions": [said]},
}


@pytest.mark.parametrize("name", REFERENCES)
def test_the_best_and_the_worst_answers_score_what_a_metrics_bounds_are(name):
    metric = METRICS.get(name)
    examples = [Item(said, REFERENCES[name](said)) for said in SAID]
    for answers, bound in ((SAID, metric.bounds[1]), (("y", "z"), metric.bounds[0])):
        scores = metric()(dict(zip(SAID, answers, strict=True)), examples)
        assert scores.primary == pytest.approx(bound, abs=1e-3)  # official BLEU adds a little to every count


def test_every_metric_has_bounds():
    ours = {metric.name: metric.bounds for metric in METRICS if metric.__module__.startswith("pet_bench.")}
    # the first needs Java, of the other answers are letters
    assert ours.keys() - REFERENCES.keys() == {"meteor", "scienceqa-accuracy"}
    assert ours["meteor"] == (0, 100)
