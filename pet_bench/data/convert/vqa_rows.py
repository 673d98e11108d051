"""Questions of VQAv2 with their annotations, from the official files or the hub's copy, as VL-T5 has them.

The annotators' answers are normalised, and one that n of ten gave scores 0.3, 0.6, 0.9 for n = 1, 2, 3 and 1 above, if
it is among the answers to learn; the empty one never is. `is_topk_optimal` says whether one with the highest score is
(TASKS.md 1). That this is the rule of `is_topk_optimal` is not verified: the published Karpathy files were not at hand.
Those also repeat the raw annotations of every question, which no reader needs.

Normalisation is the official scorer's; the removal of commas that follows in the published rule is part of it, as none
is left behind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from pet_bench.data.convert import coco
from pet_bench.data.convert.tables import Layout, Picture
from pet_bench.data.convert.work import Job
from pet_bench.data.rows import Text
from pet_bench.metrics.vqa_accuracy import normalise

PARTS = ("train2014", "val2014")
QUESTIONS = {part: f"v2_OpenEnded_mscoco_{part}_questions.json" for part in PARTS}
ANNOTATIONS = {part: f"v2_mscoco_{part}_annotations.json" for part in PARTS}
SCORES = {1: 0.3, 2: 0.6, 3: 0.9}
HUB = Layout(
    "vqa-val",
    {
        "question_type": "string", "multiple_choice_answer": "string", "answers": "list<struct>", "image_id": "int",
        "answer_type": "string", "question_id": "int", "question": "string", "image": "image",
    },
    split="val*",
    instead=(QUESTIONS["val2014"], ANNOTATIONS["val2014"]),
    origin="lmms-lab-encoder/VQAv2, data/validation-*.parquet",
)  # fmt: skip


class Question(TypedDict):
    question_id: int
    image_id: int
    question: str


class Answer(TypedDict):
    answer: str


class Annotation(TypedDict):
    question_id: int
    image_id: int
    question_type: str
    answer_type: str
    multiple_choice_answer: str
    answers: Annotated[list[Answer], Field(min_length=1)]
    question: NotRequired[Text]  # which the official files have apart


class GivenAnswer(Answer):
    answer_confidence: str
    answer_id: int


class Whole(TypedDict):
    """A question with its annotation, as the hub's table has it."""

    question_id: int
    image_id: int
    question: Text
    question_type: str
    answer_type: str
    multiple_choice_answer: str
    answers: Annotated[list[GivenAnswer], Field(min_length=1)]
    image: Picture


def soft_label(answers: list[str], vocabulary: Container[str] | None) -> tuple[dict[str, float], bool]:
    """Score of every answer to learn, and whether one of them is as good as the best of all; None: all are to learn."""
    scores = {answer: SCORES.get(count, 1.0) for answer, count in Counter(map(normalise, answers)).items()}
    label = {answer: score for answer, score in scores.items() if answer and (not vocabulary or answer in vocabulary)}
    return label, max(label.values(), default=0.0) == max(scores.values())


def annotated(job: Job, part: str) -> Iterator[Annotation | Whole]:
    """Of every question, the first time it occurs."""
    if held(job, part) == (HUB.name,):
        yield from (row for _, row in job.table(HUB.name, Whole, key="question_id"))
        return
    seen = set()
    for place, row in job.read(ANNOTATIONS[part], Annotation, within="annotations"):
        if row["question_id"] in seen:
            job.fault(ANNOTATIONS[part], f"{place}: question {row['question_id']} occurs twice")
        else:
            seen.add(row["question_id"])
            yield row


def questions(job: Job, part: str) -> dict[int, tuple[int, str]]:
    """Image and text of every question."""
    asked: dict[int, tuple[int, str]] = {}
    for place, row in job.read(QUESTIONS[part], Question, within="questions"):
        if row["question_id"] in asked:
            job.fault(QUESTIONS[part], f"{place}: question {row['question_id']} occurs twice")
        asked[row["question_id"]] = row["image_id"], row["question"]
    return asked


def held(job: Job, part: str) -> tuple[str, ...]:
    """What holds the questions and annotations of a part; () where nothing does."""
    official = QUESTIONS[part], ANNOTATIONS[part]
    return official if job.has(*official) else (HUB.name,) if part == "val2014" and job.has(HUB.name) else ()


def made(row: Annotation | Whole, image: str, text: str, vocabulary: Container[str] | None) -> dict[str, Any]:
    label, optimal = soft_label([answer["answer"] for answer in row["answers"]], vocabulary)
    return {
        "question_id": row["question_id"],
        "img_id": image,
        "sent": text,
        "label": label,
        "answer_type": row["answer_type"],
        "question_type": row["question_type"],
        "is_topk_optimal": optimal,
    }


def rows(
    job: Job, part: str, vocabulary: Container[str] | None, splits: dict[int, coco.Known]
) -> Iterator[tuple[str, Any]]:
    """(Karpathy's split, row) of all questions that have annotations."""

    def unmatched(name: str, said: str, *others: str) -> None:
        if not job.torn.intersection(others):
            job.fault(name, f"{said} {', '.join(str(job.source(other)) for other in others)}")

    *asking, name = held(job, part)
    asked: dict[int, tuple[int, str | None]] = {**questions(job, part)} if asking else {}
    for row in annotated(job, part):
        key, image = row["question_id"], row["image_id"]
        of, text = asked.pop(key, (image, row.get("question")))
        if text is None:
            unmatched(name, f"question {key} is not in", QUESTIONS[part])
        elif of != image:
            job.fault(name, f"question {key} is of image {image}, but in the questions of image {of}")
        elif image not in splits:
            unmatched(name, f"question {key}: image {image} is in no split of", *coco.sources(job))
        else:
            yield splits[image]["split"], made(row, Path(splits[image]["filename"]).stem, text, vocabulary)
    for key in asked:
        unmatched(QUESTIONS[part], f"question {key} has no annotation in", ANNOTATIONS[part])


def named(image: int) -> str:
    return f"COCO_val2014_{image:012d}"
