"""The real samples through the tasks that read the full data sets, up to the scores of the official scorers.

At the end, which test reads which file of the reference material.
"""

from __future__ import annotations

import json
from fnmatch import fnmatch
from importlib import import_module

import numpy as np
import pytest

from pet_bench.errors import UserError
from pet_bench.metrics.nlvr_accuracy import sentence_of
from pet_bench.metrics.vqa_accuracy import normalise
from pet_bench.tasks.coco_caption import CocoCaption
from pet_bench.tasks.gqa import GQA
from pet_bench.tasks.how2qa import How2QA
from pet_bench.tasks.nlvr_v1 import NLVRv1
from pet_bench.tasks.tvc import TVC
from pet_bench.tasks.vqa import VQA
from pet_bench.tasks.yc2c import YC2C
from pet_bench.trial.score import score_file
from tests.conftest import reference
from tests.data.roots import dump, lines
from tests.metrics.test_cider import SETS
from tests.tasks.test_clips import write
from tests.tasks.test_video_readers import rows_of, silent

ACCURACY = {"2016": "accuracy_official_2016_458a8b2.json", "2021": "accuracy_official_2021_a013f00.json"}


def load(path):
    return json.loads(path.read_text())


def near(official, *names):
    """The official values, of the metrics by our names, on our scale."""
    keys = {"CIDEr": "CIDEr", "ROUGE-L": "ROUGE_L"} | {f"BLEU-{n}": f"Bleu_{n}" for n in range(1, 5)}
    return {name: pytest.approx(100 * official[keys[name]], abs=0.05) for name in names or keys}


# images --------------------------------------------------------------------------------------------------------------


def vqa_root(root, questions, annotations, label):
    """As a folder of VQAv2 whose validation split they are; `label` gives a row's soft label by its question."""
    rows = [
        {"question_id": q["question_id"], "img_id": f"COCO_val2014_{q['image_id']:012d}", "sent": q["question"]}
        for q in questions
    ]
    dump(root / "vqa" / "karpathy_val.json", [row | {"label": label(row["question_id"])} for row in rows])
    dump(root / "vqa" / "v2_mscoco_val2014_annotations.json", {"annotations": annotations})
    return root


@pytest.mark.parametrize("version", ACCURACY)
def test_synthetic_questions_as_vqa(tmp_path, expectations, version):
    folder = expectations / "vqa"
    questions, truth = (load(folder / f"synthetic_{name}.json")[name] for name in ("questions", "annotations"))
    examples = VQA(scorer=version).examples(vqa_root(tmp_path, questions, truth, lambda key: {}), "valid")
    assert [example.text for example in examples] == [f"vqa: {q['question']}" for q in questions]
    results = {str(row["question_id"]): row["answer"] for row in load(folder / "synthetic_results.json")}
    scores, official = VQA(scorer=version).score(results, examples), load(folder / ACCURACY[version])
    assert round(scores.primary, 2) == official["overall"]
    assert {key: round(value, 2) for key, value in scores.per_example.items()} == official["evalQA"]


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


@pytest.mark.parametrize(("name", "shift"), [("coco80_leave_one_out", 0), ("coco80_shifted", 1)])
def test_coco_captions(tmp_path, samples, expectations, name, shift):
    """The fifth caption of an image, or of the next one, against the first four of the image."""
    photos = load(samples / "coco" / "coco_val2014_80_images_5_captions.json")
    task, file = CocoCaption(also=("bleu", "rouge-l")), tmp_path / "COCO" / "dataset_coco.json"
    dump(file, {"images": [as_karpathy(photo, "val", photo["captions"][:4]) for photo in photos]})
    examples = task.examples(tmp_path, "valid")
    assert [example.images for example in examples] == [(f"COCO/{p['file_name'][:-4]}",) for p in photos]
    fifth = [photo["captions"][4] for photo in photos]
    predictions = dict(zip((e.id for e in examples), fifth[shift:] + fifth[:shift], strict=True))
    official = load(expectations / "captions" / f"{name}.expected.json")["corpus"]
    assert task.score(predictions, examples).values == near(official)

    splits = ("train", "restval")
    dump(file, {"images": [as_karpathy(p, splits[i % 2], p["captions"]) for i, p in enumerate(photos)]})
    learned = sorted(caption for example in task.examples(tmp_path, "train") for caption, _ in example.targets)
    assert learned == sorted(caption.strip() for photo in photos for caption in photo["captions"])
    assert len(learned) == 401  # one of the images has six


def as_karpathy(photo, split, captions):
    sentences = [{"raw": caption} for caption in captions]
    return {"filename": photo["file_name"], "cocoid": photo["image_id"], "split": split, "sentences": sentences}


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


# videos --------------------------------------------------------------------------------------------------------------


