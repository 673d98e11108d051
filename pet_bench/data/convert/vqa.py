"""VQAv2: the official questions and annotations on the Karpathy splits, with soft labels, as VL-T5 has them.

All questions of train2014 and val2014 go to the Karpathy split of their image; train and restval make training. The
annotators' answers are normalised, and one that n of ten gave scores 0.3, 0.6, 0.9 for n = 1, 2, 3 and 1 above, if it
is among the answers to learn; the empty one never is. `is_topk_optimal` says whether one with the highest score is
(TASKS.md 1).

The answers to learn are those of `trainval_ans2label.json`, LXMERT's 3,129. Without it they are rebuilt by the rule of
the bottom-up attention code, from which LXMERT's come: the normalised most frequent answers of at least nine questions
of train2014 and val2014 together. Number 0 is "", as published; the others follow in alphabetical order, since the
published order is none. That the rule leaves the published 3,129 is not verified, nor is the rule of `is_topk_optimal`:
neither the annotations nor the published Karpathy files were at hand.

Normalisation is the official scorer's; the removal of commas that follows in the published rule is part of it, as none
is left behind. The published files also repeat the raw annotations of every question, which no reader needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from pet_bench.data.convert import coco
from pet_bench.data.convert.answers import ANSWERS, LABELS, given
from pet_bench.data.convert.downloads import Converter, Download
from pet_bench.data.convert.work import Job
from pet_bench.metrics.vqa_accuracy import normalise

PARTS = ("train2014", "val2014")
QUESTIONS = {part: f"v2_OpenEnded_mscoco_{part}_questions.json" for part in PARTS}
ANNOTATIONS = {part: f"v2_mscoco_{part}_annotations.json" for part in PARTS}
SOURCES = (*QUESTIONS.values(), *ANNOTATIONS.values())
SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}
OCCURRENCES = 9
PUBLISHED = 3129
OTHERS = "of VQA v1, while the benchmark is v2, files v2_…; or OK-VQA's, which task okvqa reads as they are, in okvqa/"
SCORES = {1: 0.3, 2: 0.6, 3: 0.9}


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


def soft_label(answers: list[str], vocabulary: dict[str, int]) -> tuple[dict[str, float], bool]:
    """Score of every answer to learn, and whether one of them is as good as the best of all."""
    scores = {answer: SCORES.get(count, 1.0) for answer, count in Counter(map(normalise, answers)).items()}
    label = {answer: score for answer, score in scores.items() if answer and answer in vocabulary}
    return label, max(label.values(), default=0.0) == max(scores.values())


def annotated(job: Job, part: str) -> Iterator[Annotation]:
    """Of every question, the first time it occurs."""
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


def rebuilt(job: Job) -> dict[str, int]:
    """The answers to learn by the published rule, to be put in place with their list."""
    counts = Counter(normalise(row["multiple_choice_answer"]) for part in PARTS for row in annotated(job, part))
    ordered = ["", *sorted(answer for answer, count in counts.items() if answer and count >= OCCURRENCES)]
    numbers = {answer: number for number, answer in enumerate(ordered)}
    job.note(
        f"{len(ordered):,} answers to learn were found by the published rule; LXMERT's {ANSWERS} has {PUBLISHED:,}"
    )
    job.whole(f"vqa/{ANSWERS}", numbers, *ANNOTATIONS.values())
    job.whole(f"vqa/{LABELS}", ordered, *ANNOTATIONS.values())
    return numbers


def rows(job: Job, part: str, vocabulary: dict[str, int], splits: dict[int, coco.Known]) -> Iterator[tuple[str, Any]]:
    """(split, row) of all questions that have annotations."""

    def unmatched(name: str, said: str, *others: str) -> None:
        if not job.torn.intersection(others):
            job.fault(name, f"{said} {', '.join(str(job.files[other]) for other in others)}")

    asked = questions(job, part)
    for row in annotated(job, part):
        key, image = row["question_id"], row["image_id"]
        of, text = asked.pop(key, (image, None))
        if text is None:
            unmatched(ANNOTATIONS[part], f"question {key} is not in", QUESTIONS[part])
        elif of != image:
            job.fault(ANNOTATIONS[part], f"question {key} is of image {image}, but in the questions of image {of}")
        elif image not in splits:
            unmatched(ANNOTATIONS[part], f"question {key}: image {image} is in no split of", *coco.sources(job))
        else:
            label, optimal = soft_label([answer["answer"] for answer in row["answers"]], vocabulary)
            yield (
                SPLITS[splits[image]["split"]],
                {
                    "question_id": key,
                    "img_id": Path(splits[image]["filename"]).stem,
                    "sent": text,
                    "label": label,
                    "answer_type": row["answer_type"],
                    "question_type": row["question_type"],
                    "is_topk_optimal": optimal,
                },
            )
    for key in asked:
        unmatched(QUESTIONS[part], f"question {key} has no annotation in", ANNOTATIONS[part])


def run(job: Job) -> None:
    vocabulary = given(job, "vqa", pretty=True) if job.has(ANSWERS) else None
    if job.has(*SOURCES) and coco.complete(job):
        vocabulary = rebuilt(job) if vocabulary is None else vocabulary
        splits = coco.images(job)
        sources = (*SOURCES, *coco.sources(job), *((ANSWERS,) if job.has(ANSWERS) else ()))
        with ExitStack() as stack:
            add = {
                split: stack.enter_context(job.rows(f"vqa/karpathy_{split}.json", *sources))
                for split in ("train", "val", "test")
            }
            for part in PARTS:
                for split, row in rows(job, part, vocabulary, splits):
                    add[split](row)
    for part in PARTS:
        if job.has(ANNOTATIONS[part]):
            if ANNOTATIONS[part] not in job.counts:
                for _ in annotated(job, part):
                    pass
            job.place(ANNOTATIONS[part])


VQA = Converter(
    "vqa",
    (
        *(Download(f"vqa/{name}") for name in (*QUESTIONS.values(), *ANNOTATIONS.values())),
        *coco.downloads(shared=True),
        Download(f"vqa/{ANSWERS}", (f"vqa/{ANSWERS}",), needed=False),
    ),
    run,
    (
        ("mscoco_train2014_annotations.json", OTHERS),
        ("mscoco_val2014_annotations.json", OTHERS),
    ),
)
