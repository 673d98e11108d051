"""COCO captions: Karpathy's `dataset_coco.json` is read as it is; it is checked and put in its place.

It is also passed on as a list for each split, `coco_karpathy_{train,val,test}.json`, whose rows are an image with its
captions or with one of them. `dataset_coco.json` is made of those where it is not there: the image's id is in its
file's name, and what is of val2014 among the training images is Karpathy's `restval`.

The hub's copies of his splits, and others (`coco_hub`), serve where neither is there.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from pet_bench.data.convert.coco_hub import (
    CAPTIONED,
    KARPATHY,
    SHARDS,
    TABLES,
    Known,
    Sentence,
    captioned,
    dataset,
    known_of,
    of_table,
    sampled,
)  # fmt: skip
from pet_bench.data.convert.downloads import Converter, Download
from pet_bench.data.convert.work import Job
from pet_bench.data.rows import Text

PER_SPLIT = {f"coco_karpathy_{split}.json": split for split in ("train", "val", "test")}
LISTED = re.compile(rb'\s*\[\s*\{[^{}]*"captions?"\s*:')
SCORING = "it has the captions in COCO's form, for scoring: score --annotations"


class Image(TypedDict):
    filename: NotRequired[str]
    filepath: NotRequired[str]
    cocoid: NotRequired[int]
    split: Literal["train", "restval", "val", "test", "val2014"]  # the last is what `captioned` calls its own
    sentences: Annotated[list[Sentence], Field(min_length=1)]


class Row(TypedDict):
    """Of a split's list; the names of the keys vary."""

    image: NotRequired[str]
    file_name: NotRequired[str]
    filename: NotRequired[str]
    caption: NotRequired[Text | Annotated[list[Text], Field(min_length=1)]]
    captions: NotRequired[Text | Annotated[list[Text], Field(min_length=1)]]


def complete(job: Job) -> bool:
    """Whether the split of every image is known."""
    return any(job.has(*names) for names in ((KARPATHY,), PER_SPLIT, TABLES))


def sources(job: Job) -> list[str]:
    """What tells the images' splits: the first of the ways that are at hand."""
    ways = ([name for name in names if job.has(name)] for names in ((KARPATHY,), PER_SPLIT, TABLES))
    return next((way for way in ways if way), [])


def karpathy(job: Job) -> dict[int, Known]:
    """`images` that are in one of Karpathy's splits."""
    return {key: image for key, image in images(job).items() if image["split"] != "val2014"}


def images(job: Job) -> dict[int, Known]:
    """Karpathy's images by COCO's id, each with its file's name; of `dataset_coco.json` without their captions."""
    known: dict[int, Known] = {}
    if job.has(KARPATHY):
        for place, row in job.read(KARPATHY, Image, within="images"):
            if (image := known_of(row)) is None:
                job.fault(KARPATHY, f"{place}: filename is missing, and cannot be told from filepath and cocoid")
            elif image["cocoid"] in known:
                job.fault(KARPATHY, f"{place}: cocoid {image['cocoid']} occurs twice")
            else:
                known[image["cocoid"]] = {**image, "sentences": []}
        return known
    whole: set[int] = set()
    for name in sources(job):
        if name in TABLES:
            of_table(job, name, known)
            continue
        for place, row in job.read(name, Row, form="elements"):
            image, captions = _image(row, PER_SPLIT[name]), row.get("caption", row.get("captions"))
            if image is None or captions is None:
                job.fault(name, f"{place}: no {'caption' if image else 'image named as COCO names them'}")
                continue
            held = known.setdefault(image["cocoid"], image)
            if held["split"] != image["split"]:
                job.fault(name, f"{place}: image {image['filename']} is in split {held['split']} too")
            elif image["cocoid"] in whole:
                job.fault(name, f"{place}: image {image['filename']} occurs twice")
            elif isinstance(captions, list):
                whole.add(image["cocoid"])
            held["sentences"] += [
                Sentence(raw=text) for text in ([captions] if isinstance(captions, str) else captions)
            ]
    return known


def _image(row: Row, split: str) -> Known | None:
    path = row.get("image", row.get("file_name", row.get("filename", "")))
    name = PurePosixPath(path).name
    split = "restval" if split == "train" and "val2014" in name else split
    return known_of({"filename": name, "split": split, "sentences": []})


def run(job: Job) -> None:
    known = images(job) if sources(job) else {}
    if job.has(KARPATHY):
        job.place(KARPATHY)
        for name in PER_SPLIT:
            if job.has(name):
                job.note(f"{job.files[name]} is not used: {job.files[KARPATHY]} has all splits")
    elif known:
        missing = [name.removeprefix("coco-") for name in TABLES if not job.has(name)]
        if sources(job)[0] in TABLES and missing:
            job.fault(sources(job)[0], f"the table of split {missing[0]} is not beside it")
        job.whole(f"COCO/{KARPATHY}", dataset(known), *sources(job), pretty=False, rows=len(known))
    archived = [name for name in SHARDS if job.has(name)]
    if archived:
        where = ", ".join(str(job.source(name)) for name in sources(job))
        sampled(job, archived, known, where)
    if job.has(CAPTIONED.name):
        captioned(job, write=not known and not archived)


def downloads(*, shared: bool = False) -> tuple[Download, ...]:
    """Karpathy's splits in either form."""
    return (
        Download(f"COCO/{KARPATHY}", shared=shared, instead=tuple(PER_SPLIT)),
        *(
            Download(f"COCO/{name}", (name, f"*karpathy*{split}*.json"), LISTED, needed=False, shared=shared)
            for name, split in PER_SPLIT.items()
        ),
    )


TABLED = (*TABLES.values(), *SHARDS.values(), CAPTIONED)
COCO = Converter("coco-caption", downloads(), run, (("*karpathy*_gt.json", SCORING),), TABLED)
