"""VQAv2: the official questions and annotations on the Karpathy splits, as VL-T5 has them.

`vqa_rows` has the rules for a row. All questions of train2014 and val2014 go to the Karpathy split of their image;
train and restval make training.

The answers to learn are those of `trainval_ans2label.json`, LXMERT's 3,129. Without it they are rebuilt by the rule of
the bottom-up attention code, from which LXMERT's come: the normalised most frequent answers of at least nine questions
of train2014 and val2014 together. Number 0 is "", as published; the others follow in alphabetical order, since the
published order is none. That the rule leaves the published 3,129 is not verified, as the annotations were not at hand.

The hub's copy, lmms-lab(-encoder)/VQAv2, has val2014 with its annotators, and stands for those two files; it has no
train2014. Where that is not at hand, Karpathy's val and test, which are of val2014, are made nevertheless, and the rest
of val2014 is the split `karpathy_restval`; without Karpathy's splits all is one, `hub_val`. The one public table of
train2014 is the_cauldron's, with one answer a question, without ids or annotators: it becomes the split `hub_train`,
its answers normalised as all. Then every answer is one to learn, unless LXMERT's map is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from contextlib import ExitStack

from pet_bench.data.convert import coco
from pet_bench.data.convert.answers import ANSWERS, LABELS, given
from pet_bench.data.convert.cauldron import layout, question, turns
from pet_bench.data.convert.coco_hub import tables
from pet_bench.data.convert.downloads import Converter, Download
from pet_bench.data.convert.vqa_rows import (
    ANNOTATIONS,
    HUB,
    PARTS,
    QUESTIONS,
    Whole,
    annotated,
    held,
    made,
    named,
    rows,
    soft_label,
)  # fmt: skip
from pet_bench.data.convert.work import Job
from pet_bench.metrics.vqa_accuracy import normalise

__all__ = ["VQA", "rebuilt", "soft_label"]

SOURCES = (*QUESTIONS.values(), *ANNOTATIONS.values())
TRAIN = layout(
    "vqa-train",
    "vqav2",
    instead=(QUESTIONS["train2014"], ANNOTATIONS["train2014"]),
    origin="HuggingFaceM4/the_cauldron, vqav2/*.parquet",
)
SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}
OCCURRENCES = 9
PUBLISHED = 3129
OTHERS = "of VQA v1, while the benchmark is v2, files v2_…; or OK-VQA's, which task okvqa reads as they are, in okvqa/"


def rebuilt(job: Job) -> dict[str, int]:
    """The answers to learn by the published rule, to be put in place with their list."""
    counts = Counter(normalise(row["multiple_choice_answer"]) for part in PARTS for row in annotated(job, part))
    ordered = ["", *sorted(answer for answer, count in counts.items() if answer and count >= OCCURRENCES)]
    numbers = {answer: number for number, answer in enumerate(ordered)}
    job.note(
        f"{len(ordered):,} answers to learn were found by the published rule; LXMERT's {ANSWERS} has {PUBLISHED:,}"
    )
    names = [name for part in PARTS for name in held(job, part)[-1:]]
    job.whole(f"vqa/{ANSWERS}", numbers, *names)
    job.whole(f"vqa/{LABELS}", ordered, *names)
    return numbers


def alone(job: Job, vocabulary: Container[str] | None) -> None:
    """What can be made of val2014 without train2014."""
    known = coco.karpathy(job) if coco.complete(job) else {}
    if known:
        names = {"restval": "karpathy_restval", "val": "karpathy_val", "test": "karpathy_test"}
        found = rows(job, "val2014", vocabulary, known)
        sources = HUB.name, *coco.sources(job)
    else:
        names, sources = {"val": "hub_val"}, (HUB.name,)
        whole = (row for _, row in job.table(HUB.name, Whole, key="question_id"))
        found = (("val", made(row, named(row["image_id"]), row["question"], vocabulary)) for row in whole)
        job.protocol |= {"valid": "none", "test": "hub_val"}
        job.note("without Karpathy's splits (dataset_coco.json) all of val2014 is one split, hub_val, for testing")
    with ExitStack() as stack:
        add = {split: stack.enter_context(job.rows(f"vqa/{name}.json", *sources)) for split, name in names.items()}
        for split, row in found:
            add[split](row)


def tabled(job: Job) -> None:
    """Annotations in the official form, for scoring, and the pictures."""
    seen: set[int] = set()
    with ExitStack() as stack:
        target = f"vqa/{ANNOTATIONS['val2014']}"
        add = stack.enter_context(job.rows(target, HUB.name, within="annotations"))
        picture = stack.enter_context(job.album("COCO", HUB.name))
        for spot, row in job.table(HUB.name, Whole, key="question_id"):
            add({key: value for key, value in row.items() if key not in ("image", "question")})
            if row["image_id"] not in seen:
                seen.add(row["image_id"])
                picture(named(row["image_id"]), spot)


def cauldron(job: Job) -> None:
    """Training with one answer a question."""
    seen: set[str] = set()
    with job.rows("vqa/hub_train.json", TRAIN.name) as add, job.album("COCO", TRAIN.name) as picture:
        for turn in turns(job, TRAIN.name, pictures=1):
            label, text = {normalise(turn.assistant): 1.0}, question(turn.user)
            add({"question_id": turn.key, "img_id": turn.row, "sent": text, "label": label})
            if turn.row not in seen:
                seen = {turn.row}
                picture(turn.row, turn.spot, "images")
    restval = "test" not in job.protocol and HUB.name in held(job, "val2014")
    job.protocol["train"] = "hub_train+karpathy_restval" if restval else "hub_train"


def run(job: Job) -> None:
    vocabulary = given(job, "vqa", pretty=True) if job.has(ANSWERS) else None
    parts = {part: held(job, part) for part in PARTS}
    whole = all(parts.values()) and coco.complete(job)
    if whole:
        vocabulary = rebuilt(job) if vocabulary is None else vocabulary
        splits = coco.karpathy(job)
        sources = (*parts["train2014"], *parts["val2014"], *coco.sources(job))
        sources += (ANSWERS,) if job.has(ANSWERS) else ()
        with ExitStack() as stack:
            add = {
                split: stack.enter_context(job.rows(f"vqa/karpathy_{split}.json", *sources))
                for split in ("train", "val", "test")
            }
            for part in PARTS:
                for split, row in rows(job, part, vocabulary, splits):
                    add[SPLITS[split]](row)
    elif HUB.name in parts["val2014"]:
        alone(job, vocabulary)
    if HUB.name in parts["val2014"]:
        tabled(job)
    if job.has(TRAIN.name) and not whole:
        cauldron(job)
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
    (HUB, TRAIN, *tables()),
)
