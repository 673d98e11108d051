"""YouCook2 as it is published on the hub, lmms-eval/YouCook2: a row a segment of a video, with its sentence.

Its segments become YC2C's clips as VALUE names them, `<video>_<number>`, counted by their starts from 0. The table has
no training split, and sentences in `val` alone; nor has it subtitles, so that clips without any are written where no
`yc2_subtitles.jsonl` is at hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from pet_bench.data.convert.downloads import Converter
from pet_bench.data.convert.tables import Layout
from pet_bench.data.convert.work import Job
from pet_bench.data.rows import Text

SUBTITLES = "yc2_subtitles.jsonl"
TABLES = {
    split: Layout(
        f"yc2c-{split}",
        {
            "id": "string", "video_url": "string", "recipe_type": "string", "segment": "list<float>",
            "sentence": "string", "video_path": "string", "youtube_id": "string",
        },
        split=f"{split}*",
        instead=(f"yc2c_{split}_release.jsonl", SUBTITLES),
        origin=f"lmms-eval/YouCook2, data/{split}-*.parquet",
    )
    for split in ("val", "test")
}  # fmt: skip


class Segment(TypedDict):
    id: Text
    segment: Annotated[list[Annotated[float, Field(ge=0, allow_inf_nan=False)]], Field(min_length=2, max_length=2)]
    youtube_id: Text


class Described(Segment):
    sentence: Text


def beside(converter: Converter) -> Converter:
    """A converter that reads these tables too, each where the file that it stands for is not there."""
    official: Callable[[Job], None] = converter.run

    def run(job: Job) -> None:
        official(job)
        missing = [split for split in TABLES if job.has(f"yc2c-{split}") and not job.has(f"yc2c_{split}_release.jsonl")]
        clips = [clip for split in missing for clip in tabled(job, split)]
        if missing and not job.has(SUBTITLES):
            silent = "".join(json.dumps({"vid_name": clip, "sub": []}) + "\n" for clip in clips)
            job.text(f"video/ann/{SUBTITLES}", silent, len(clips), *(f"yc2c-{split}" for split in missing))
            job.note(f"no {SUBTITLES} is at hand: the clips have no subtitles")
        if "val" in missing and not job.has("yc2c_train_release.jsonl"):
            job.note(
                "YouCook2 is published with captions of its val alone; to train on a part of it: "
                "--set 'yc2c.train=val[:80%]' --set yc2c.valid=none --set 'yc2c.test=val[80%:]'"
            )

    return replace(converter, run=run, tables=tuple(TABLES.values()))


def tabled(job: Job, split: str) -> list[str]:
    """The clips of a split, written as VALUE's release."""
    name, schema = f"yc2c-{split}", Described if split == "val" else Segment
    found: list[tuple[str, float, Any]] = []
    for spot, row in job.table(name, schema, key="id"):
        start, end = row["segment"]
        if start >= end:
            job.fault(spot, f"segment: it starts at {start} and ends at {end}")
        found.append((row["youtube_id"], start, row))
    found.sort(key=lambda one: one[:2])
    lines, numbers = [], dict.fromkeys((video for video, *_ in found), -1)
    for number, (video, start, row) in enumerate(found):
        numbers[video] += 1
        clip = {"vid_name": f"{video}_{numbers[video]}", "clip_id": number, "duration": row["segment"][1] - start}
        told = {"descs": [{"desc": row["sentence"], "desc_id": number}]} if split == "val" else {}
        lines.append(clip | {"ts": row["segment"]} | told)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    job.text(f"video/ann/yc2c/yc2c_{split}_release.jsonl", text, len(lines), name)
    return [line["vid_name"] for line in lines]
