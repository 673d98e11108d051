"""Every reader on data with the real schemas: what it reads, and what it says of damaged files."""

from __future__ import annotations

import json

import pytest

from pet_bench.data.task import Choose, Generate
from pet_bench.errors import UserError
from pet_bench.registry import TASKS
from pet_bench.spec import validate
from pet_bench.tasks.coco_caption import CocoCaption
from pet_bench.tasks.gqa import GQA
from pet_bench.tasks.nlvr2 import NLVR2
from pet_bench.tasks.nlvr_v1 import NLVRv1
from pet_bench.tasks.vqa import VQA
from tests.data import roots

READERS = {VQA: roots.vqa, GQA: roots.gqa, NLVR2: roots.nlvr2, CocoCaption: roots.coco_caption, NLVRv1: roots.nlvr_v1}
each = pytest.mark.parametrize("kind", READERS, ids=lambda kind: kind.name)


@pytest.fixture
def root(kind, tmp_path):
    return READERS[kind](tmp_path)


# what is read --------------------------------------------------------------------------------------------------------


def test_registered_under_their_names():
    assert {TASKS.get(kind.name) for kind in READERS} == set(READERS)


@pytest.mark.parametrize(
    ("kind", "loss", "max_text", "max_target", "decoding", "sizes"),
    [
        (VQA, "score-weighted", 20, 10, Generate(1, 20), (500, 300)),
        (GQA, "sample-mean", 20, None, Generate(1, 20), (833, 500)),
        (NLVR2, "sample-mean", None, None, Choose(("true", "false")), (166, 100)),
        (CocoCaption, "token-mean", 40, 40, Generate(5, 40), (416, 250)),
        (NLVRv1, "sample-mean", None, None, Choose(("true", "false")), (500, 300)),
    ],
)
def test_protocol(kind, loss, max_text, max_target, decoding, sizes):
    task = kind()
    assert (task.loss, task.max_text, task.max_target, task.decoding) == (loss, max_text, max_target, decoding)
    assert (task.batch_size(500), task.batch_size(300)) == sizes


@pytest.mark.parametrize(
    ("kind", "counts", "example"),
    [
        (
            VQA,
            (4, 4, 4),
            {
                "id": "31",
                "text": "vqa: what colour is the cat",
                "images": ("COCO/COCO_val2014_000000000031",),
                "targets": (("red", 1.0), ("blue", 0.3)),
                "kind": "what colour",
            },
        ),
        (GQA, (6, 3, 3), {"id": "00000008", "text": "gpa: is the dog blue", "images": ("GQA/n8",)}),
        (NLVR2, (2, 2, 2), {"id": "test1-7-1-0", "images": ("nlvr/test1-7-1-img0", "nlvr/test1-7-1-img1")}),
        (CocoCaption, (6, 2, 2), {"id": "54", "text": "caption: ", "images": ("COCO/COCO_val2014_000000000054",)}),
        (NLVRv1, (6, 3, 3), {"id": "test-12-1-0", "text": "nlvr: there is a red box"}),
    ],
)
def test_examples(kind, counts, example, root):
    task = kind()
    splits = {split: task.examples(root, split) for split in ("train", "valid", "test")}
    assert tuple(map(len, splits.values())) == counts
    (found,) = [e for e in splits["test"] if e.id == example["id"]]
    assert {key: getattr(found, key) for key in example} == example


def test_gqa_images_come_from_the_folder_of_their_split(tmp_path):
    task, root = GQA(), roots.gqa(tmp_path)
    assert [e.images[0] for e in task.examples(root, "train")] == [f"VG/{i}" for i in range(1, 7)]
    assert task.feature_path(root, "GQA/n7") == root / "GQA" / roots.FEATURES / "n7.h5"
    assert task.feature(root, "VG/5").shape == (49, 2048)


def test_captions_one_example_per_caption_in_training_and_per_image_in_testing(tmp_path):
    task, root = CocoCaption(), roots.coco_caption(tmp_path)
    train, (test, _) = task.examples(root, "train"), task.examples(root, "test")
    assert [e.targets for e in train[:2]] == [(("a cat on a mat", 1.0),), (("a red cat", 1.0),)]
    assert test.references == {"captions": ["a cat on a mat", "a red cat"]}


def test_a_vqa_label_that_holds_the_empty_answer_counts_as_empty(tmp_path):
    root = roots.vqa(tmp_path)
    edit(root / "vqa/karpathy_train.json", lambda rows: rows[0].update(label={"": 1.0, "red": 0.3}))
    assert VQA().examples(root, "train")[0].targets == ()


