"""COCO captions: Karpathy's `dataset_coco.json` is read as it is; it is checked and put in its place.

It is also passed on as a list for each split, `coco_karpathy_{train,val,test}.json`, whose rows are an image with its
captions or with one of them. `dataset_coco.json` is made of those where it is not there: the image's id is in its
file's name, and what is of val2014 among the training images is Karpathy's `restval`.

So it is of the hub's tables of his splits, yerevann/coco-karpathy, which have no pictures. The hub's table
lmms-lab(-encoder)/COCO-Caption has the pictures of val2014 with their captions, in no split of Karpathy's: where those
are known it is taken for the pictures, otherwise it is the split `val2014`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, NotRequired, cast

from pydantic import Field
from typing_extensions import TypedDict

from pet_bench.data.convert.downloads import Converter, Download
from pet_bench.data.convert.tables import Layout, Picture
from pet_bench.data.convert.work import Job
from pet_bench.data.rows import Text, named

KARPATHY = "dataset_coco.json"
PER_SPLIT = {f"coco_karpathy_{split}.json": split for split in ("train", "val", "test")}
LISTED = re.compile(rb'\s*\[\s*\{[^{}]*"captions?"\s*:')
TABLES = {
    f"coco-{split}": Layout(
        f"coco-{split}",
        {
            "filepath": "string", "sentids": "list<int>", "filename": "string", "imgid": "int", "split": "string",
            "sentences": "list<string>", "cocoid": "int", "url": "string",
        },
        split=pattern,
        instead=(KARPATHY,),
        origin="yerevann/coco-karpathy, data/*.parquet",
    )
    for split, pattern in {"train": "train*", "restval": "restval*", "val": "val*", "test": "test*"}.items()
}  # fmt: skip
CAPTIONED = Layout(
    "coco-val2014",
    {
        "question_id": "string", "image": "image", "question": "string", "answer": "list<string>", "id": "int",
        "license": "int", "file_name": "string", "coco_url": "string", "height": "int", "width": "int",
        "date_captured": "string",
    },
    split="val*",
    others=("instance",),
    instead=(KARPATHY,),
    origin="lmms-lab-encoder/COCO-Caption, data/val-*.parquet",
)  # fmt: skip
SCORING = "it has the captions in COCO's form, for scoring: score --annotations"


class Sentence(TypedDict):
    raw: Text


class Image(TypedDict):
    filename: NotRequired[str]
    filepath: NotRequired[str]
    cocoid: NotRequired[int]
    split: Literal["train", "restval", "val", "test", "val2014"]  # the last is what `captioned` calls its own
    sentences: Annotated[list[Sentence], Field(min_length=1)]


class Split(TypedDict):
    """A row of Karpathy's splits as tables have them."""

    filename: Text
    cocoid: int
    split: Literal["train", "restval", "val", "test"]
    sentences: Annotated[list[Text], Field(min_length=1)]


class Captioned(TypedDict):
    """A picture of val2014 with its captions."""

    image: Picture
    answer: Annotated[list[Text], Field(min_length=1)]
    id: int
    file_name: Text


class Known(TypedDict):
    """An image with both its names."""

    filename: str
    cocoid: int
    split: str
    sentences: list[Sentence]


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
            if (image := _known(row)) is None:
                job.fault(KARPATHY, f"{place}: filename is missing, and cannot be told from filepath and cocoid")
            elif image["cocoid"] in known:
                job.fault(KARPATHY, f"{place}: cocoid {image['cocoid']} occurs twice")
            else:
                known[image["cocoid"]] = {**image, "sentences": []}
        return known
    whole: set[int] = set()
    for name in sources(job):
        if name in TABLES:
            _of_table(job, name, known)
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


def _of_table(job: Job, name: str, known: dict[int, Known]) -> None:
    for spot, row in job.table(name, Split):
        if row["cocoid"] in known:
            job.fault(spot, f"cocoid {row['cocoid']} occurs twice")
        sentences = [Sentence(raw=text) for text in row["sentences"]]
        known[row["cocoid"]] = Known(
            filename=row["filename"], cocoid=row["cocoid"], split=row["split"], sentences=sentences
        )


def _image(row: Row, split: str) -> Known | None:
    path = row.get("image", row.get("file_name", row.get("filename", "")))
    name = PurePosixPath(path).name
    split = "restval" if split == "train" and "val2014" in name else split
    return _known({"filename": name, "split": split, "sentences": []})


def _known(image: Mapping[str, Any]) -> Known | None:
    return cast("Known | None", named(image))


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
        job.whole(f"COCO/{KARPATHY}", _dataset(known), *sources(job), pretty=False, rows=len(known))
    if job.has(CAPTIONED.name):
        captioned(job, write=not known)


def captioned(job: Job, *, write: bool) -> None:
    """The pictures of val2014, and where nothing better is known, their captions."""
    found: dict[int, Known] = {}
    with job.album("COCO", CAPTIONED.name) as picture:
        for spot, row in job.table(CAPTIONED.name, Captioned, key="id"):
            if (image := _known({"filename": row["file_name"], "split": "val2014"})) is None:
                job.fault(spot, f"file_name {row['file_name']!r} has no number")
                continue
            picture(PurePosixPath(row["file_name"]).stem, spot)
            found[image["cocoid"]] = {**image, "sentences": [Sentence(raw=text) for text in row["answer"]]}
    if write:
        job.whole(f"COCO/{KARPATHY}", _dataset(found), CAPTIONED.name, pretty=False, rows=len(found))
        job.note("val2014 is in no split of Karpathy's, and no published number is on it: it is the split val2014")
        job.protocol |= {"valid": "none", "test": "val2014"}


def _dataset(known: Mapping[int, Known]) -> dict[str, Any]:
    return {"images": list(known.values()), "dataset": "coco"}


def downloads(*, shared: bool = False) -> tuple[Download, ...]:
    """Karpathy's splits in either form."""
    return (
        Download(f"COCO/{KARPATHY}", shared=shared, instead=tuple(PER_SPLIT)),
        *(
            Download(f"COCO/{name}", (name, f"*karpathy*{split}*.json"), LISTED, needed=False, shared=shared)
            for name, split in PER_SPLIT.items()
        ),
    )


def tables() -> tuple[Layout, ...]:
    """As `downloads`, for other tasks, in tables."""
    return tuple(replace(table, shared=True) for table in TABLES.values())


COCO = Converter("coco-caption", downloads(), run, (("*karpathy*_gt.json", SCORING),), (*TABLES.values(), CAPTIONED))
