"""The VQA accuracy against the official evaluation code of both versions."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from pet_bench.errors import UserError
from pet_bench.metrics.scores import breakdowns
from pet_bench.metrics.vqa_accuracy import VQAAccuracy, map_words, normalise, question_accuracy, strip_punctuation

OFFICIAL = {"2016": "accuracy_official_2016_458a8b2.json", "2021": "accuracy_official_2021_a013f00.json"}


@pytest.fixture
def vqa(expectations):
    return lambda name: json.loads((expectations / "vqa" / name).read_text())


@pytest.fixture
def questions(vqa):
    examples = [
        SimpleNamespace(
            id=str(row["question_id"]),
            groups={"question type": row["question_type"], "answer type": row["answer_type"]},
            references={"answers": [a["answer"] for a in row["answers"]], "answer_type": row["answer_type"]},
        )
        for row in vqa("synthetic_annotations.json")["annotations"]
    ]
    predictions = {str(row["question_id"]): row["answer"] for row in vqa("synthetic_results.json")}
    return predictions, examples


@pytest.mark.parametrize(
    ("ours", "key"),
    [
        (strip_punctuation, "processPunctuation"),
        (map_words, "processDigitArticle"),
        (normalise, "strip_then_punct_then_digitarticle"),
    ],
)
def test_normalisation_equals_the_official_one_string_by_string(vqa, ours, key):
    rows = vqa("normalisation_official.json")
    assert {row["input"]: ours(row["input"]) for row in rows} == {row["input"]: row[key] for row in rows}


@pytest.mark.parametrize("version", OFFICIAL)
def test_accuracy_equals_the_official_one_question_by_question(vqa, questions, version):
    predictions, examples = questions
    official = vqa(OFFICIAL[version])
    scores = VQAAccuracy(version)(predictions, examples)
    assert {key: round(value, 2) for key, value in scores.per_example.items()} == official["evalQA"]
    assert round(scores.primary, 2) == official["overall"]
    for kind, accuracy in official["perAnswerType"].items():
        assert round(scores.values[f"accuracy-{kind}"], 2) == accuracy
    parts = breakdowns(scores, examples)
    for group, key in (("question type", "perQuestionType"), ("answer type", "perAnswerType")):
        assert {value: round(score, 2) for value, (score, _) in parts[group].items()} == official[key]


def test_both_versions_are_reported_whichever_is_primary(vqa, questions):
    overall = {version: vqa(name)["overall"] for version, name in OFFICIAL.items()}
    for version in OFFICIAL:
        values = VQAAccuracy(version)(*questions).values
        assert next(iter(values.items())) == ("accuracy", values[f"accuracy-{version}"])
        assert {v: round(values[f"accuracy-{v}"], 2) for v in OFFICIAL} == overall


@pytest.mark.parametrize(("agreeing", "accuracy"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_accuracy_by_number_of_agreeing_annotators(agreeing, accuracy):
    answers = ["red"] * agreeing + [f"colour {i}" for i in range(10 - agreeing)]
    assert question_accuracy("red", answers) == pytest.approx(accuracy)


def test_a_missing_and_a_surplus_prediction_are_reported_together():
    examples = [SimpleNamespace(id="1", references={"answers": ["yes"]})]
    with pytest.raises(UserError) as error:
        VQAAccuracy()({"2": "no"}, examples)
    assert error.value.faults == (
        "vqa-accuracy: 1 examples have no prediction, the first is '1'",
        "vqa-accuracy: 1 predictions belong to no example, the first is '2'",
    )


def test_unknown_version():
    with pytest.raises(UserError, match=r'unknown version of the VQA accuracy "2015".*2016, 2021'):
        VQAAccuracy("2015")