def test_vqa_reads_question_where_sent_is_absent(tmp_path):
    root = roots.vqa(tmp_path)
    edit(root / "vqa/karpathy_train.json", lambda rows: rows[0].update(question=rows[0].pop("sent")))
    assert VQA().examples(root, "train")[0].text == "vqa: is the cat red"


def test_vqa_scorer_is_a_protocol_option():
    assert VQA(scorer="2021").metric_options == {"version": "2021"}


def test_official_gqa_questions_read_as_the_converted_ones(tmp_path):
    root = roots.gqa(tmp_path)
    for split, name in (("train", "train"), ("valid", "val"), ("testdev", "testdev")):
        rows = json.loads((root / "GQA" / f"{split}.json").read_text())
        official = {
            row["question_id"]: {
                "imageId": row["img_id"],
                "question": row["sent"],
                "answer": next(iter(row["label"])),
                "isBalanced": True,
            }
            for row in rows
        }
        roots.dump(root / "GQA" / f"{name}_balanced_questions.json", official)
    task = GQA(train="train_balanced_questions+val_balanced_questions", valid=None, test="testdev_balanced_questions")
    for split in ("train", "test"):
        assert task.examples(root, split) == GQA().examples(root, split)


def test_nlvr_v1_cuts_the_boxes_where_they_are(tmp_path):
    task, root = NLVRv1(), roots.nlvr_v1(tmp_path)
    first, second = task.examples(root, "train")[:2]
    values = [[(task.feature(root, key).astype(float).mean() + 1) * 127.5 for key in e.images] for e in (first, second)]
    assert values == [pytest.approx([0, 100, 200], abs=0.2), pytest.approx([100, 200, 0], abs=0.2)]


def test_nlvr_v1_takes_the_permutations_that_are_there(tmp_path):
    root = roots.nlvr_v1(tmp_path, permutations=(2, 5))
    assert [e.id for e in NLVRv1().examples(root, "test")] == ["test-12-0-2", "test-12-1-2", "test-12-2-2"]
    assert len(NLVRv1().examples(root, "train")) == 6


# majority ------------------------------------------------------------------------------------------------------------


def test_majority_answers_by_kind_of_question(tmp_path):
    task, root = VQA(), roots.vqa(tmp_path)
    train, test = task.examples(root, "train"), task.examples(root, "test")
    assert task.constant_answer(train) == "red"
    assert task.majority(train, test) == 100.0  # "yes" to "is the", "red" to "what colour"


def test_majority_without_kinds_and_of_captions(tmp_path):
    gqa, coco = GQA(), CocoCaption()
    roots.gqa(tmp_path)
    assert gqa.majority(gqa.examples(tmp_path, "train"), gqa.examples(tmp_path, "test")) == pytest.approx(200 / 3)
    roots.coco_caption(tmp_path)
    assert coco.constant_answer(coco.examples(tmp_path, "train")) in {"a cat on a mat", "a red cat"}


# what is said of damage ----------------------------------------------------------------------------------------------


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def drop(path, *keys):
    def change(rows):
        for key in keys:
            del rows[1][key]

    edit(path, change)


DAMAGE = {
    VQA: "vqa/karpathy_test.json",
    GQA: "GQA/testdev.json",
    NLVR2: "nlvr/test.json",
    CocoCaption: "COCO/dataset_coco.json",
    NLVRv1: "nlvr/test/test.json",
}
KEYS = {VQA: "label", GQA: "sent", NLVR2: "sent", CocoCaption: "images", NLVRv1: "sentence"}


def message(kind, root, split="test", **options):
    with pytest.raises(UserError) as error:
        kind(**options).examples(root, split)
    return str(error.value)


@each
def test_a_missing_annotation_file(kind, root):
    (root / DAMAGE[kind]).unlink()
    said = message(kind, root)
    assert kind.name in said and DAMAGE[kind].rsplit("/", 1)[1] in said and ("missing" in said or "splits in" in said)


@each
def test_broken_json(kind, root):
    path = root / DAMAGE[kind]
    path.write_text(path.read_text()[:-20])
    said = message(kind, root)
    assert f"{kind.name}: {path}" in said and "is not valid JSON" in said


@each
def test_a_missing_key(kind, root):
    path = root / DAMAGE[kind]
    path.write_text(path.read_text().replace(f'"{KEYS[kind]}":', '"other":', 1))
    said = message(kind, root)
    assert f"{kind.name}: {path}" in said and f"{KEYS[kind]} is missing" in said


@each
def test_an_empty_split(kind, root):
    path = root / DAMAGE[kind]
    path.write_text({CocoCaption: '{"images": []}', NLVRv1: ""}.get(kind, "[]"))
    said = message(kind, root)
    assert kind.name in said and ("no examples" in said or "unknown coco-caption split" in said)