def test_how2qa(tmp_path, samples, expectations):
    rows = rows_of(samples / "how2qa" / "how2qa_val_release.jsonl")
    examples = How2QA().examples(write(tmp_path, How2QA, *rows, said=silent(rows)), "test")
    submission = load(samples / "how2qa" / "how2qa_val_predictions.sample_submission.json")
    scores = How2QA().score({key: f"a{choice}" for key, choice in submission.items()}, examples)
    official = load(expectations / "videoqa" / "expected.json")
    right, n = official["counts_for_exactness"]["how2qa"]
    assert (sum(scores.per_example.values()), len(examples)) == (100 * right, n)
    assert round(scores.primary, 2) == official["how2qa_val_accuracy_percent"]


def test_tvc_with_the_authors_predictions(tmp_path, samples, expectations):
    """Against the one reference that there is, the first description in TVR of the same moment."""
    rows = rows_of(samples / "tvc" / "tvc_val_joined_with_tvr_one_reference.first1500.jsonl")
    moments = [row | {"descs": [{"desc": row["ref_from_tvr"][0], "desc_id": row["clip_id"]}]} for row in rows]
    task = TVC(also=("bleu", "rouge-l"))
    examples = task.examples(write(tmp_path, TVC, *moments, said=silent(rows)), "test")
    predictions = {str(row["clip_id"]): row["pred_mmt"] for row in rows}
    submitted = rows_of(samples / "tvc" / "sample_val_predictions.first1000.jsonl")
    assert all(row["descs"] == [{"desc": predictions[str(row["clip_id"])]}] for row in submitted)
    compared = load(expectations / "captions" / "language_evaluation_vs_pycocoevalcap.json")
    official = compared["tvc1500_one_tvr_reference"]["pycocoevalcap"]
    assert task.score(predictions, examples).values == near(official)
    again = load(expectations / "captions" / "aac_metrics_cider_d_on_pretokenised_text.json")
    assert again["tvc1500_one_tvr_reference"]["aac_metrics.cider_d"] == official["CIDEr"]


