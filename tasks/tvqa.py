"""TVQA: questions about clips of television shows (Lei et al., EMNLP 2018), as VALUE released them.

Files, as in a VL-Adapter workspace: `video/ann/tvqa/tvqa_<split>.jsonl`, `video/ann/tv_subtitles.jsonl`,
`video/vis_features/tv/clip-vit/<clip>.npz`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar, NotRequired

from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict

from pet_bench.data.clips import ChoiceTask
from pet_bench.spec import STRICT


class Row(TypedDict):
    qid: int
    vid_name: str
    show_name: NotRequired[str]
    ts: str
    q: str
    a0: str
    a1: str
    a2: str
    a3: str
    a4: str
    answer_idx: int


# by the beginning of a clip's name, as the files have it; clips of the first begin with season and episode
SHOWS = {
    "": "The Big Bang Theory",
    "castle": "Castle",
    "friends": "Friends",
    "grey": "Grey's Anatomy",
    "house": "House M.D.",
    "met": "How I Met You Mother",
}


@dataclass(frozen=True, config=STRICT)
class TVQA(ChoiceTask):
    """One of five answers, by its name. The kind of a question is its show, which its clip's name tells."""

    name: ClassVar = "tvqa"
    hub: ClassVar = ("video-text-to-text", "tvqa", "TVQA")
    folder: ClassVar = "tv"
    choices: ClassVar = 5
    row: ClassVar = Row

    prompt: str = "tvqa: "

    def annotations(self, root: Path, name: str) -> Path:
        return root / "video" / "ann" / "tvqa" / f"tvqa_{name}.jsonl"

    def kind(self, row):
        start = re.match(r"(?:([a-z]+)_)?s\d+e\d+", row["vid_name"])
        return row.get("show_name") or (SHOWS.get(start[1] or "", "") if start else "")
