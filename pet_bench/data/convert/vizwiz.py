"""VizWiz from the hub's copy (lmms-lab[-encoder]/VizWiz-VQA), in the form of the official files.

The copy's `category` is the answer type. Whether a question can be answered is not in it, and is taken from that, which
is "unanswerable" where it cannot. It has no training split; of test, only images and questions are public.
"""

from __future__ import annotations

from pathlib import PurePath

from typing_extensions import TypedDict

from pet_bench.data.answers import AnswerType, Name, Ten
from pet_bench.data.convert.downloads import Converter
from pet_bench.data.convert.tables import Layout
from pet_bench.data.convert.work import Job
from pet_bench.data.rows import Text

SPLITS = {
    split: Layout(
        f"vizwiz-{split}",
        {
            "question_id": "string", "image": "image", "question": "string", "answers": "list<string>",
            "category": "string",
        },
        split=f"{split}*",
        needed=split == "val",
        origin=f"lmms-lab-encoder/VizWiz-VQA, data/{split}*.parquet",
    )
    for split in ("val", "test")
}  # fmt: skip


class Asked(TypedDict):
    question_id: Name
    question: Text


class Row(Asked):
    answers: Ten
    category: AnswerType


def run(job: Job) -> None:
    for split, layout in SPLITS.items():
        if not job.has(layout.name):
            continue
        with job.rows(f"vizwiz/{split}.json", layout.name) as add, job.album("vizwiz", layout.name) as picture:
            for spot, row in job.table(layout.name, Row if split == "val" else Asked, key="question_id"):
                stem = PurePath(row["question_id"]).stem
                picture(stem, spot)
                known = {"image": f"{stem}.jpg", "question": row["question"]}
                if split == "val":
                    answers = [{"answer": answer} for answer in row["answers"]]
                    kind = row["category"]
                    known |= {"answers": answers, "answer_type": kind, "answerable": int(kind != "unanswerable")}
                add(known)
    if job.has(SPLITS["val"].name):
        job.note("the copy has no train: to train, put train.json of the official Annotations.zip in vizwiz/")


VIZWIZ = Converter("vizwiz", (), run, tables=tuple(SPLITS.values()))
