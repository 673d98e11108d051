"""COCO captions: Karpathy's `dataset_coco.json` is read as it is; it is checked and put in its place."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints
from typing_extensions import TypedDict

from pet_bench.data.convert.downloads import Converter, Download
from pet_bench.data.convert.work import Job

KARPATHY = "dataset_coco.json"
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Sentence(TypedDict):
    raw: Text


class Image(TypedDict):
    filename: str
    cocoid: int
    split: Literal["train", "restval", "val", "test"]
    sentences: Annotated[list[Sentence], Field(min_length=1)]


def images(job: Job) -> dict[int, Image]:
    """The images of Karpathy's file by COCO's id, without their captions."""
    found: dict[int, Image] = {}
    for place, row in job.read(KARPATHY, Image, within="images"):
        if row["cocoid"] in found:
            job.fault(KARPATHY, f"{place}: cocoid {row['cocoid']} occurs twice")
        found[row["cocoid"]] = row | {"sentences": []}
    return found


def run(job: Job) -> None:
    if job.has(KARPATHY):
        images(job)
        job.place(KARPATHY)


COCO = Converter("coco-caption", (Download(f"COCO/{KARPATHY}"),), run)
