"""Real extracts of TVQA, TVC, How2QA and YC2C through their tasks and metrics; subtitles are not public."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pet_bench.errors import UserError
from pet_bench.metrics.multiple_choice import MultipleChoiceAccuracy
from pet_bench.metrics.ptb import tokenize
from pet_bench.tasks.how2qa import How2QA
from pet_bench.tasks.tvc import TVC
from pet_bench.tasks.tvqa import TVQA
from pet_bench.tasks.yc2c import YC2C
from tests.conftest import SHARED, given
from tests.metrics.test_multiple_choice import example
from tests.metrics.test_ptb import missed
from tests.reference.build import NOT_OURS, PAIRS
from tests.tasks.test_clips import write
from tests.tasks.test_expectations import load, near
from tests.tasks.test_video_readers import rows_of, silent
from tests.test_cli import call  # noqa: F401
from tests.test_score import scored  # noqa: F401

SAMPLES = given(
    "samples",
    "real rows of TVQA, TVC, How2QA and YC2C are read whole, or refused where they are no annotations; submissions for "
    "How2QA and TVC score what the official scorers say; sentences of YC2C and TVR are tokenised as by Java",
)


@pytest.fixture
def samples() -> Path:
    return SAMPLES


@pytest.mark.parametrize(
    ("task", "sample", "count", "first"),
    [
        (How2QA, "how2qa/how2qa_val_release.jsonl", 3115, ("30351", "a2")),
        (YC2C, "yc2c/yc2c_val_release.jsonl", 3492, ("10337", "layer marinara sauce and pierogies")),
    ],
    ids=["how2qa", "yc2c"],
)
def test_real_files(tmp_path, samples, task, sample, count, first):
    """The whole validation splits, with subtitles made up: those are not public."""
    lines = (samples / sample).read_text().splitlines()
    clips = {json.loads(line)["vid_name"] for line in lines}
    root = write(tmp_path, task, *lines, said=[{"vid_name": clip, "sub": []} for clip in sorted(clips)])
    examples = task().examples(root, "test")
    assert (len(examples), (examples[0].id, examples[0].targets[0][0])) == (count, first)


def test_real_tvqa_without_labels_is_refused(tmp_path, samples):
    lines = (samples / "tvqa" / "tvqa_test_public.first400.jsonl").read_text().splitlines()
    with pytest.raises(UserError, match=r"tvqa: .*line 1: answer_idx is missing"):
        TVQA().examples(write(tmp_path, TVQA, *lines), "test")


def test_real_tvqa_with_labels_made_up(tmp_path, samples):
    rows = rows_of(samples / "tvqa" / "tvqa_test_public.first400.jsonl")
    labelled = [row | {"answer_idx": i % 5} for i, row in enumerate(rows)]
    examples = TVQA().examples(write(tmp_path, TVQA, *labelled, said=silent(rows)), "test")
    assert [example.id for example in examples] == [str(row["qid"]) for row in rows]
    assert examples[0].text == (
        "[Subs]  [Q] Who does Sheldon say he'll send an email to after coming out of the bathroom? [TS] (48.62-60.02) "
        "[Choices] a0: The yogurt manufacturer. a1: The people who make toilet seats. a2: Stan Lee. a3: Leonard's mom. "
        "a4: The person who didn't make the apartment walls soundproof. tvqa: "
    )
    assert {example.kind for example in examples} == {row["show_name"] for row in rows}
    right = MultipleChoiceAccuracy()({example.id: "a3" for example in examples}, examples)
    assert right.primary == pytest.approx(20.0)


def test_real_tvc_with_one_reference(tmp_path, samples):
    rows = rows_of(samples / "tvc" / "tvc_val_joined_with_tvr_one_reference.first1500.jsonl")
    moments = [row | {"descs": [{"desc": row["ref_from_tvr"][0], "desc_id": i}]} for i, row in enumerate(rows)]
    root = write(tmp_path, TVC, *moments, said=silent(rows))
    examples = TVC().examples(root, "test")
    assert len(examples) == 1500
    assert examples[1].text == "[Subs]  [TS] ([0, 2.29]) tvc: "
    assert examples[1].references == {"captions": ["Monica tells Ross never knew he did that."]}
    assert [e.id for e in TVC(unit="clip").examples(root, "test")] == [str(row["clip_id"]) for row in rows]


def test_real_tvc_without_descriptions_is_refused(tmp_path, samples):
    rows = rows_of(samples / "tvc" / "tvc_test_public_release.first300.jsonl")
    with pytest.raises(UserError, match=r"tvc: .*tvc_val_release.jsonl: line 1: descs is missing") as error:
        TVC().examples(write(tmp_path, TVC, *rows), "test")
    assert error.value.faults[-1].endswith("and 280 faults more")


def test_the_authors_csv_of_how2qa_is_refused(tmp_path, samples):
    lines = (samples / "how2qa" / "how2QA_val_release.original.first300.csv").read_text().splitlines()
    with pytest.raises(UserError, match=r"how2qa: .*line 1 is not valid JSON"):
        How2QA().examples(write(tmp_path, How2QA, *lines), "test")


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


def test_how2qa_by_the_metric(expectations, samples):
    official = json.loads((expectations / "videoqa" / "expected.json").read_text())
    lines = (samples / "how2qa" / "how2qa_val_release.jsonl").read_text().splitlines()
    examples = [example(row["qid"], f"a{row['answer_idx']}") for row in map(json.loads, lines)]
    submission = json.loads((samples / "how2qa" / "how2qa_val_predictions.sample_submission.json").read_text())
    scores = MultipleChoiceAccuracy()({key: f"a{choice}" for key, choice in submission.items()}, examples)
    right, total = official["counts_for_exactness"]["how2qa"]
    assert (sum(scores.per_example.values()), len(examples)) == (100 * right, total)
    assert round(scores.primary, 2) == official["how2qa_val_accuracy_percent"]


def test_how2qa_by_the_command(scored, expectations, samples):  # noqa: F811
    folder = samples / "how2qa"
    official = json.loads((expectations / "videoqa" / "expected.json").read_text())
    found = scored(
        "--metric", "multiple-choice-accuracy", folder / "how2qa_val_predictions.sample_submission.json",
        "--annotations", folder / "how2qa_val_release.jsonl",
    )  # fmt: skip
    assert round(found["values"]["accuracy"], 2) == official["how2qa_val_accuracy_percent"]


def test_sentences_that_are_not_ours_to_pass_on():
    pairs = [pair for pair in load(SHARED / PAIRS)["pairs"] if pair["source"] in NOT_OURS]
    assert len(missed(tokenize, pairs)) <= 0.005 * len(pairs)


def test_published_scores_are_the_authors_own(samples, expectations):
    """Of captions that are not here."""
    published = load(expectations / "captions" / "tvc_sample_predictions_published_scores.json")["published"]
    assert published == load(samples / "tvc" / "sample_val_predictions_metrics_raw.json")


def test_the_captions_that_were_scored_are_of_vatex(samples, expectations):
    rows = rows_of(samples / "vatex" / "vatex_en_c_val.first300.jsonl")
    described = [[description["desc"] for description in row["descs"]] for row in rows]
    rows_scored = load(expectations / "captions" / "vatex300_pred1_refs4.inputs.json")
    assert [[row["prediction"], *row["references"]] for row in rows_scored] == [texts[:5] for texts in described]
