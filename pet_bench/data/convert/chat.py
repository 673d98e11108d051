"""Conversations with embedded images as task `chat` reads them, from tables of the hub.

TRL's (`messages`, or `prompt` and `completion`, with `images`), and those of the_cauldron and FineVision (`texts` of
user and assistant, with `images`); other columns are not used. A row is called after its table and number. Since other
tasks are made from such tables too, `--task chat` asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NotRequired

from typing_extensions import TypedDict

from pet_bench.data.conversations import Message, conversation
from pet_bench.data.convert.cauldron import Turn
from pet_bench.data.convert.downloads import Converter
from pet_bench.data.convert.tables import Layout, Picture
from pet_bench.data.convert.work import Job

FORMS = {
    "messages": {"messages": "list<struct>"},
    "prompts": {"prompt": "list<struct>", "completion": "list<struct>"},
    "texts": {"texts": "list<struct>"},
}
SPLITS = {"train": "train*", "valid": "val*", "test": "test*"}
ORIGIN = {
    "messages": "trl-lib/llava-instruct-mix, HuggingFaceH4/llava-instruct-mix-vsft",
    "prompts": "TRL's data sets of prompts and completions with images",
    "texts": "HuggingFaceM4/the_cauldron, HuggingFaceM4/FineVision",
}


class Row(TypedDict):
    images: list[Picture]
    messages: NotRequired[list[Message]]
    prompt: NotRequired[list[Message]]
    completion: NotRequired[list[Message]]
    texts: NotRequired[list[Turn]]


def layouts() -> Iterator[Layout]:
    for split, pattern in SPLITS.items():
        for form, columns in FORMS.items():
            kinds = {"images": "list<image>", **columns}
            yield Layout(f"chat-{form}-{split}", kinds, split=pattern, others=("*",), origin=ORIGIN[form])


def run(job: Job) -> None:
    made = {split: name for split in SPLITS for form in FORMS if job.has(name := f"chat-{form}-{split}")}
    for split, name in made.items():
        _convert(job, split, name)
    for name in job.tables.keys() - {*made.values()}:
        job.fault(name, "another table has the same split, and they make one file; leave one of them")
    if "valid" not in made:
        job.protocol["valid"] = "none"
    if "train" in made and "test" not in made:
        job.protocol |= {"train": "train[:95%]", "test": "train[95%:]"}
        job.note("the copy has no test split: a twentieth of train, no image of which is trained on, is tested")


def _convert(job: Job, split: str, name: str) -> None:
    table = job.tables[name]
    with job.rows(f"chat/{split}.json", name) as add, job.album("chat", name) as picture:
        for count, (spot, row) in enumerate(job.table(name, Row)):
            key = "-".join(filter(None, (table.config, split, str(count))))
            images = [f"{key}-{item}.jpg" for item in range(len(row["images"]))]
            made = {"id": key, "images": images, **_said(row)}
            for fault in conversation("", made)[0]:
                job.fault(spot, fault.removeprefix(": "))
            for item, image in enumerate(images):
                picture(image, spot, "images", item)
            add(made)


def _said(row: Row) -> dict[str, Any]:
    if "texts" not in row:
        return {key: value for key, value in row.items() if key != "images"}
    turns = row["texts"]
    said = [[("user", turn["user"]), ("assistant", turn["assistant"])] for turn in turns]
    return {"messages": [{"role": role, "content": text} for turn in said for role, text in turn]}


CHAT = Converter("chat", (), run, tables=tuple(layouts()), asked=True)
