"""The accuracies of TextVQA, VizWiz, OK-VQA and ScienceQA on values computed by hand from their published rules.

TextVQA: `TextVQAAccuracyEvaluator` and `EvalAIAnswerProcessor`, facebookresearch/mmf, pythia commit c46b3b3. VizWiz:
`vqaEval.py` of the APIs on vizwiz.org. OK-VQA: VQA's evaluation, GT-Vision-Lab/VQA. ScienceQA: `tools/evaluate_acc.py`,
lupantech/ScienceQA, and LLaVA's `eval_science_qa.py` for what an answer names.
"""

from __future__ import annotations

import pytest

from pet_bench.data.answers import soft_label
from pet_bench.metrics.scienceqa_accuracy import ScienceQAAccuracy, chosen
from pet_bench.metrics.scores import Item
from pet_bench.metrics.textvqa_accuracy import TextVQAAccuracy, processed
from pet_bench.metrics.vizwiz_accuracy import VizWizAccuracy
from pet_bench.metrics.vqa_accuracy import VQAAccuracy


def ten(*given: tuple[str, int]) -> list[str]:
    answers = [answer for answer, count in given for _ in range(count)]
    assert len(answers) == 10
    return answers


def of(metric, prediction: str, answers: list[str]) -> float:
    return metric({"1": prediction}, [Item("1", {"answers": answers})]).primary


# Each of the ten is left out once: who gave the answer sees one agreeing annotator less.
# 1 of 10: 9 · 1/3;  2 of 10: 8 · 2/3 + 2 · 1/3;  3 of 10: 7 · 1 + 3 · 2/3;  4 of 10: 10 · 1; all divided by 10
COUNTS = {0: 0.0, 1: 30.0, 2: 60.0, 3: 90.0, 4: 100.0, 10: 100.0}


@pytest.mark.parametrize("metric", [TextVQAAccuracy(), VizWizAccuracy(), VQAAccuracy()], ids=lambda metric: metric.name)
@pytest.mark.parametrize(("count", "score"), COUNTS.items())
def test_the_average_over_nine_of_ten_annotators(metric, count, score):
    assert of(metric, "ale", ten(("ale", count), ("stout", 10 - count))) == pytest.approx(score)


def test_soft_labels_are_the_scores():
    label = soft_label(ten(("ale", 1), ("The stout", 2), ("a porter", 3), ("lager", 3), ("", 1)))
    assert label == pytest.approx({"ale": 0.3, "stout": 0.6, "porter": 0.9, "lager": 0.9})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Stella's", "stella 's"),  # 's is a word of its own
        ("1,000", "1000"),  # commas go first, so no mark is dropped for the digits around one
        ("Coca-Cola", "coca cola"),
        ("what?", "what"),
        ("the No. 5", "no 5"),
        ("3.5 mm", "3.5 mm"),
        ("two\nants", "2 ants"),
        ("dont", "don't"),
    ],
)
def test_textvqas_normalisation(text, expected):
    assert processed(text) == expected


@pytest.mark.parametrize(
    ("prediction", "answers", "textvqa", "vqa", "vizwiz"),
    [
        # they agree: VQA's of 2016 normalises the prediction alone, TextVQA both, VizWiz never the annotators'
        ("Coca-Cola", ten(("Coca-Cola", 10)), 100.0, 0.0, 0.0),
        # they disagree: VQA's of 2016 takes the annotators' punctuation away, but leaves their capitals
        ("coca-cola", ten(("coca-cola", 9), ("pepsi", 1)), 100.0, 100.0, 0.0),
        ("two", ten(("2", 4), ("3", 6)), 100.0, 100.0, 100.0),
        ("2", ten(("two", 4), ("3", 6)), 100.0, 0.0, 0.0),
        ("The Cat.", ten(("cat", 2), ("dog", 8)), 60.0, 60.0, 60.0),
    ],
)
def test_where_the_three_differ(prediction, answers, textvqa, vqa, vizwiz):
    found = [of(metric, prediction, answers) for metric in (TextVQAAccuracy(), VQAAccuracy(), VizWizAccuracy())]
    assert found == pytest.approx([textvqa, vqa, vizwiz])