@each
def test_a_repeated_id(kind, root):
    path = root / DAMAGE[kind]
    if kind is NLVRv1:
        path.write_text(path.read_text() * 2)
    else:
        content = json.loads(path.read_text())
        twice = {"images": content["images"] * 2} if kind is CocoCaption else content * 2
        path.write_text(json.dumps(twice))
    assert "more than once" in message(kind, root)


@pytest.mark.parametrize(
    ("kind", "path", "change", "said"),
    [
        (NLVR2, "nlvr/test.json", lambda rows: rows[1].update(label=2), "row 1.label: Input should be 0 or 1, found 2"),
        (NLVR2, "nlvr/test.json", lambda rows: rows[1].update(identifier="x"), "must have four fields, found 'x'"),
        (
            GQA,
            "GQA/testdev.json",
            lambda rows: rows[0].update(label={"yes": "sure"}),
            "row 0.label.yes: Input should be",
        ),
        (VQA, "vqa/karpathy_test.json", lambda rows: rows[2].pop("sent"), "row 2: sent is missing"),
        (
            VQA,
            "vqa/v2_mscoco_val2014_annotations.json",
            lambda content: content["annotations"].pop(),
            "1 questions have no annotators' answers, the first is '33'",
        ),
        (
            CocoCaption,
            "COCO/dataset_coco.json",
            lambda content: content["images"][4].update(sentences=[]),
            "COCO_val2014_000000000054.jpg has no captions",
        ),
    ],
)
def test_damaged_values(kind, path, change, said, root):
    edit(root / path, change)
    assert said in message(kind, root)


def test_a_label_outside_the_choices_names_the_line(tmp_path):
    path = roots.nlvr_v1(tmp_path) / "nlvr/test/test.json"
    path.write_text(path.read_text().replace('"true"', '"maybe"', 1))
    assert f"nlvr-v1: {path}: line 2: label: Input should be 'true' or 'false', found 'maybe'" in message(
        NLVRv1, tmp_path
    )


def test_several_faults_come_together(tmp_path):
    root = roots.gqa(tmp_path)
    drop(root / "GQA/train.json", "sent", "label")
    (root / "GQA/valid.json").unlink()
    said = message(GQA, root, "train").splitlines()
    assert [line.split(": ", 2)[2] for line in said[:2]] == ["row 1.sent is missing", "row 1.label is missing"]
    assert "valid.json is missing" in said[2]


def test_many_faults_are_cut_at_twenty_with_a_count(tmp_path):
    roots.dump(tmp_path / "GQA/testdev.json", [{"question_id": str(i), "img_id": "1", "sent": "?"} for i in range(30)])
    said = message(GQA, tmp_path).splitlines()
    assert len(said) == 21 and said[-1].endswith("and 10 faults more")


def test_both_vqa_annotation_files_missing(tmp_path):
    root = roots.vqa(tmp_path)
    for path in root.glob("vqa/v2_*"):
        path.unlink()
    lines = message(VQA, root).splitlines()
    assert len(lines) == 2 and all("annotations.json is missing" in line for line in lines)


def test_an_absent_nlvr_v1_split_says_which_there_are_and_how_to_choose(tmp_path):
    said = message(NLVRv1, roots.nlvr_v1(tmp_path, splits=("dev", "test")), "train")
    assert "splits in" in said and "dev, test" in said and "--set nlvr-v1.train=dev" in said


def test_an_nlvr_v1_sentence_without_image(tmp_path):
    root = roots.nlvr_v1(tmp_path)
    for path in root.glob("nlvr/test/images/1/*.png"):
        path.unlink()
    assert "12-1 has no image in" in message(NLVRv1, root)


def test_no_validation_split(tmp_path):
    task = validate(NLVRv1, {"train": "dev", "valid": "none"}, "nlvr-v1")
    assert task.valid is None
    assert "no valid split" in message(NLVRv1, roots.nlvr_v1(tmp_path), "valid", valid=None)


def test_training_on_the_test_split_is_refused():
    with pytest.raises(UserError, match='split "testdev" is both trained on and tested on'):
        GQA(train="train+testdev")


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        (VQA, {"scorer": "2020"}, "scorer: Input should be '2016' or '2021'"),
        (GQA, {"promt": "gqa: "}, 'did you mean "prompt"?'),
        (NLVR2, {"train": 3}, "train: Input should be a valid string"),
    ],
)
def test_protocol_options_are_checked(kind, options, said):
    with pytest.raises(UserError, match=said.replace("?", r"\?")):
        validate(kind, options, kind.name)
