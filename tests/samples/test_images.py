"""Real extracts of NLVR, NLVR2, VQA, GQA and COCO through their tasks and metrics."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pet_bench.metrics.bleu import Counts, counts
from pet_bench.metrics.nlvr_accuracy import sentence_of
from pet_bench.metrics.ptb import tokenize
from pet_bench.metrics.vqa_accuracy import normalise
from pet_bench.tasks.coco_caption import CocoCaption
from pet_bench.tasks.gqa import GQA
from pet_bench.tasks.nlvr2 import NLVR2
from pet_bench.tasks.nlvr_v1 import NLVRv1
from pet_bench.tasks.vqa import VQA
from pet_bench.trial.score import score_file
from tests.conftest import given
from tests.data.roots import dump, lines
from tests.tasks.test_expectations import ACCURACY, as_karpathy, load, vqa_root
from tests.tasks.test_video_readers import rows_of

SAMPLES = given(
    "samples",
    "real rows of NLVR, NLVR2 and COCO are read whole, and boxes of NLVR cut where they are; answers of VQA and GQA "
    "are all as their scorers leave them and score 100; the official demonstration submissions score what is published",
)


@pytest.fixture
def samples() -> Path:
    return SAMPLES


def test_real_nlvr2_rows(samples, tmp_path):
    (tmp_path / "nlvr").mkdir()
    rows = (samples / "nlvr2" / "valid.lxmert_format.subset.json").read_text()
    (tmp_path / "nlvr" / "valid.json").write_text(rows)
    examples = NLVR2().examples(tmp_path, "valid")
    assert len(examples) == 500
    assert sum(e.targets[0][0] == "true" for e in examples) == 255
    assert len({e.text for e in examples}) == 146
    assert examples[0].references == {"label": "false", "group": "dev-1052--0"}


def test_official_nlvr2_rows_read_as_the_converted_ones(samples, tmp_path):
    (tmp_path / "nlvr").mkdir()
    for name, source in (("valid", "valid.lxmert_format.subset.json"), ("dev", "dev_subset.jsonl")):
        (tmp_path / "nlvr" / f"{name}.json").write_text((samples / "nlvr2" / source).read_text())
    assert NLVR2(valid="dev").examples(tmp_path, "valid") == NLVR2().examples(tmp_path, "valid")


@pytest.mark.parametrize("inside", [False, True], ids=["folder above", "nlvr itself"])
def test_real_nlvr_v1(samples, inside):
    root = samples / "nlvr1" / "nlvr" if inside else samples / "nlvr1"
    task = NLVRv1(train="dev", valid=None)
    train, test = task.examples(root, "train"), task.examples(root, "test")
    assert (len(train), len(test)) == (2 * 989, 990)
    assert sum(e.targets[0][0] == "true" for e in test) == 556
    assert len({e.references["group"] for e in test}) == 266
    boxes = [task.feature(root, key) for key in train[0].images]
    assert [box.shape for box in boxes] == [(36, 192)] * 3
    # light grey, the boxes' ground, is the commonest value of every box; the darker gaps between them are outside
    assert all((abs((box.astype(float) + 1) * 127.5 - 128) < 2).mean() < 0.01 for box in boxes)


def test_the_answers_of_vqa(tmp_path, samples):
    """All 3,129 are as the scorer leaves them; index 0, the empty answer, is not learned."""
    answers, labels = (load(samples / "vqa" / f"trainval_{name}.json") for name in ("label2ans", "ans2label"))
    assert labels == {answer: i for i, answer in enumerate(answers)} and len(answers) == 3129 and answers[0] == ""
    assert [normalise(answer) for answer in answers] == answers
    questions = [{"question_id": i, "image_id": i, "question": "what"} for i in range(len(answers))]
    types = {"question_type": "what", "answer_type": "other"}
    truth = [{"question_id": i, "answers": [{"answer": answer}] * 10, **types} for i, answer in enumerate(answers)]
    root = vqa_root(tmp_path, questions, truth, lambda key: {answers[key]: 1.0})
    examples = VQA().examples(root, "valid")
    assert [example.targets for example in examples] == [(), *(((answer, 1.0),) for answer in answers[1:])]
    predictions = {example.id: answer for example, answer in zip(examples, answers, strict=True)}
    for version in ACCURACY:
        assert VQA(scorer=version).score(predictions, examples).primary == 100.0


def test_the_answers_of_gqa(tmp_path, samples):
    answers, labels = (load(samples / "gqa" / f"trainval_{name}.json") for name in ("label2ans", "ans2label"))
    assert labels == {answer: i for i, answer in enumerate(answers)} and len(answers) == 1842
    official = {f"{i:08d}": {"imageId": "n1", "question": "what", "answer": answer} for i, answer in enumerate(answers)}
    dump(tmp_path / "GQA" / "testdev_balanced_questions.json", official)
    task = GQA(test="testdev_balanced_questions")
    examples = task.examples(tmp_path, "test")
    assert [answer for example in examples for answer, _ in example.targets] == answers
    assert task.score({e.id: answer for e, answer in zip(examples, answers, strict=True)}, examples).primary == 100.0


def test_the_official_fake_results_of_vqa(tmp_path, samples):
    """Made-up annotations: n of the annotators answer the n-th question, from 0, in the same way."""
    file = samples / "vqa" / "OpenEnded_mscoco_train2014_fake_results.commit1b481b2d.json"
    rows = load(file)
    truth = [
        {
            "question_id": row["question_id"],
            "question_type": "what",
            "answer_type": "other",
            "answers": [{"answer": row["answer"] if i < n else f"other {i}"} for i in range(10)],
        }
        for n, row in enumerate(rows)
    ]
    scored = score_file("vqa-accuracy", file, dump(tmp_path / "annotations.json", {"annotations": truth}))
    assert scored.n == 10
    expected = [0, 30, 60, 90, 100, 100, 100, 100, 100, 100]
    assert list(scored.scores.per_example.values()) == pytest.approx(expected)


def test_all_of_nlvr2_dev(tmp_path, samples, expectations):
    """The labels as a submission; the official values for another one are whole numbers of examples and sentences."""
    file = samples / "nlvr2" / "dev_all_id_label.csv"
    labels = dict(line.split(",") for line in file.read_text().splitlines())
    assert all(labels[row["identifier"]] == row["label"] for row in rows_of(samples / "nlvr2" / "dev_subset.jsonl"))
    truth = lines(tmp_path / "dev.json", [{"identifier": key, "label": label} for key, label in labels.items()])
    scored = score_file("nlvr-accuracy", file, truth)
    assert (scored.n, scored.scores.values) == (6982, {"accuracy": 100.0, "consistency": 100.0})
    official = load(expectations / "nlvr2" / "expected.json")["predictions_dev_full_flip27.csv"]
    counts = official["accuracy"] * len(labels), official["consistency"] * len({*map(sentence_of, labels)})
    assert counts == pytest.approx([round(count) for count in counts], abs=1e-9)


def test_both_permutations_of_nlvr_v1_dev(samples):
    """The second shows the same three boxes, the last two in each other's place; of the first fifty images of each."""
    root, task = samples / "nlvr1", NLVRv1(train="dev", valid=None)
    images = {example.id: example.images for example in task.examples(root, "train")}
    stems = sorted({key.rpartition("-")[0] for key in images})
    assert images.keys() == {f"{stem}-{n}" for stem in stems for n in (0, 1)} and len(stems) == 989
    for stem in stems[:50]:
        first, second = (np.stack([task.feature(root, key) for key in images[f"{stem}-{n}"]]) for n in (0, 1))
        assert abs(first[[0, 2, 1]].astype(float) - second).mean(axis=(1, 2)).max() < 1e-4  # edges are drawn anew


