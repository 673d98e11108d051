"""TVQA, How2QA, TVC and YC2C: the releases are read as they are; they are checked and put in their places.

The files are VALUE's; for TVQA and TVC the authors' are the same under the same names, but for the subtitles, which
TVR's authors call `tvqa_preprocessed_subtitles.jsonl` (TASKS.md 5 to 8). Splits without answers are taken along, for
predictions.

TVC's files can no longer be had. YouCook2's, of which YC2C is made, are on the hub as a table (`youcook2`).
"""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from pet_bench.data.convert import youcook2
from pet_bench.data.convert.downloads import Converter, Download
from pet_bench.data.convert.work import Job
from pet_bench.data.rows import Text

HOW2QA_CSV = (
    "the authors' CSV is of other questions and another split, on videos by their YouTube names, for which the clips' "
    "features and subtitles have no match; get how2qa_*_release.jsonl of the VALUE benchmark"
)

TVC_GONE = (
    "its files can no longer be had: their pages are gone, and the authors of VL-PET have no copy (HenryHZY/VL-PET#6); "
    "of captions of video, yc2c takes its place (lmms-eval/YouCook2 on the hub), and of images coco-caption"
)


class Line(TypedDict):
    text: str


class Subtitles(TypedDict):
    vid_name: str
    sub: list[Line]


class Asked4(TypedDict):
    qid: int
    vid_name: str
    ts: str
    q: str
    a0: str
    a1: str
    a2: str
    a3: str


class Answered4(Asked4):
    answer_idx: Annotated[int, Field(ge=0, le=3)]


class Asked5(Asked4):
    a4: str
    show_name: NotRequired[str]


class Answered5(Asked5):
    answer_idx: Annotated[int, Field(ge=0, le=4)]


class Description(TypedDict):
    desc: Text
    desc_id: int


class Clip(TypedDict):
    vid_name: str
    clip_id: int


class Moment(Clip):
    ts: Annotated[list[float], Field(min_length=2, max_length=2)]


class DescribedClip(Clip):
    descs: Annotated[list[Description], Field(min_length=1)]


class DescribedMoment(Moment):
    descs: Annotated[list[Description], Field(min_length=1)]


def converter(
    task: str,
    subtitles: Download,
    known: tuple[tuple[str, ...], Any],
    hidden: tuple[tuple[str, ...], Any],
    refused: tuple[tuple[str, str], ...] = (),
    gone: str = "",
) -> Converter:
    """The converter of a task's files that have answers, and of those that have none, each with the rows' schema."""
    schemas = {name: schema for names, schema in (known, hidden) for name in names}
    spoken = subtitles.place.rpartition("/")[2]

    def run(job: Job) -> None:
        clips = _said(job, spoken) if job.has(spoken) else None
        clips = None if spoken in job.torn else clips
        for name, schema in schemas.items():
            if job.has(name):
                _check(job, name, schema, clips)
                job.place(name)
        if job.has(spoken):
            job.place(spoken)

    files = (Download(f"video/ann/{task}/{name}", needed=name in known[0]) for name in schemas)
    return Converter(task, (*files, subtitles), run, refused, gone=gone)


def _said(job: Job, name: str) -> set[str]:
    """The clips that have subtitles."""
    found: dict[str, int] = {}
    for place, row in job.read(name, Subtitles, form="lines"):
        if found.setdefault(row["vid_name"], said := hash(str(row["sub"]))) != said:
            job.fault(name, f"{place}: clip {row['vid_name']!r} occurs twice, with different subtitles")
    return set(found)


def _check(job: Job, name: str, schema: Any, clips: set[str] | None) -> None:
    """Nothing may have an id twice, and every clip must have subtitles, where those are there."""
    seen: set[tuple[str, int]] = set()
    for place, row in job.read(name, schema, form="lines"):
        ids = [(key, row[key]) for key in ("qid", "clip_id") if key in row]
        for key, value in ids + [("desc_id", description["desc_id"]) for description in row.get("descs", ())]:
            if (key, value) in seen:
                job.fault(name, f"{place}: {key} {value} occurs twice")
            seen.add((key, value))
        if clips is not None and row["vid_name"] not in clips:
            job.fault(name, f"{place}: clip {row['vid_name']!r} has no subtitles")


TV = Download("video/ann/tv_subtitles.jsonl", ("tvqa_preprocessed_subtitles.jsonl", "tv_subtitles.jsonl"), shared=True)
HOW2 = Download("video/ann/how2_subtitles.jsonl", shared=True)
YC2 = Download("video/ann/yc2_subtitles.jsonl", shared=True)

TVQA = converter(
    "tvqa",
    TV,
    (("tvqa_train.jsonl", "tvqa_val.jsonl"), Answered5),
    (("tvqa_test_public.jsonl", "tvqa_test_release.jsonl"), Asked5),
)
HOW2QA = converter(
    "how2qa",
    HOW2,
    (("how2qa_train_release.jsonl", "how2qa_val_release.jsonl"), Answered4),
    (("how2qa_test_public_release.jsonl",), Asked4),
    (("how2qa_*_release*.csv", HOW2QA_CSV),),
)
TVC = converter(
    "tvc",
    TV,
    (("tvc_train_release.jsonl", "tvc_val_release.jsonl"), DescribedMoment),
    (("tvc_test_release.jsonl", "tvc_test_public_release.jsonl"), Moment),
    gone=TVC_GONE,
)
YC2C = youcook2.beside(
    converter(
        "yc2c",
        YC2,
        (("yc2c_train_release.jsonl", "yc2c_val_release.jsonl"), DescribedClip),
        (("yc2c_test_release.jsonl",), Clip),
    )
)
