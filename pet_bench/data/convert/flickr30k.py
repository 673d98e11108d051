"""Flickr30k captions from the hub's copies (nlphuji/flickr30k, lmms-lab[-encoder]/flickr30k), as Karpathy has them.

A copy that names the split of each image has all that `dataset_flickr30k.json` holds. One that does not, as lmms-lab's,
which calls all 31,783 images "test", gives the pictures alone: the splits are those of Karpathy's file.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from pet_bench.data.answers import Name
from pet_bench.data.convert.downloads import Converter, Download
from pet_bench.data.convert.tables import Layout
from pet_bench.data.convert.work import Job
from pet_bench.data.rows import Text

KARPATHY = "dataset_flickr30k.json"
ALL = Layout(
    "flickr30k",
    {
        "image": "image", "caption": "list<string>", "sentids": "list<string>", "img_id": "string",
        "filename": "string",
    },
    others=("split",),
)  # fmt: skip


class Sentence(TypedDict):
    raw: Text


class Image(TypedDict):
    filename: Name
    split: Literal["train", "val", "test"]
    sentences: Annotated[list[Sentence], Field(min_length=1)]


class Row(TypedDict):
    filename: Name
    caption: Annotated[list[Text], Field(min_length=1)]
    split: NotRequired[Literal["train", "val", "test"]]


def run(job: Job) -> None:
    known: dict[str, str] = {}
    if job.has(KARPATHY):
        for place, image in job.read(KARPATHY, Image, within="images"):
            if image["filename"] in known:
                job.fault(KARPATHY, f"{place}: filename {image['filename']} occurs twice")
            known[image["filename"]] = image["split"]
        job.place(KARPATHY)
    if not job.has(ALL.name):
        return
    if not known and "split" not in job.tables[ALL.name].columns:
        job.fault(ALL.name, f"names no splits, and there is no {KARPATHY} that does (Karpathy's caption_datasets.zip)")
    images: list[dict[str, Any]] = []
    with job.album("flickr30k", ALL.name) as picture:
        for spot, row in job.table(ALL.name, Row, key="filename"):
            picture(row["filename"], spot)
            sentences = [{"raw": caption} for caption in row["caption"]]
            images.append({"filename": row["filename"], "split": row.get("split"), "sentences": sentences})
    if absent := known.keys() - {image["filename"] for image in images} if ALL.name not in job.torn else ():
        job.fault(ALL.name, f"lacks {len(absent)} of the images of {job.files[KARPATHY]}, the first is {min(absent)}")
    if not known:
        content = {"images": images, "dataset": "flickr30k"}
        job.whole(f"flickr30k/{KARPATHY}", content, ALL.name, pretty=False, rows=len(images))


FLICKR30K = Converter("flickr30k-caption", (Download(f"flickr30k/{KARPATHY}", needed=False),), run, tables=(ALL,))
