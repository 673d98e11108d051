"""COCO captions on the hub, in three forms.

yerevann/coco-karpathy has Karpathy's splits, four tables without pictures. lmms-lab(-encoder)/COCO-Caption has the
pictures of val2014 with their captions, in no split of Karpathy's: where those are known it is taken for the pictures,
otherwise it is the split `val2014`. undefined443/coco-karpathy-wds has Karpathy's splits with pictures, named by
numbers: alone, its pictures are called so, and stored features are not theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, cast

from pydantic import Field
from typing_extensions import TypedDict

from pet_bench.data.convert.tables import Layout, Picture
from pet_bench.data.convert.work import Job
from pet_bench.data.rows import Text, named

KARPATHY = "dataset_coco.json"
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
SHARDS = {
    f"coco-wds-{split}": Layout(
        f"coco-wds-{split}",
        {"jpg": "image", "json": "struct"},
        split=split,
        instead=(KARPATHY,),
        origin="undefined443/coco-karpathy-wds",
    )
    for split in ("train", "val", "test")
}


class Sentence(TypedDict):
    raw: Text


class Known(TypedDict):
    """An image with both its names."""

    filename: str
    cocoid: int
    split: str
    sentences: list[Sentence]


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


class Numbered(TypedDict):
    captions: Annotated[list[Text], Field(min_length=1)]
    cocoid: int


class Sample(TypedDict):
    """A picture of a WebDataset shard with its captions."""

    __key__: Text
    jpg: Picture
    json: Numbered


def tables() -> tuple[Layout, ...]:
    """As `downloads`, for other tasks, in tables."""
    return tuple(replace(table, shared=True) for table in TABLES.values())


def known_of(image: Mapping[str, Any]) -> Known | None:
    return cast("Known | None", named(image))


def of_table(job: Job, name: str, known: dict[int, Known]) -> None:
    for spot, row in job.table(name, Split):
        if row["cocoid"] in known:
            job.fault(spot, f"cocoid {row['cocoid']} occurs twice")
        sentences = [Sentence(raw=text) for text in row["sentences"]]
        known[row["cocoid"]] = Known(
            filename=row["filename"], cocoid=row["cocoid"], split=row["split"], sentences=sentences
        )


def sampled(job: Job, names: list[str], known: Mapping[int, Known], where: str) -> None:
    """The pictures of archives, and where nothing else tells the splits, their captions too."""
    found: dict[int, Known] = {}
    for name in names:
        split = name.removeprefix("coco-wds-")
        with job.album("COCO", name) as picture:
            for spot, row in job.table(name, Sample):
                number, sentences = row["json"]["cocoid"], [Sentence(raw=text) for text in row["json"]["captions"]]
                if number in found:
                    job.fault(spot, f"json.cocoid {number} occurs twice")
                if known and number not in known:
                    job.fault(spot, f"json.cocoid {number} is not in {where}")
                    continue
                found[number] = Known(filename=f"{row['__key__']}.jpg", cocoid=number, split=split, sentences=sentences)
                picture(PurePosixPath((known or found)[number]["filename"]).stem, spot)
    if not known:
        missing = [name for name in SHARDS if name not in names]
        if missing:
            job.fault(names[0], f"the archives of {missing[0].removeprefix('coco-wds-')} are not beside it")
        job.whole(f"COCO/{KARPATHY}", dataset(found), *names, pretty=False, rows=len(found))


def captioned(job: Job, *, write: bool) -> None:
    """The pictures of val2014, and where nothing better is known, their captions."""
    found: dict[int, Known] = {}
    with job.album("COCO", CAPTIONED.name) as picture:
        for spot, row in job.table(CAPTIONED.name, Captioned, key="id"):
            if (image := known_of({"filename": row["file_name"], "split": "val2014"})) is None:
                job.fault(spot, f"file_name {row['file_name']!r} has no number")
                continue
            picture(PurePosixPath(row["file_name"]).stem, spot)
            found[image["cocoid"]] = {**image, "sentences": [Sentence(raw=text) for text in row["answer"]]}
    if write:
        job.whole(f"COCO/{KARPATHY}", dataset(found), CAPTIONED.name, pretty=False, rows=len(found))
        job.note("val2014 is in no split of Karpathy's, and no published number is on it: it is the split val2014")
        job.protocol |= {"valid": "none", "test": "val2014"}


def dataset(known: Mapping[int, Known]) -> dict[str, Any]:
    return {"images": list(known.values()), "dataset": "coco"}
