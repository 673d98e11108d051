"""NLVR2: the official files, one object a line, as LXMERT has them.

The label is 1 for "True"; the photographs of "dev-1052-0-0" are "dev-1052-0-img0" and "dev-1052-0-img1"; the uid
counts lines. dev becomes `valid`, test1 `test` (TASKS.md 3). The output is LXMERT's, to the byte.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import StringConstraints
from typing_extensions import TypedDict

from pet_bench.data.convert.downloads import Converter, Download
from pet_bench.data.convert.work import Job

SPLITS = {"train": "train", "dev": "valid", "test1": "test"}


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
        name = f"{split}.json"
        if not job.has(name):
            continue
        seen = set()
        with job.rows(f"nlvr/{ours}.json", name, pretty=True) as add:
            for number, (place, row) in enumerate(job.read(name, Row, form="lines")):
                key = row["identifier"]
                if key in seen:
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


NLVR2 = Converter("nlvr2", tuple(map(download, SPLITS)), run)
