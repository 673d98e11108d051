"""COCO captions: Karpathy's `dataset_coco.json` is read as it is; it is checked and put in its place.

It is also passed on as a list for each split, `coco_karpathy_{train,val,test}.json`, whose rows are an image with its
captions or with one of them. `dataset_coco.json` is made of those where it is not there: the image's id is in its
file's name, and what is of val2014 among the training images is Karpathy's `restval`.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from pet_bench.data.convert.downloads import Converter, Download
from pet_bench.data.convert.work import Job
from pet_bench.data.rows import Text, named

KARPATHY = "dataset_coco.json"
PER_SPLIT = {f"coco_karpathy_{split}.json": split for split in ("train", "val", "test")}
LISTED = re.compile(rb'\s*\[\s*\{[^{}]*"captions?"\s*:')
SCORING = "it has the captions in COCO's form, for scoring: score --annotations"


class Sentence(TypedDict):
    raw: Text


class Image(TypedDict):
    filename: NotRequired[str]
    filepath: NotRequired[str]
    cocoid: NotRequired[int]
    split: Literal["train", "restval", "val", "test"]
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
    return job.has(KARPATHY) or job.has(*PER_SPLIT)


def sources(job: Job) -> list[str]:
    return [KARPATHY] if job.has(KARPATHY) else [name for name in PER_SPLIT if job.has(name)]


def images(job: Job) -> dict[int, Image]:
    """Karpathy's images by COCO's id, each with its file's name; of `dataset_coco.json` without their captions."""
    if job.has(KARPATHY):
        found: dict[int, Image] = {}
        for place, row in job.read(KARPATHY, Image, within="images"):
            if (known := named(row)) is None:
                job.fault(KARPATHY, f"{place}: filename is missing, and cannot be told from filepath and cocoid")
            elif known["cocoid"] in found:
                job.fault(KARPATHY, f"{place}: cocoid {known['cocoid']} occurs twice")
            else:
                found[known["cocoid"]] = known | {"sentences": []}
        return found
    found, whole = {}, set()
    for name in sources(job):
        for place, row in job.read(name, Row, form="elements"):
            image, captions = _image(row, PER_SPLIT[name]), row.get("caption", row.get("captions"))
            if image is None or captions is None:
                job.fault(name, f"{place}: no {'caption' if image else 'image named as COCO names them'}")
                continue
            held = found.setdefault(image["cocoid"], image)
            if held["split"] != image["split"]:
                job.fault(name, f"{place}: image {image['filename']} is in split {held['split']} too")
            elif image["cocoid"] in whole:
                job.fault(name, f"{place}: image {image['filename']} occurs twice")
            elif isinstance(captions, list):
                whole.add(image["cocoid"])
            held["sentences"] += [{"raw": text} for text in ([captions] if isinstance(captions, str) else captions)]
    return found


def _image(row: Row, split: str) -> Image | None:
    path = next((row[key] for key in ("image", "file_name", "filename") if key in row), "")
    name = PurePosixPath(path).name
    split = "restval" if split == "train" and "val2014" in name else split
    return named({"filename": name, "split": split, "sentences": []})


def run(job: Job) -> None:
    found = images(job) if sources(job) else {}
    if job.has(KARPATHY):
        job.place(KARPATHY)
        for name in PER_SPLIT:
            if job.has(name):
                job.note(f"{job.files[name]} is not used: {job.files[KARPATHY]} has all splits")
    elif found:
        content = {"images": list(found.values()), "dataset": "coco"}
        job.whole(f"COCO/{KARPATHY}", content, *sources(job), pretty=False, rows=len(found))


def downloads(*, shared: bool = False) -> tuple[Download, ...]:
    """Karpathy's splits in either form."""
    return (
        Download(f"COCO/{KARPATHY}", shared=shared, instead=tuple(PER_SPLIT)),
        *(
            Download(f"COCO/{name}", (name, f"*karpathy*{split}*.json"), LISTED, needed=False, shared=shared)
            for name, split in PER_SPLIT.items()
        ),
    )


COCO = Converter("coco-caption", downloads(), run, (("*karpathy*_gt.json", SCORING),))
