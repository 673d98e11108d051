"""NLVR2: the official files, one object a line, as LXMERT has them.

The label is 1 for "True"; the photographs of "dev-1052-0-0" are "dev-1052-0-img0" and "dev-1052-0-img1"; the uid
counts lines. dev becomes `valid`, test1 `test` (TASKS.md 3). The output is LXMERT's, to the byte.

The hub's rows of the_cauldron, training only, ask in one of several ways whether a statement in quotation marks is
true of two pictures, and answer "Yes." or "No.". They become the split `hub_train`, where no two rows are known to have
one statement, so that consistency means nothing. What other tables of the hub look like is not known: they are read
only where their columns are the official ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import StringConstraints
from typing_extensions import TypedDict

from pet_bench.data.convert.cauldron import layout, turns
from pet_bench.data.convert.downloads import Converter, Download
from pet_bench.data.convert.tables import Layout, Spot
from pet_bench.data.convert.work import Job

SPLITS = {"train": "train", "dev": "valid", "test1": "test"}
ROWS = {
    split: Layout(
        f"nlvr2-{split}",
        {"identifier": "string", "label": "string", "sentence": "string"},
        split=pattern,
        others=(
            "left_url", "right_url", "left_image", "right_image", "writer", "validations", "extra_validations",
            "synset", "query", "directory",
        ),
        instead=(f"{split}.json",),
        origin="the lil-lab/nlvr repository, nlvr2/data/*.json",
    )
    for split, pattern in {"train": "train*", "dev": "dev*", "test1": "test1*"}.items()
}  # fmt: skip
TRAIN = layout(
    "nlvr2-hub-train", "nlvr2", instead=("train.json",), origin="HuggingFaceM4/the_cauldron, nlvr2/*.parquet"
)
ANSWERS = {"Yes.": 1, "No.": 0}


class Row(TypedDict):
    identifier: Annotated[str, StringConstraints(pattern=r"^[^-]+-\d+-\d+-\d+$")]
    label: Literal["True", "False"]
    sentence: str


def download(split: str) -> Download:
    """NLVR v1 and converted files have the same names."""
    mark = re.compile(rb'\s*\{.*?"identifier":\s*"%b(-\d+){3}"' % split.encode(), re.DOTALL)
    names = f"nlvr2/data/{split}.json", f"{split}.json", f"{split}.jsonl"
    return Download(f"nlvr/{split}.json", names, mark)


def run(job: Job) -> None:
    for split, ours in SPLITS.items():
        name = next((name for name in (f"{split}.json", f"nlvr2-{split}") if job.has(name)), None)
        if name is None:
            continue
        tabled = name in job.tables
        found: Iterator[tuple[Spot | str, Any]]
        found = job.table(name, Row) if tabled else job.read(name, Row, form="lines")
        seen = set()
        with job.rows(f"nlvr/{ours}.json", name, pretty=True) as add:
            for number, (place, row) in enumerate(found):
                key = row["identifier"]
                if key in seen and isinstance(place, Spot):
                    job.fault(place, f"identifier {key!r} occurs twice")
                elif key in seen:
                    job.fault(name, f"{place}: identifier {key!r} occurs twice")
                seen.add(key)
                pair = key.rpartition("-")[0]
                add(
                    {
                        "identifier": key,
                        "img0": f"{pair}-img0",
                        "img1": f"{pair}-img1",
                        "label": int(row["label"] == "True"),
                        "sent": row["sentence"],
                        "uid": f"nlvr2_{ours}_{number}",
                    }
                )

    if job.has(TRAIN.name) and not job.has("train.json") and not job.has("nlvr2-train"):
        cauldron(job)


def cauldron(job: Job) -> None:
    """Statements about two pictures, in the_cauldron's words."""
    with job.rows("nlvr/hub_train.json", TRAIN.name) as add, job.album("nlvr", TRAIN.name) as picture:
        named = ""
        for turn in turns(job, TRAIN.name, pictures=2):
            quoted = turn.user.partition('"')[2].rpartition('"')[0]
            if not quoted.strip():
                job.fault(turn.spot, f"texts: no statement in quotation marks, found {turn.user[:60]!r}")
            elif turn.assistant not in ANSWERS:
                job.fault(turn.spot, f"texts: assistant is {turn.assistant[:60]!r}, expected one of {[*ANSWERS]}")
            else:
                pair = [f"{turn.row}-img{i}" for i in range(2)]
                add(
                    {
                        "identifier": f"hub-{turn.row.replace('-', '.')}-0-{turn.key.rpartition('-')[2]}",
                        "img0": pair[0],
                        "img1": pair[1],
                        "label": ANSWERS[turn.assistant],
                        "sent": quoted,
                    }
                )
                for item, name in enumerate(pair if named != turn.row else ()):
                    picture(name, turn.spot, "images", item)
                named = turn.row
    job.protocol["train"] = "hub_train"


NLVR2 = Converter("nlvr2", tuple(map(download, SPLITS)), run, tables=(*ROWS.values(), TRAIN))