def test_the_published_scores_of_the_demonstration_captions(samples, expectations):
    """Its references are not here: their matches are taken as recorded, the lengths counted anew."""
    recorded = load(expectations / "captions" / "fakecap_published_scores.json")
    rows = json.loads((samples / "coco" / "captions_val2014_fakecap_results.json").read_text())
    own = [counts(tokenize(row["caption"]), [""]) for row in rows]
    guess = [sum(one.possible[n] for one in own) for n in range(4)]
    found = recorded["bleu_counts"]
    assert (guess, sum(one.length for one in own)) == (found["guess"], found["testlen"])
    scores = Counts(tuple(found["correct"]), tuple(guess), found["testlen"], found["reflen"]).bleu()
    assert [round(score, 3) for score in scores] == [recorded["published"][f"Bleu_{n}"] for n in range(1, 5)]


def test_all_captions_of_an_image_are_learned(tmp_path, samples, expectations):
    """And they are those that were scored: the fifth against the first four."""
    photos = load(samples / "coco" / "coco_val2014_80_images_5_captions.json")
    scored = load(expectations / "captions" / "coco80_leave_one_out.inputs.json")
    assert [(row["prediction"], row["references"]) for row in scored] == [
        (photo["captions"][4], photo["captions"][:4]) for photo in photos
    ]
    splits = ("train", "restval")
    images = [as_karpathy(p, splits[i % 2], p["captions"]) for i, p in enumerate(photos)]
    dump(tmp_path / "COCO" / "dataset_coco.json", {"images": images})
    examples = CocoCaption().examples(tmp_path, "train")
    learned = sorted(caption for example in examples for caption, _ in example.targets)
    assert learned == sorted(caption.strip() for photo in photos for caption in photo["captions"])
    assert len(learned) == 401  # one of the images has six
