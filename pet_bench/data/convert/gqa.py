"""GQA: the official balanced questions as LXMERT has them.

The key is the question's id, the answer a label of score 1 (TASKS.md 2). The official types of questions are kept
beside, for breakdowns; LXMERT's files have none. A question that is not balanced is left out. LXMERT's answer map,
which no reader needs, is put in place where it is given; it is not rebuilt, since the rule that leaves 1,842 answers is
not known.
"""

from __future__ import annotations

from typing import NotRequired

from typing_extensions import TypedDict

from pet_bench.data.convert.answers import ANSWERS, given
from pet_bench.data.convert.downloads import Converter, Download
from pet_bench.data.convert.work import Job

SPLITS = {"train": "train", "val": "valid", "testdev": "testdev"}


class Types(TypedDict):
    structural: str
    semantic: str


class Question(TypedDict):
    imageId: str
    question: str
    answer: str
    isBalanced: NotRequired[bool]
    types: NotRequired[Types]


def run(job: Job) -> None:
    for split, ours in SPLITS.items():
        name = f"{split}_balanced_questions.json"
        if not job.has(name):
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
                types = {"types": row["types"]} if "types" in row else {}
                label = {row["answer"]: 1.0}
                add({"question_id": key, "img_id": row["imageId"], "sent": row["question"], "label": label} | types)
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
)
