"""Rows of the_cauldron and FineVision: pictures, and turns of a conversation about them.

A data set is a configuration, whose folder tells which it is: the columns are the same for all. A row has no id, so a
turn is called `<configuration>-<file>-<row>-<turn>` and the row's pictures `<configuration>-<file>-<row>`, where the
file is its name without the hash at its end.

What the texts are made of is in the code that made the_cauldron: a question with a line beside it that asks to be
brief, and an answer with a capital letter and a full stop. `question` and the tasks' converters undo that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

from pydantic import Field
from typing_extensions import TypedDict

from pet_bench.data.convert.tables import SHARD, Layout, Picture, Spot
from pet_bench.data.convert.work import Job
from pet_bench.data.rows import Text


class Turn(TypedDict):
    user: Text
    assistant: Text


class Row(TypedDict):
    images: list[Picture]
    texts: Annotated[list[Turn], Field(min_length=1)]


class Asked(NamedTuple):
    """A turn: where it is, what it and its row are called, what is said."""

    spot: Spot
    key: str
    row: str
    user: str
    assistant: str


def layout(name: str, config: str, **options: Any) -> Layout:
    """The training split of a configuration; FineVision has more columns, with ratings."""
    kinds = {"images": "list<image>", "texts": "list<struct>"}
    return Layout(name, kinds, split="train*", config=f"*{config}*", others=("*",), **options)


def turns(job: Job, name: str, pictures: int) -> Iterator[Asked]:
    """Every turn of rows that have so many pictures each; others are faults."""
    table = job.tables[name]
    for spot, row in job.table(name, Row):
        if len(row["images"]) != pictures:
            job.fault(spot, f"images are {len(row['images'])}, expected {pictures}")
            continue
        match = SHARD.fullmatch(spot.path.stem)
        file = f"{match[1]}-{match[2]}" if match else spot.path.stem
        stem = f"{table.config}-{file}-{spot.number}"
        for number, turn in enumerate(row["texts"]):
            yield Asked(spot, f"{stem}-{number}", stem, turn["user"], turn["assistant"])


def question(text: str) -> str:
    """The line that is the question: the only one that ends with its mark, or else the first."""
    lines = [line.strip() for line in text.strip().splitlines()]
    asking = [line for line in lines if line.endswith("?")]
    return asking[0] if len(asking) == 1 else lines[0]
