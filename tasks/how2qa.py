"""How2QA: questions about instructional clips (Li et al., EMNLP 2020), as VALUE released them.

Files, as in a VL-Adapter workspace: `video/ann/how2qa/how2qa_<split>_release.jsonl`,
`video/ann/how2_subtitles.jsonl`, `video/vis_features/how2/clip-vit/<clip>.npz`. The authors' own CSV is another split.
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
    ts: str
    q: str
    a0: str
    a1: str
    a2: str
    a3: str
    answer_idx: int


@dataclass(frozen=True, config=STRICT)
class How2QA(ChoiceTask):
    """One of four answers, by its name."""

    name: ClassVar = "how2qa"
    hub: ClassVar = ("video-text-to-text", "how2qa", "How2QA")
    folder: ClassVar = "how2"
    choices: ClassVar = 4
    row: ClassVar = Row

    prompt: str = "how2qa: "

    def annotations(self, root: Path, name: str) -> Path:
        return root / "video" / "ann" / "how2qa" / f"how2qa_{name}_release.jsonl"
