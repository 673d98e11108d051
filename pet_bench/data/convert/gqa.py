"""GQA: the official balanced questions as LXMERT has them.

The key is the question's id, the answer a label of score 1 (TASKS.md 2). The official types of questions are kept
beside, for breakdowns; LXMERT's files have none. A question that is not balanced is left out. LXMERT's answer map,
which no reader needs, is put in place where it is given; it is not rebuilt, since the rule that leaves 1,842 answers is
not known.

The hub's copy, lmms-lab(-encoder)/GQA, has a table of questions and one of pictures for each split; every question has
its picture there, and every picture a question. Without the pictures, the questions serve with stored features.
"""

from __future__ import annotations

from typing import Any, NotRequired

from typing_extensions import TypedDict

from pet_bench.data.convert.answers import ANSWERS, given
from pet_bench.data.convert.downloads import Converter, Download
from pet_bench.data.convert.tables import Layout, Picture, Spot
from pet_bench.data.convert.work import Job
from pet_bench.data.rows import Text

SPLITS = {"train": "train", "val": "valid", "testdev": "testdev"}
FOLDERS = {"train": "VG", "val": "VG", "testdev": "GQA"}  # of pictures
ASKED = {
    split: Layout(
        f"gqa-{split}",
        {
            "id": "string", "imageId": "string", "question": "string", "isBalanced": "bool", "answer": "string",
            "fullAnswer": "string", "types": "struct",
        },
        split=f"{split}*",
        config=f"{split}_balanced_instructions",
        others=("*",),
        instead=(f"{split}_balanced_questions.json",),
        origin=f"lmms-lab-encoder/GQA, {split}_balanced_instructions/*.parquet",
    )
    for split in SPLITS
}  # fmt: skip
SHOWN = {
    split: Layout(
        f"gqa-{split}-images",
        {"id": "string", "image": "image"},
        split=f"{split}*",
        config=f"{split}_balanced_images",
        origin=f"lmms-lab-encoder/GQA, {split}_balanced_images/*.parquet",
    )
    for split in SPLITS
}


class Types(TypedDict):
    structural: str
    semantic: str


class Question(TypedDict):
    imageId: str
    question: str
    answer: str
    isBalanced: NotRequired[bool]
    types: NotRequired[Types]


class Asked(Question):
    id: Text


class Shown(TypedDict):
    id: Text
    image: Picture


def tabled(job: Job, split: str) -> None:
    """A split of the hub's tables."""
    asked, shown = ASKED[split].name, SHOWN[split].name
    first: dict[str, Spot] = {}  # question of each picture
    unbalanced = 0
    with job.rows(f"GQA/{SPLITS[split]}.json", asked) as add:
        for spot, row in job.table(asked, Asked, key="id"):
            if not row["isBalanced"]:
                unbalanced += 1
                continue
            first.setdefault(row["imageId"], spot)
            add(made(row["id"], row))
    if unbalanced:
        job.note(f"{job.tables[asked]}: {unbalanced:,} questions are not balanced and left out")
    if not job.has(shown):
        job.note(f"{job.tables[asked]}: the pictures, {SHOWN[split].origin}, are not there: it serves with features")
        return
    with job.album(FOLDERS[split], shown) as picture:
        for spot, row in job.table(shown, Shown, key="id"):
            picture(row["id"], spot)
            if first.pop(row["id"], None) is None and asked not in job.torn:
                job.fault(spot, f"id {row['id']!r}: no question of {job.tables[asked]} has this image")
    for image, spot in first.items() if shown not in job.torn else ():
        job.fault(spot, f"imageId {image!r} is not in {job.tables[shown]}")


def made(key: str, row: Question) -> dict[str, Any]:
    types = {"types": row["types"]} if "types" in row else {}
    label = {row["answer"]: 1.0}
    return {"question_id": key, "img_id": row["imageId"], "sent": row["question"], "label": label} | types


def run(job: Job) -> None:
    for split, ours in SPLITS.items():
        name = f"{split}_balanced_questions.json"
        if not job.has(name):
            if job.has(ASKED[split].name):
                tabled(job, split)
            continue
        seen, unbalanced = set(), 0
        with job.rows(f"GQA/{ours}.json", name) as add:
            for key, row in job.read(name, Question):
                if key in seen:
                    job.fault(name, f"question {key!r} occurs twice")
                seen.add(key)
                if not row.get("isBalanced", True):
                    unbalanced += 1
                    continue
                add(made(key, row))
        if unbalanced:
            job.note(f"{job.files[name]}: {unbalanced:,} of {len(seen):,} questions are not balanced and left out")
    if job.has(ANSWERS):
        given(job, "GQA", pretty=False)


GQA = Converter(
    "gqa",
    (
        *(Download(f"GQA/{split}_balanced_questions.json") for split in SPLITS),
        Download(f"GQA/{ANSWERS}", (f"gqa/{ANSWERS}",), needed=False),
    ),
    run,
    (("*_all_questions*.json", "it holds all questions; those that count are in the file of the balanced ones"),),
    (*ASKED.values(), *SHOWN.values()),
)
