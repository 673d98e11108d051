"""`data convert` of real extracts; at the end, which test reads which of their files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pet_bench.data.convert import ZOO, convert, read_back
from pet_bench.data.convert.vqa import soft_label
from tests.conftest import given
from tests.data.roots import lines
from tests.data.test_convert import SAID, run
from tests.tasks.test_expectations import left_out

SAMPLES = given(
    "samples",
    "official downloads of NLVR2, VQA, GQA and the four video tasks are converted, to the byte where a conversion is "
    "published; every file of samples/ is read by a test",
)


@pytest.fixture
def samples() -> Path:
    return SAMPLES


@pytest.fixture
def root(tmp_path):
    return tmp_path / "datasets"


def test_the_published_answers_are_their_own_normal_form(samples):
    for answer in json.loads((samples / "vqa" / "trainval_label2ans.json").read_text()):
        assert soft_label([answer], {answer: 0})[0] == ({answer: 0.3} if answer else {})


def test_real_nlvr2_becomes_what_lxmert_made_of_it(samples, tmp_path, root):
    (tmp_path / "downloads").mkdir()
    shutil.copy(samples / "nlvr2" / "dev_subset.jsonl", tmp_path / "downloads" / "dev.jsonl")
    assert run(tmp_path / "downloads", root) == 1  # of three splits
    expected = (samples / "nlvr2" / "valid.lxmert_format.subset.json").read_bytes()
    assert (root / "nlvr/valid.json").read_bytes() == expected
    assert [part.examples for part in read_back(root, ["nlvr2"])] == [0, 500, 0]


def test_real_video_annotations(samples, tmp_path, root):
    """Subtitles are not public: these have no lines."""
    folder = tmp_path / "downloads"
    for sample, name, subtitles in (
        ("how2qa/how2qa_val_release.jsonl", "how2qa_val_release.jsonl", "how2"),
        ("yc2c/yc2c_val_release.jsonl", "yc2c_val_release.jsonl", "yc2"),
        ("tvqa/tvqa_test_public.first400.jsonl", "tvqa_test_public.jsonl", ""),
        ("tvc/tvc_test_public_release.first300.jsonl", "tvc_test_public_release.jsonl", ""),
    ):
        folder.mkdir(exist_ok=True)
        shutil.copy(samples / sample, folder / name)
        if subtitles:
            clips = {json.loads(line)["vid_name"] for line in (folder / name).read_text().splitlines()}
            lines(folder / f"{subtitles}_subtitles.jsonl", [{"vid_name": clip, "sub": []} for clip in sorted(clips)])
    report = convert(folder, root)
    rows = {made.target.rpartition("/")[2]: made.rows for made in report.written}
    assert {name: count for name, count in rows.items() if "subtitles" not in name} == {
        "how2qa_val_release.jsonl": 3115,
        "yc2c_val_release.jsonl": 3492,
        "tvqa_test_public.jsonl": 400,
        "tvc_test_public_release.jsonl": 300,
    }
    found = {part.task: part.examples for part in read_back(root, report.tasks) if part.split == "test"}
    assert found == {"how2qa": 3115, "yc2c": 3492, "tvqa": 0, "tvc": 0}


def test_real_tvqa_and_tvc_rows_with_labels_made_up(samples, tmp_path, root):
    asked = [json.loads(line) for line in (samples / "tvqa/tvqa_test_public.first400.jsonl").read_text().splitlines()]
    folder = samples / "tvc" / "tvc_val_joined_with_tvr_one_reference.first1500.jsonl"
    told = [json.loads(line) for line in folder.read_text().splitlines()]
    clips = sorted({row["vid_name"] for row in asked + told})
    source = tmp_path / "downloads"
    lines(source / "tvqa_val.jsonl", [row | {"answer_idx": i % 5} for i, row in enumerate(asked)])
    descs = [[{"desc": row["ref_from_tvr"][0], "desc_id": i}] for i, row in enumerate(told)]
    lines(source / "tvc_val_release.jsonl", [row | {"descs": d} for row, d in zip(told, descs, strict=True)])
    lines(source / "tvqa_preprocessed_subtitles.jsonl", [{"vid_name": clip, "sub": SAID} for clip in clips])
    report = convert(source, root)
    found = {part.task: part.examples for part in read_back(root, report.tasks) if part.split == "test"}
    assert found == {"tvqa": 400, "tvc": 1500}


@pytest.mark.parametrize(("ours", "theirs", "count"), [("vqa", "vqa", 3129), ("GQA", "gqa", 1842)])
def test_real_answer_maps(samples, root, ours, theirs, count):
    """The list is made from the map, and is the published one to the byte."""
    report = convert(samples, root, [theirs])
    assert {made.target: made.rows for made in report.written} == {
        f"{ours}/trainval_ans2label.json": count,
        f"{ours}/trainval_label2ans.json": count,
    }
    for name in ("trainval_ans2label.json", "trainval_label2ans.json"):
        assert (root / ours / name).read_bytes() == (samples / theirs / name).read_bytes()


def test_the_samples_as_they_lie_there(samples, root):
    """How2QA and YC2C have their official names; NLVR v1's dev.json is not taken for NLVR2's."""
    report = convert(samples, root)
    assert {made.target for made in report.written} == {
        "vqa/trainval_ans2label.json",
        "vqa/trainval_label2ans.json",
        "GQA/trainval_ans2label.json",
        "GQA/trainval_label2ans.json",
        "video/ann/how2qa/how2qa_val_release.jsonl",
        "video/ann/yc2c/yc2c_val_release.jsonl",
    }
    assert report.idle == ["nlvr2", "coco-caption", "tvqa", "tvc", *(one.task for one in ZOO)]


CLIPS, HERE, IMAGES = (f"tests.samples.test_{name}" for name in ("clips", "downloads", "images"))
READ_BY = {  # pattern → a test that reads those files
    "coco/captions_val2014_fakecap_*.json": f"{IMAGES}:test_the_published_scores_of_the_demonstration_captions",
    "coco/*_captions.json": f"{IMAGES}:test_all_captions_of_an_image_are_learned",
    "gqa/trainval_*.json": f"{IMAGES}:test_the_answers_of_gqa",
    "how2qa/*.csv": f"{CLIPS}:test_the_authors_csv_of_how2qa_is_refused",
    "how2qa/how2qa_val_*": f"{CLIPS}:test_how2qa",
    "nlvr1/nlvr/*.json": f"{IMAGES}:test_real_nlvr_v1",
    "nlvr1/nlvr/*/images/*.png": f"{IMAGES}:test_both_permutations_of_nlvr_v1_dev",
    "nlvr2/dev_all_id_label.csv": f"{IMAGES}:test_all_of_nlvr2_dev",
    "nlvr2/dev_subset.jsonl": f"{IMAGES}:test_all_of_nlvr2_dev",
    "nlvr2/valid.*.json": f"{IMAGES}:test_official_nlvr2_rows_read_as_the_converted_ones",
    "tvc/sample_val_predictions_metrics_raw.json": f"{CLIPS}:test_published_scores_are_the_authors_own",
    "tvc/*_predictions.first*.jsonl": f"{CLIPS}:test_a_submission_in_the_place_of_annotations_is_refused",
    "tvc/tvc_test_*.jsonl": f"{CLIPS}:test_real_tvc_without_descriptions_is_refused",
    "tvc/tvc_val_*.jsonl": f"{CLIPS}:test_tvc_with_the_authors_predictions",
    "tvqa/*.jsonl": f"{CLIPS}:test_real_tvqa_with_labels_made_up",
    "vatex/*.jsonl": f"{CLIPS}:test_the_captions_that_were_scored_are_of_vatex",
    "vqa/OpenEnded_*.json": f"{IMAGES}:test_the_official_fake_results_of_vqa",
    "vqa/trainval_*.json": f"{IMAGES}:test_the_answers_of_vqa",
    "yc2c/yc2c_test_*.jsonl": f"{CLIPS}:test_a_submission_in_the_place_of_annotations_is_refused",
    "yc2c/yc2c_val_*.jsonl": f"{CLIPS}:test_real_files",
    "README.md": None,
}


def test_no_file_is_left_out(samples):
    assert left_out(samples, READ_BY) == ([], [], [])
