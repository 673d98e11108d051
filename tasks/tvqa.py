"""TVQA: questions about clips of television shows (Lei et al., EMNLP 2018), as VALUE released them.

Files, as in a VL-Adapter workspace: `video/ann/tvqa/tvqa_<split>.jsonl`, `video/ann/tv_subtitles.jsonl`,
`video/vis_features/tv/clip-vit/<clip>.npz`.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict

from pet_bench.data.clips import ChoiceTask
from pet_bench.spec import STRICT


class Row(TypedDict):
    qid: int
    vid_name: str
    show_name: str
    ts: str
    q: str
    a0: str
    a1: str
    a2: str
    a3: str
    a4: str
    answer_idx: int


@dataclass(frozen=True, config=STRICT)
class TVQA(ChoiceTask):
    """One of five answers, by its name. The kind of a question is its show."""

    name: ClassVar = "tvqa"
    hub: ClassVar = ("video-text-to-text", "tvqa", "TVQA")
    folder: ClassVar = "tv"
    choices: ClassVar = 5
    row: ClassVar = Row

    prompt: str = "tvqa: "

    def annotations(self, root: Path, name: str) -> Path:
        return root / "video" / "ann" / "tvqa" / f"tvqa_{name}.jsonl"