def test_several_references_and_one_at_a_time(tmp_path, samples, expectations):
    """VATEX, whose files are like YC2C's: the first description against the next four."""
    rows = rows_of(samples / "vatex" / "vatex_en_c_val.first300.jsonl")
    root = write(tmp_path, YC2C, *(row | {"descs": row["descs"][1:5]} for row in rows), said=silent(rows))
    recorded = load(expectations / "captions" / "multi_reference_vs_expanded_single_reference.json")
    official, expanded = recorded["vatex_val_first300"].values()
    for unit, n, expected in (("clip", 300, official), ("description", 1200, expanded)):
        task = YC2C(unit=unit, also=("bleu",))
        examples = task.examples(root, "test")
        assert len(examples) == n
        every = n // len(rows)
        predictions = {example.id: rows[i // every]["descs"][0]["desc"] for i, example in enumerate(examples)}
        values = task.score(predictions, examples).values
        assert {name: values[name] for name in ("CIDEr", "BLEU-4")} == near(expected, "CIDEr", "BLEU-4")


@pytest.mark.parametrize(
    ("task", "sample", "said"),
    [
        (TVC, "tvc/sample_val_predictions.first1000.jsonl", "descs.row 0.desc_id is missing"),
        (TVC, "tvc/value_tvc_test_predictions.first300.jsonl", "descs.row 0.desc_id is missing"),
        (YC2C, "yc2c/yc2c_test_predictions.sample_submission.first100.jsonl", "vid_name is missing"),
    ],
)
def test_a_submission_in_the_place_of_annotations_is_refused(tmp_path, samples, task, sample, said):
    with pytest.raises(UserError) as error:
        task().examples(write(tmp_path, task, *rows_of(samples / sample)), "test")
    assert f"{task.name}_val_release.jsonl: line 1: {said}" in error.value.faults[0]


# all of the reference material ---------------------------------------------------------------------------------------


def test_records_of_scores_whose_captions_are_not_here(samples, expectations):
    """They can only be held against one another."""
    captions = expectations / "captions"
    published = load(captions / "tvc_sample_predictions_published_scores.json")["published"]
    assert published == load(samples / "tvc" / "sample_val_predictions_metrics_raw.json")
    compared = load(captions / "language_evaluation_vs_pycocoevalcap.json")
    assert all(both["language_evaluation"] == both["pycocoevalcap"] for both in compared.values())
    cooking = compared["yc2c_val_sample_submission"]["pycocoevalcap"]
    assert load(expectations / "videoqa" / "expected.json")["yc2c_val"] == {
        key: pytest.approx(100 * value, abs=0.006) for key, value in cooking.items()
    }
    said = (expectations / "nlvr2" / "official_output.txt").read_text().splitlines()
    printed = [(name, *(part.partition("=")[2] for part in parts)) for name, *parts in map(str.split, said)]
    official = load(expectations / "nlvr2" / "expected.json")
    assert printed == [(name, str(of["accuracy"]), str(of["consistency"])) for name, of in official.items()]


METRICS, HERE = "tests.metrics", "tests.tasks.test_samples"
RECORDS = f"{HERE}:test_records_of_scores_whose_captions_are_not_here"
VIDEO = "tests.tasks.test_video_readers"
READ_BY = {  # pattern → a test that reads those files
    **{
        f"expectations/captions/{name}.{kind}.json": f"{METRICS}.test_cider:{test}"
        for name in SETS
        for kind, test in (
            ("expected", "test_items_on_officially_tokenised_text"),
            ("inputs", "test_corpus_from_raw_text"),
        )
    },
    "expectations/captions/aac_metrics_*.json": f"{METRICS}.test_cider:test_two_more_implementations_agree",
    "expectations/captions/language_evaluation_*.json": f"{METRICS}.test_cider:test_two_more_implementations_agree",
    "expectations/captions/multi_reference_*.json": f"{HERE}:test_several_references_and_one_at_a_time",
    "expectations/captions/fakecap_*.json": (
        f"{METRICS}.test_bleu_rouge:test_the_published_scores_of_the_demonstration_captions"
    ),
    "expectations/captions/tvc_sample_*.json": RECORDS,
    "expectations/nlvr2/official_output.txt": RECORDS,
    "expectations/nlvr2/expected.json": f"{METRICS}.test_nlvr_accuracy:test_official_scores",
    "expectations/nlvr2/predictions_subset_*.csv": f"{METRICS}.test_nlvr_accuracy:test_official_scores",
    "expectations/tokenizer/ptb_pairs.json": f"{METRICS}.test_ptb:test_recorded_pairs",
    "expectations/tokenizer/ptb_lite_draft.py": f"{METRICS}.test_ptb:test_the_draft_of_the_rules_is_no_nearer",
    "expectations/videoqa/expected.json": f"{HERE}:test_how2qa",
    "expectations/vqa/normalisation_*.json": (
        f"{METRICS}.test_vqa_accuracy:test_normalisation_equals_the_official_one_string_by_string"
    ),
    "expectations/vqa/accuracy_official_20*.json": f"{HERE}:test_synthetic_questions_as_vqa",
    "expectations/vqa/synthetic_*.json": f"{HERE}:test_synthetic_questions_as_vqa",
    "samples/coco/captions_val2014_fakecap_*.json": (
        f"{METRICS}.test_bleu_rouge:test_the_published_scores_of_the_demonstration_captions"
    ),
    "samples/coco/*_captions.json": f"{HERE}:test_coco_captions",
    "samples/gqa/trainval_*.json": f"{HERE}:test_the_answers_of_gqa",
    "samples/how2qa/*.csv": f"{VIDEO}:test_the_authors_csv_of_how2qa_is_refused",
    "samples/how2qa/how2qa_val_*": f"{HERE}:test_how2qa",
    "samples/nlvr1/nlvr/*.json": "tests.tasks.test_readers:test_real_nlvr_v1",
    "samples/nlvr1/nlvr/*/images/*.png": f"{HERE}:test_both_permutations_of_nlvr_v1_dev",
    "samples/nlvr2/dev_all_id_label.csv": f"{HERE}:test_all_of_nlvr2_dev",
    "samples/nlvr2/dev_subset.jsonl": f"{HERE}:test_all_of_nlvr2_dev",
    "samples/nlvr2/valid.*.json": "tests.tasks.test_readers:test_official_nlvr2_rows_read_as_the_converted_ones",
    "samples/tvc/sample_val_predictions_metrics_raw.json": RECORDS,
    "samples/tvc/*_predictions.first*.jsonl": f"{HERE}:test_a_submission_in_the_place_of_annotations_is_refused",
    "samples/tvc/tvc_test_*.jsonl": f"{VIDEO}:test_real_tvc_without_descriptions_is_refused",
    "samples/tvc/tvc_val_*.jsonl": f"{HERE}:test_tvc_with_the_authors_predictions",
    "samples/tvqa/*.jsonl": f"{VIDEO}:test_real_tvqa_with_labels_made_up",
    "samples/vatex/*.jsonl": f"{HERE}:test_several_references_and_one_at_a_time",
    "samples/vqa/OpenEnded_*.json": f"{HERE}:test_the_official_fake_results_of_vqa",
    "samples/vqa/trainval_*.json": f"{HERE}:test_the_answers_of_vqa",
    "samples/yc2c/yc2c_test_*.jsonl": f"{HERE}:test_a_submission_in_the_place_of_annotations_is_refused",
    "samples/yc2c/yc2c_val_*.jsonl": "tests.tasks.test_clips:test_real_files",
    "*/README.md": None,
}


@pytest.mark.parametrize("folder", ["expectations", "samples"])
def test_no_file_is_left_out(folder):
    """Each is read by a test that there is, and no pattern is without a file."""
    root = reference(folder)
    files = [f"{folder}/{path.relative_to(root).as_posix()}" for path in root.rglob("*") if path.is_file()]
    patterns = [pattern for pattern in READ_BY if pattern.startswith((folder, "*"))]
    assert [file for file in files if not any(fnmatch(file, pattern) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not any(fnmatch(file, pattern) for file in files)] == []
    tests = [READ_BY[pattern].split(":") for pattern in patterns if READ_BY[pattern]]
    assert [test for module, test in tests if not hasattr(import_module(module), test)] == []
