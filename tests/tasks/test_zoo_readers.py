"""The readers of OK-VQA, TextVQA, VizWiz, ScienceQA and Flickr30k on the official layouts, and on damaged files."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from pet_bench.data.task import Choose, Generate
from pet_bench.errors import UserError
from pet_bench.registry import TASKS
from pet_bench.tasks.flickr30k_caption import Flickr30kCaption
from pet_bench.tasks.okvqa import OKVQA
from pet_bench.tasks.scienceqa import ScienceQA
from pet_bench.tasks.textvqa import TextVQA
from pet_bench.tasks.vizwiz import VizWiz
from tests.data import zoo_roots

WRITERS = {
    OKVQA: zoo_roots.okvqa, TextVQA: zoo_roots.textvqa, VizWiz: zoo_roots.vizwiz, ScienceQA: zoo_roots.scienceqa,
    Flickr30kCaption: zoo_roots.flickr30k,
}  # fmt: skip
OKQ, OKA = "okvqa/OpenEnded_mscoco_val2014_questions.json", "okvqa/mscoco_val2014_annotations.json"
VAL, OCR = "textvqa/TextVQA_0.5.1_val.json", "textvqa/TextVQA_Rosetta_OCR_v0.2_val.json"
PROBLEMS, SPLITS, CAPTIONS = "scienceqa/problems.json", "scienceqa/pid_splits.json", "scienceqa/captions.json"
FLICKR = "flickr30k/dataset_flickr30k.json"


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


# what is read --------------------------------------------------------------------------------------------------------


def test_registered_under_their_names():
    assert {TASKS.get(kind.name) for kind in WRITERS} == set(WRITERS)


@pytest.mark.parametrize(
    ("kind", "loss", "max_text", "decoding"),
    [
        (OKVQA, "score-weighted", 64, Generate(1, 20)),
        (TextVQA, "score-weighted", 64, Generate(1, 20)),
        (VizWiz, "score-weighted", 128, Generate(1, 20)),
        (ScienceQA, "sample-mean", 512, Generate(1, 20)),
        (Flickr30kCaption, "token-mean", 40, Generate(5, 40)),
    ],
)
def test_protocol(kind, loss, max_text, decoding):
    task = kind()
    assert (task.loss, task.max_text, task.decoding) == (loss, max_text, decoding)


@pytest.mark.parametrize(
    ("kind", "counts", "example"),
    [
        (
            OKVQA,
            (3, 3, 3),
            {
                "id": "215",
                "text": "okvqa: What sport is this cat for?",
                "images": ("COCO/COCO_val2014_000000000021",),
                "targets": (("racing", 1.0), ("race", 0.6), ("ride", 0.6), ("jump", 0.6)),
                "kind": "Sports and Recreation",
            },
        ),
        (
            TextVQA,
            (3, 3, 3),
            {
                "id": "34613",
                "text": "textvqa: what brand of Beer is this?",
                "images": ("textvqa/000000000000000b",),
                "targets": (("ale", 1.0), ("stella 's", 0.6)),
            },
        ),
        (
            VizWiz,
            (4, 4, 4),
            {
                "id": "VizWiz_val_00000001",
                "images": ("vizwiz/VizWiz_val_00000001",),
                "targets": (("unanswerable", 1.0), ("cat", 0.6)),
                "groups": {"answer type": "unanswerable", "answerable": "no", "length": "6-10"},
            },
        ),
        (
            ScienceQA,
            (3, 3, 3),
            {
                "id": "12",
                "text": (
                    "scienceqa: Question: Which of these is red?\nContext: The cat is on the mat.\n"
                    "Options: (A) a cat (B) a dog\nResponse:"
                ),
                "images": ("scienceqa/test/12",),
                "targets": (("The answer is A.", 1.0),),
                "references": {
                    "answer": "A", "subject": "natural science", "text": True, "image": True, "grade": 4,
                },
                "groups": {
                    "subject": "natural science", "context": "text and image", "grades": "1-6", "length": "1-5",
                },
            },
        ),
        (
            Flickr30kCaption,
            (10, 2, 2),
            {
                "id": "1000092798",
                "text": "caption: ",
                "images": ("flickr30k/1000092798",),
                "targets": (("A cat on a mat .", 1.0),),
            },
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)  # fmt: skip
def test_examples(kind, counts, example, tmp_path):
    task, root = kind(), WRITERS[kind](tmp_path)
    splits = {split: task.examples(root, split) for split in ("train", "valid", "test")}
    assert tuple(map(len, splits.values())) == counts
    (found,) = [e for e in splits["test"] if e.id == example["id"]]
    assert dict(found.targets) == pytest.approx(dict(example.pop("targets")))
    assert {key: getattr(found, key) for key in example} == example
    assert task.feature(root, found.images[0]).shape == (49, 2048)
    folder, name = task.picture(root, found.images[0])
    assert folder == root / found.images[0].split("/")[0] and list((folder / "images").rglob(f"{name}.*g"))


@pytest.mark.parametrize("kind", WRITERS, ids=lambda kind: kind.name)
def test_every_file_that_is_read_has_an_origin(kind, tmp_path):
    from fnmatch import fnmatchcase

    task = kind(ocr=True) if kind is TextVQA else kind(captions=True) if kind is ScienceQA else kind()
    files = [
        path.relative_to(tmp_path).as_posix() for split in ("train", "test") for path in task.sources(tmp_path, split)
    ]
    assert all(any(fnmatchcase(file, f"{pattern}*") for pattern in task.origins) for file in files)


# how it is asked -----------------------------------------------------------------------------------------------------

BRIEFLY = "Answer the question using a single word or phrase."


@pytest.mark.parametrize(
    ("kind", "options", "text"),
    [
        (OKVQA, {"style": "llava-1.5"}, f"What sport is this cat for?\n{BRIEFLY}"),
        (OKVQA, {"style": "paligemma"}, "answer en What sport is this cat for?"),
        (TextVQA, {"ocr": True}, "what brand of Beer is this? ocr: ALE 1924"),
        (TextVQA, {"ocr": True, "style": "paligemma"}, "answer en what brand of Beer is this? ocr: ALE 1924"),
        (TextVQA, {"style": "llava-1.5"}, f"What brand of beer is this?\n{BRIEFLY}"),
        (
            TextVQA,
            {"ocr": True, "style": "llava-1.5"},
            f"What brand of beer is this?\nReference OCR token: ALE, 1924\n{BRIEFLY}",
        ),
        (
            VizWiz,
            {"style": "llava-1.5"},
            "Can you tell me what is in this can please?\nWhen the provided information is insufficient, respond with "
            f"'Unanswerable'.\n{BRIEFLY}",
        ),
        (
            ScienceQA,
            {"style": "gpt-3"},
            "Question: Which of these is red?\nContext: N/A\nOptions: (A) a cat (B) a dog (C) a mat\nAnswer:",
        ),
        (
            ScienceQA,
            {"captions": True},
            "Question: Which of these is red?\nContext: a mat\nOptions: (A) a cat (B) a dog (C) a mat\nResponse:",
        ),
        (
            ScienceQA,
            {"style": "llava-1.5"},
            "Which of these is red?\nA. a cat\nB. a dog\nC. a mat\n"
            "Answer with the option's letter from the given choices directly.",
        ),
        (
            ScienceQA,
            {"style": "llava-1.5", "captions": True},
            "Context: a mat\nWhich of these is red?\nA. a cat\nB. a dog\nC. a mat\n"
            "Answer with the option's letter from the given choices directly.",
        ),
    ],
)
def test_styles(kind, options, text, tmp_path):
    root = WRITERS[kind](tmp_path)
    assert kind(prompt="", **options).examples(root, "test")[0].text == text
    assert kind(**options).examples(root, "test")[0].text == kind().prompt + text


def test_what_is_cut_first_are_the_words_read_and_the_context(tmp_path):
    (example, *_) = TextVQA(ocr=True, style="llava-1.5").examples(zoo_roots.textvqa(tmp_path), "test")
    assert example.text[slice(*example.spare)] == "\nReference OCR token: ALE, 1924"
    assert TextVQA(ocr=True).max_text == 256
    (_, example, _) = ScienceQA().examples(zoo_roots.scienceqa(tmp_path), "test")
    assert example.text[slice(*example.spare)] == "The cat is on the mat."


def test_categories_have_their_names_where_the_file_has_none(tmp_path):
    root = zoo_roots.okvqa(tmp_path)
    edit(root / OKA, lambda content: content.pop("question_types"))
    assert {example.kind for example in OKVQA().examples(root, "test")} == {"Sports and Recreation", "Other"}


def test_braces_in_a_question_are_no_fields(tmp_path):
    root = zoo_roots.scienceqa(tmp_path)
    edit(root / PROBLEMS, lambda problems: problems["12"].update(question="{choices}?", hint="{question}"))
    (_, example, _) = ScienceQA().examples(root, "test")
    assert "Question: {choices}?\nContext: {question}\nOptions: (A)" in example.text


def test_letters_can_be_chosen():
    task = ScienceQA(style="llava-1.5", answered="chosen")
    assert task.decoding == Choose(("A", "B", "C", "D", "E"))
    with pytest.raises(UserError, match=r'answered is "chosen".*choose style "llava-1\.5"'):
        ScienceQA(answered="chosen")


# questions without an image ------------------------------------------------------------------------------------------


def test_by_default_questions_without_an_image_are_left_out_and_said(tmp_path):
    examples, unused = ScienceQA().used(zoo_roots.scienceqa(tmp_path), "test")
    assert ([e.id for e in examples], [item.id for item in unused]) == (["11", "12", "13"], ["14", "15"])
    assert {(item.why, item.missing) for item in unused} == {('no image (scienceqa.questions is "image")', False)}


def test_all_questions_see_zeros_that_are_hidden_or_black(tmp_path):
    from PIL import Image

    task, root = ScienceQA(questions="all"), zoo_roots.scienceqa(tmp_path)
    examples = task.examples(root, "test")
    assert [e.images[0] for e in examples] == [
        "scienceqa/test/11",
        "scienceqa/test/12",
        "scienceqa/test/13",
        "scienceqa/.blank",
        "scienceqa/.blank",
    ]
    assert examples[4].groups["context"] == "none" and examples[3].groups["context"] == "text"
    feature = task.feature(root, "scienceqa/.blank")
    assert feature.shape == (49, 2048) and not feature.any() and task.masks_empty and not ScienceQA().masks_empty
    folder, name = task.picture(root, "scienceqa/.blank")
    with Image.open(folder / "images" / f"{name}.png") as picture:
        assert not np.asarray(picture.convert("RGB")).any()


# damage --------------------------------------------------------------------------------------------------------------


def take(key):
    return lambda row: row.pop(key)


def put(**values):
    return lambda row: row.update(values)


def row(change, *path):
    def at(content):
        for key in path:
            content = content[key]
        change(content)

    return at


DAMAGE = [
    # OK-VQA
    (OKVQA, {}, OKQ, row(take("question"), "questions", 1), "questions.row 1.question is missing"),
    (OKVQA, {}, OKQ, row(take("image_id"), "questions", 1), "questions.row 1: image_id is missing"),
    (OKVQA, {}, OKQ, row(put(question=" "), "questions", 0), "questions.row 0.question: String should have at least 1"),
    (OKVQA, {}, OKQ, row(put(image_id="20"), "questions", 0), "questions.row 0.image_id: Input should be a valid int"),
    (OKVQA, {}, OKQ, row(put(question_id=999), "questions", 0), "question 999 has no annotation in"),
    (OKVQA, {}, OKQ, row(put(image_id=7), "questions", 0), "question 205 is of image 7, but in"),
    (OKVQA, {}, OKQ, row(put(image="../../a.jpg"), "questions", 0), "questions.row 0.image: String should match"),
    (OKVQA, {}, OKA, row(put(question_id=215), "annotations", 0), "question 215 occurs twice"),
    (OKVQA, {}, OKA, row(list.pop, "annotations"), "questions.row 2: question 225 has no annotation"),
    (OKVQA, {}, OKA, row(list.pop, "annotations", 0, "answers"), "answers: List should have at least 10 items"),
    (OKVQA, {}, OKA, row(take("raw_answer"), "annotations", 0, "answers", 3), "answers.row 3.raw_answer is missing"),
    (OKVQA, {}, OKA, row(put(answer=None), "annotations", 0, "answers", 3), "answers.row 3.answer is null"),
    # TextVQA
    (TextVQA, {}, VAL, row(take("image_id"), "data", 2), "data.row 2.image_id is missing"),
    (TextVQA, {}, VAL, row(take("answers"), "data", 2), "data.row 2: question 34614 has no answers, as in the test"),
    (TextVQA, {}, VAL, row(put(answers=[""] * 10), "data", 2), "data.row 2: question 34614 has no answers"),
    (TextVQA, {}, VAL, row(put(answers=["a"] * 11), "data", 2), "answers: List should have at most 10 items"),
    (TextVQA, {}, VAL, row(put(answers="a"), "data", 2), "data.row 2.answers: Input should be a valid list"),
    (TextVQA, {}, VAL, row(put(question_id=34612), "data", 2), "an id occurs more than once, the first is '34612'"),
    (TextVQA, {}, VAL, row(put(question_id=-1), "data", 2), "greater than or equal to 0"),
    (TextVQA, {}, VAL, row(put(image_id="a/b"), "data", 2), "data.row 2.image_id: String should match"),
    (TextVQA, {"ocr": True}, OCR, row(list.pop, "data"), "data.row 2: image 000000000000000c is not in"),
    (TextVQA, {"ocr": True}, OCR, row(put(image_id="000000000000000b"), "data", 0), "000000000000000b occurs twice"),
    (TextVQA, {"ocr": True}, OCR, row(put(ocr_tokens="ALE"), "data", 0), "data.row 0.ocr_tokens: Input should be"),
    # VizWiz
    (VizWiz, {}, "vizwiz/val.json", row(take("image"), 0), "row 0.image is missing"),
    (VizWiz, {}, "vizwiz/val.json", row(take("answerable"), 0), "row 0: answerable is missing, as in the test split"),
    (VizWiz, {}, "vizwiz/val.json", row(take("answers"), 0), "row 0: answers is missing, as in the test split"),
    (VizWiz, {}, "vizwiz/val.json", row(put(answerable=2), 0), "row 0.answerable: Input should be 0 or 1"),
    (VizWiz, {}, "vizwiz/val.json", row(put(answerable=True), 0), "row 0.answerable: Input should be 0 or 1"),
    (VizWiz, {}, "vizwiz/val.json", row(put(answer_type="why"), 0), "row 0.answer_type: Input should be 'yes/no'"),
    (VizWiz, {}, "vizwiz/val.json", row(list.pop, 0, "answers"), "row 0.answers: List should have at least 10 items"),
    (VizWiz, {}, "vizwiz/val.json", row(put(image="VizWiz_val_00000001.jpg"), 0), "an id occurs more than once"),
    (VizWiz, {}, "vizwiz/val.json", row(put(image="/etc/a.jpg"), 0), "row 0.image: String should match"),
    # ScienceQA
    (ScienceQA, {}, PROBLEMS, row(take("hint"), "11"), "11.hint is missing"),
    (ScienceQA, {}, PROBLEMS, row(put(answer=3), "11"), "11.answer is 3, but there are 3 choices, counted from 0"),
    (ScienceQA, {}, PROBLEMS, row(put(answer=-1), "11"), "11.answer: Input should be greater than or equal to 0"),
    (ScienceQA, {}, PROBLEMS, row(put(answer="A"), "11"), "11.answer: Input should be a valid integer"),
    (ScienceQA, {}, PROBLEMS, row(put(choices=["a"]), "11"), "11.choices: List should have at least 2 items"),
    (ScienceQA, {}, PROBLEMS, row(put(choices=[*"abcdef"]), "11"), "11.choices: List should have at most 5 items"),
    (ScienceQA, {}, PROBLEMS, row(put(grade="grade13"), "11"), "11.grade: String should match pattern"),
    (ScienceQA, {}, PROBLEMS, row(put(subject="art"), "11"), "11.subject: Input should be 'natural science'"),
    (ScienceQA, {}, PROBLEMS, row(put(image="../image.png"), "11"), "11.image: Input should be 'image.png'"),
    (ScienceQA, {}, PROBLEMS, row(put(split="../test"), "11"), "11.split: Input should be 'train', 'val' or 'test'"),
    (ScienceQA, {}, PROBLEMS, row(take("12")), "test: 12 is not in"),
    (ScienceQA, {}, SPLITS, row(take("test")), 'unknown scienceqa split in'),
    (ScienceQA, {}, SPLITS, row(lambda pids: pids.append("11"), "test"), "test: 11 occurs twice"),
    (ScienceQA, {}, SPLITS, row(lambda pids: pids.append(11), "test"), "test.row 5: Input should be a valid string"),
    (ScienceQA, {"captions": True}, CAPTIONS, row(take("captions")), "captions is missing"),
    # Flickr30k
    (Flickr30kCaption, {}, FLICKR, row(take("filename"), "images", 3), "images.row 3.filename is missing"),
    (Flickr30kCaption, {}, FLICKR, row(put(sentences=[]), "images", 3), "1000092798.jpg has no captions"),
    (Flickr30kCaption, {}, FLICKR, row(put(raw=" "), "images", 3, "sentences", 2), "(sentences.row 2.raw)"),
    (Flickr30kCaption, {}, FLICKR, row(put(filename="1000092800.jpg"), "images", 3), "1000092800.jpg occurs more than"),
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return zoo_roots.everything(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(
    ("kind", "options", "file", "change", "said"),
    DAMAGE,
    ids=[f"{kind.name}: {said[:40]}" for kind, _, _, _, said in DAMAGE],
)
def test_damage(kind, options, file, change, said, whole, tmp_path):
    root, folder = tmp_path, file.split("/")[0]
    shutil.copytree(whole / folder, root / folder, ignore=shutil.ignore_patterns("clip_features", "images"))
    edit(root / file, change)
    with pytest.raises(UserError) as error:
        kind(**options).examples(root, "test")
    lines = str(error.value).splitlines()
    assert any(said in line for line in lines)
    assert all(str(root) in line for line in lines)


@pytest.mark.parametrize("kind", WRITERS, ids=lambda kind: kind.name)
def test_missing_files_are_named_together(kind, tmp_path):
    task = kind(ocr=True) if kind is TextVQA else kind(captions=True) if kind is ScienceQA else kind()
    with pytest.raises(UserError) as error:
        task.examples(tmp_path, "test")
    for path in task.sources(tmp_path, "test"):
        assert f"{task.name}: annotation file {path} is missing" in str(error.value)


def test_vqas_files_in_the_place_of_ok_vqas_are_refused(tmp_path):
    """Those of VQA v1 have the same names, and no raw answers."""
    root = zoo_roots.okvqa(tmp_path)
    edit(root / OKA, lambda all: [answer.pop("raw_answer") for row in all["annotations"] for answer in row["answers"]])
    with pytest.raises(UserError, match="raw_answer is missing"):
        OKVQA().examples(root, "test")


def test_a_picture_of_its_own_stands_for_cocos(tmp_path):
    root = zoo_roots.okvqa(tmp_path)
    edit(root / OKQ, lambda all: all["questions"][0].update(image="2971475.jpg"))
    assert OKVQA().examples(root, "test")[0].images == ("okvqa/2971475",)