def test_vizwiz_by_answer_type():
    """Per answer type as the official code; an unanswerable question is answered by the word."""
    nothing = {"answers": ten(("unanswerable", 8), ("cat", 2)), "answer_type": "unanswerable"}
    soup = {"answers": ten(("soup", 9), ("can", 1)), "answer_type": "other"}
    items = [Item("1", nothing), Item("2", nothing), Item("3", soup)]
    scores = VizWizAccuracy()({"1": "Unanswerable", "2": "cat", "3": "can"}, items)
    # 100 + 60 of two, 30 of one
    assert scores.values == pytest.approx({"accuracy": 190 / 3, "accuracy-other": 30.0, "accuracy-unanswerable": 80.0})


NAT, SOC, LAN = "natural science", "social science", "language science"
PROBLEMS = {  # right answer, subject, hint, image, grade: what is predicted
    "1": ("A", NAT, True, True, 1, "The answer is A."),  # right: NAT TXT IMG G1-6
    "2": ("B", NAT, True, False, 6, "A"),  # wrong: NAT TXT G1-6
    "3": ("C", SOC, False, True, 7, "C. Maryland"),  # right: SOC IMG G7-12
    "4": ("A", SOC, False, True, 12, "The answer is (A)."),  # names none: SOC IMG G7-12
    "5": ("B", LAN, False, False, 8, "B"),  # right: LAN NO G7-12
    "6": ("B", LAN, True, False, 2, "Because. The answer is B"),  # right: LAN TXT G1-6
    "7": ("D", LAN, False, False, 3, "b"),  # names none: LAN NO G1-6
}
BY_HAND = {
    "accuracy": 100 * 4 / 7,
    "accuracy-NAT": 50.0,
    "accuracy-SOC": 50.0,
    "accuracy-LAN": 100 * 2 / 3,
    "accuracy-TXT": 100 * 2 / 3,  # 1, 2, 6
    "accuracy-IMG": 100 * 2 / 3,  # 1, 3, 4
    "accuracy-NO": 50.0,  # 5, 7
    "accuracy-G1-6": 50.0,  # 1, 2, 6, 7
    "accuracy-G7-12": 100 * 2 / 3,  # 3, 4, 5
}


def test_scienceqa_by_subject_context_and_grade():
    items = [
        Item(key, {"answer": answer, "subject": subject, "text": text, "image": image, "grade": grade})
        for key, (answer, subject, text, image, grade, _) in PROBLEMS.items()
    ]
    scores = ScienceQAAccuracy()({key: row[-1] for key, row in PROBLEMS.items()}, items)
    assert scores.values == pytest.approx(BY_HAND)
    assert list(scores.values) == list(BY_HAND)
    assert scores.per_example == {key: 100.0 * (key in "1356") for key in PROBLEMS}


def test_groups_that_no_question_is_in_have_no_accuracy():
    item = Item("1", {"answer": "A", "subject": NAT, "text": False, "image": True, "grade": 4})
    scores = ScienceQAAccuracy()({"1": "A"}, [item])
    assert scores.values == dict.fromkeys(("accuracy", "accuracy-NAT", "accuracy-IMG", "accuracy-G1-6"), 100.0)


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("A", "A"), (" E ", "E"), ("B. Maryland", "B"), ("C\nbecause", "C"), ("The answer is D.", "D"),
        ("The answer is D", "D"), ("I think. The answer is B. The answer is A.", "B"), ("", ""), ("F", ""), ("a", ""),
        ("(A)", ""), ("A cat", ""), ("A.", ""), ("the answer is A", ""),
    ],
)  # fmt: skip
def test_the_choice_that_an_answer_names(answer, letter):
    assert chosen(answer) == letter
