"""TextVQA from the hub's copies (lmms-lab[-encoder]/textvqa, facebook/textvqa), in the form of the official files.

The words read in an image, which only some copies have, are put where Rosetta's are; the cards do not say what read
them. The test split's answers, which are hidden, stand in the copies as ten empty ones, and are left out.
"""

from __future__ import annotations

from typing import Any, NotRequired

from typing_extensions import TypedDict

from pet_bench.data.answers import Name, Ten
from pet_bench.data.convert.downloads import Converter
from pet_bench.data.convert.tables import Layout
from pet_bench.data.convert.work import Job
from pet_bench.data.rows import Text

COLUMNS = {
    "image_id": "string", "question_id": "int", "question": "string", "question_tokens": "list<string>",
    "image": "image", "image_width": "int", "image_height": "int", "flickr_original_url": "string",
    "flickr_300k_url": "string", "answers": "list<string>", "image_classes": "list<string>", "set_name": "string",
}  # fmt: skip
SPLITS = {
    split: Layout(
        f"textvqa-{split}",
        COLUMNS,
        split=f"{split}*",
        others=("ocr_tokens",),
        needed=split != "test",
        origin=f"lmms-lab-encoder/textvqa, data/{split}*.parquet",
    )
    for split in ("train", "val", "test")
}


class Row(TypedDict):
    image_id: Name
    question_id: int
    question: Text
    answers: Ten
    image_classes: list[str]
    set_name: str
    ocr_tokens: NotRequired[list[str]]


def run(job: Job) -> None:
    silent = []
    for split, layout in SPLITS.items():
        if not job.has(layout.name):
            continue
        rows: list[dict[str, Any]] = []
        words: dict[str, list[str]] = {}
        seen: set[str] = set()
        with job.album("textvqa", layout.name) as picture:
            for spot, row in job.table(layout.name, Row, key="question_id"):
                image, read = row["image_id"], row.pop("ocr_tokens", None)
                if image not in seen:
                    seen.add(image)
                    picture(image, spot)
                if read is not None and words.setdefault(image, read) != read:
                    job.fault(spot, f"ocr_tokens differ from those of another question about image {image}")
                rows.append(row if any(row["answers"]) else {k: v for k, v in row.items() if k != "answers"})
        about = {"dataset_type": split, "dataset_name": "textvqa"}
        content = {**about, "dataset_version": "0.5.1", "data": rows}
        job.whole(f"textvqa/TextVQA_0.5.1_{split}.json", content, layout.name, pretty=False, rows=len(rows))
        if words:
            tokens = [{"image_id": image, "ocr_tokens": read} for image, read in words.items()]
            content = {**about, "data": tokens}
            place = f"textvqa/TextVQA_Rosetta_OCR_v0.2_{split}.json"
            job.whole(place, content, layout.name, pretty=False, rows=len(words))
        else:
            silent.append(split)
    if silent:
        job.note(f"the copy of {', '.join(silent)} has no ocr_tokens: textvqa.ocr needs Rosetta's official files")


TEXTVQA = Converter("textvqa", (), run, tables=tuple(SPLITS.values()))
