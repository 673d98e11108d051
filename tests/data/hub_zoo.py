"""The hub's copies of the sets of `vqa-zoo`, `science` and Flickr30k: files, columns and types as published."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from tests.data.hub_layouts import I8, I32, IMAGE, S, picture, shards
from tests.data.zoo_roots import answers

TEXTS = pa.list_(S)
SUBJECTS = ("natural science", "social science", "language science")


def schema(**columns) -> pa.Schema:
    return pa.schema([*columns.items()])


TEXTVQA = schema(
    image_id=S, question_id=I32, question=S, question_tokens=TEXTS, image=IMAGE, image_width=I32, image_height=I32,
    flickr_original_url=S, flickr_300k_url=S, answers=TEXTS, image_classes=TEXTS, set_name=S, ocr_tokens=TEXTS,
)  # fmt: skip
OKVQA = schema(question_id=S, image=IMAGE, question=S, answers=TEXTS, question_type=S, answer_type=S)
SCIENCEQA = schema(
    image=IMAGE, question=S, choices=TEXTS, answer=I8, hint=S, task=S, grade=S, subject=S, topic=S, category=S,
    skill=S, lecture=S, solution=S,
)  # fmt: skip
VIZWIZ = schema(question_id=S, image=IMAGE, question=S, answers=TEXTS, category=S)
FLICKR30K = schema(image=IMAGE, caption=TEXTS, sentids=TEXTS, split=S, img_id=S, filename=S)


def textvqa_rows(split: str, first: int) -> list[dict]:
    """Two questions about the first image."""
    rows = []
    for i in range(first, first + 4):
        image = f"{max(i, first + 1):016x}"
        row = {
            "image_id": image, "question_id": i, "question": "what brand is this?", "question_tokens": ["what"],
            "image": picture(i), "image_width": 12, "image_height": 12, "flickr_original_url": "",
            "flickr_300k_url": "", "answers": answers(("ale", 6), ("stella", 4)), "image_classes": ["Beer"],
            "set_name": split, "ocr_tokens": ["ALE", "1924"],
        }  # fmt: skip
        rows.append(row | ({"answers": [""] * 10} if split == "test" else {}))
    return rows


def okvqa_rows() -> list[dict]:
    said = answers(("racing", 6), ("race", 4))
    about = {"question": "What sport is this?", "answers": said, "question_type": "four", "answer_type": "other"}
    return [{"question_id": f"{29714 + i}5", "image": picture(i), **about} for i in range(3)]


def vizwiz_rows(split: str) -> list[dict]:
    rows = []
    for i in range(4):
        kind = "unanswerable" if i % 2 else "other"
        row = {"question_id": f"VizWiz_{split}_{i:08d}.jpg", "image": picture(i), "question": "What is this?"}
        said = answers((kind if i % 2 else "soup", 10))
        rows.append(row | ({"answers": said, "category": kind} if split == "val" else {"answers": [], "category": ""}))
    return rows


def scienceqa_rows(first: int) -> list[dict]:
    """Every third has no image."""
    return [
        {
            "image": picture(i) if i % 3 else None, "question": "Which is red?", "choices": ["a cat", "a dog"],
            "answer": i % 2, "hint": "" if i % 2 else "The cat is red.", "task": "closed choice", "grade": "grade7",
            "subject": SUBJECTS[i % 3], "topic": "t", "category": "c", "skill": "s", "lecture": "", "solution": "",
        }
        for i in range(first, first + 6)
    ]  # fmt: skip


def flickr30k_rows() -> list[dict]:
    rows = []
    for i, split in enumerate(("train", "train", "val", "test", "val", "test")):
        said = [f"A {'cat' if i < 4 else 'dog'} on a mat .", "Two red cats ."]
        names = {"split": split, "img_id": str(i), "filename": f"{1000092795 + i}.jpg"}
        rows.append({"image": picture(i), "caption": said, "sentids": ["0", "1"], **names})
    return rows


def textvqa(folder: Path) -> Path:
    for split, name, first in (("train", "train", 0), ("val", "validation", 10), ("test", "test", 20)):
        shards(folder / "textvqa" / "data", name, TEXTVQA, textvqa_rows(split, first), 2)
    return folder


def okvqa(folder: Path) -> Path:
    shards(folder / "OK-VQA" / "data", "val2014", OKVQA, okvqa_rows(), 2)
    return folder


def vizwiz(folder: Path) -> Path:
    for split in ("val", "test"):
        shards(folder / "VizWiz-VQA" / "data", split, VIZWIZ, vizwiz_rows(split))
    return folder


def scienceqa(folder: Path) -> Path:
    for split, first in (("train", 0), ("validation", 10), ("test", 20)):
        shards(folder / "ScienceQA" / "data", split, SCIENCEQA, scienceqa_rows(first), digits="-1028f23e353fbe3e")
    return folder


def flickr30k(folder: Path) -> Path:
    shards(folder / "flickr30k" / "data", "test", FLICKR30K, flickr30k_rows(), 3)
    return folder
