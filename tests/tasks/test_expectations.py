"""Recordings of the official scorers through the tasks that read the full data sets.

At the end, which test reads which of the recordings.
"""

from __future__ import annotations

import json
from fnmatch import fnmatch
from importlib import import_module

import pytest

from pet_bench.tasks.coco_caption import CocoCaption
from pet_bench.tasks.vqa import VQA
from pet_bench.tasks.yc2c import YC2C
from tests.data.roots import dump
from tests.metrics.test_cider import SETS
from tests.tasks.test_clips import write
from tests.tasks.test_video_readers import silent

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


@pytest.mark.parametrize("name", ["coco80_leave_one_out", "coco80_shifted"])
def test_coco_captions(tmp_path, expectations, name):
    """The fifth caption of an image, or of the next one, against the first four of the image."""
    rows = load(expectations / "captions" / f"{name}.inputs.json")
    photos = [{"file_name": f"COCO_val2014_{i:012d}.jpg", "image_id": i} for i in range(len(rows))]
    task, file = CocoCaption(also=("bleu", "rouge-l")), tmp_path / "COCO" / "dataset_coco.json"
    pairs = zip(photos, rows, strict=True)
    dump(file, {"images": [as_karpathy(photo, "val", row["references"]) for photo, row in pairs]})
    examples = task.examples(tmp_path, "valid")
    assert [example.images for example in examples] == [(f"COCO/{p['file_name'][:-4]}",) for p in photos]
    predictions = {example.id: row["prediction"] for example, row in zip(examples, rows, strict=True)}
    official = load(expectations / "captions" / f"{name}.expected.json")["corpus"]
    assert task.score(predictions, examples).values == near(official)


def as_karpathy(photo, split, captions):
    sentences = [{"raw": caption} for caption in captions]
    return {"filename": photo["file_name"], "cocoid": photo["image_id"], "split": split, "sentences": sentences}


# videos --------------------------------------------------------------------------------------------------------------


def test_several_references_and_one_at_a_time(tmp_path, expectations):
    """VATEX, whose files are like YC2C's: the first description against the next four."""
    scored = load(expectations / "captions" / "vatex300_pred1_refs4.inputs.json")
    rows = [
        {
            "vid_name": f"clip_{i}",
            "clip_id": i,
            "duration": 9.5,
            "descs": [{"desc": text, "desc_id": 4 * i + n} for n, text in enumerate(row["references"])],
        }
        for i, row in enumerate(scored)
    ]
    root = write(tmp_path, YC2C, *rows, said=silent(rows))
    recorded = load(expectations / "captions" / "multi_reference_vs_expanded_single_reference.json")
    official, expanded = recorded["vatex_val_first300"].values()
    for unit, n, expected in (("clip", 300, official), ("description", 1200, expanded)):
        task = YC2C(unit=unit, also=("bleu",))
        examples = task.examples(root, "test")
        assert len(examples) == n
        every = n // len(rows)
        predictions = {example.id: scored[i // every]["prediction"] for i, example in enumerate(examples)}
        values = task.score(predictions, examples).values
        assert {name: values[name] for name in ("CIDEr", "BLEU-4")} == near(expected, "CIDEr", "BLEU-4")


# all of the reference material ---------------------------------------------------------------------------------------


def test_records_of_scores_whose_captions_are_not_here(expectations):
    """They can only be held against one another."""
    captions = expectations / "captions"
    assert load(captions / "tvc_sample_predictions_published_scores.json")["published"]
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


METRICS, HERE = "tests.metrics", "tests.tasks.test_expectations"
RECORDS = f"{HERE}:test_records_of_scores_whose_captions_are_not_here"
READ_BY = {  # pattern → a test that reads those files
    **{
        f"captions/{name}.{kind}.json": f"{METRICS}.test_cider:{test}"
        for name in SETS
        for kind, test in (
            ("expected", "test_items_on_officially_tokenised_text"),
            ("inputs", "test_corpus_from_raw_text"),
        )
    },
    "captions/aac_metrics_*.json": f"{METRICS}.test_cider:test_two_more_implementations_agree",
    "captions/language_evaluation_*.json": f"{METRICS}.test_cider:test_two_more_implementations_agree",
    "captions/multi_reference_*.json": f"{HERE}:test_several_references_and_one_at_a_time",
    "captions/fakecap_*.json": f"{METRICS}.test_bleu_rouge:test_the_published_bleu_of_the_demonstration_captions",
    "captions/tvc_sample_*.json": RECORDS,
    "nlvr2/official_output.txt": RECORDS,
    "nlvr2/expected.json": f"{METRICS}.test_nlvr_accuracy:test_official_scores",
    "nlvr2/predictions_subset_*.csv": f"{METRICS}.test_nlvr_accuracy:test_official_scores",
    "tokenizer/ptb_pairs.json": f"{METRICS}.test_ptb:test_recorded_pairs",
    "tokenizer/ptb_lite_draft.txt": f"{METRICS}.test_ptb:test_the_draft_of_the_rules_is_no_nearer",
    "videoqa/expected.json": RECORDS,
    "vqa/normalisation_*.json": (
        f"{METRICS}.test_vqa_accuracy:test_normalisation_equals_the_official_one_string_by_string"
    ),
    "vqa/accuracy_official_20*.json": f"{HERE}:test_synthetic_questions_as_vqa",
    "vqa/synthetic_*.json": f"{HERE}:test_synthetic_questions_as_vqa",
    "README.md": None,
}


def left_out(folder, read_by):
    """Files that no pattern names, patterns without a file, and tests that there are not."""
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    tests = [test.split(":") for test in read_by.values() if test]
    return (
        [file for file in files if not any(fnmatch(file, pattern) for pattern in read_by)],
        [pattern for pattern in read_by if not any(fnmatch(file, pattern) for file in files)],
        [test for module, test in tests if not hasattr(import_module(module), test)],
    )


def test_no_file_is_left_out(expectations):
    assert left_out(expectations, READ_BY) == ([], [], [])
