"""TVC: descriptions of moments in clips of television shows (Lei et al., ECCV 2020), as VALUE released them.

Files, as in a VL-Adapter workspace: `video/ann/tvc/tvc_<split>_release.jsonl`, `video/ann/tv_subtitles.jsonl`,
`video/vis_features/tv/clip-vit/<clip>.npz`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict

from pet_bench.data.clips import Description, DescriptionTask
from pet_bench.spec import STRICT


class Row(TypedDict):
    clip_id: int
    vid_name: str
    ts: Annotated[list[int | float], Field(min_length=2, max_length=2)]
    descs: list[Description]


@dataclass(frozen=True, config=STRICT)
class TVC(DescriptionTask):
    """Two descriptions a moment in training, four in validation."""

    name: ClassVar = "tvc"
    hub: ClassVar = ("video-text-to-text", "tvc", "TVC")
    folder: ClassVar = "tv"
    row: ClassVar = Row

    prompt: str = "tvc: "

    def annotations(self, root: Path, name: str) -> Path:
        return root / "video" / "ann" / "tvc" / f"tvc_{name}_release.jsonl"

    def parts(self, row):
        return [f"[TS] ({row['ts']})"]
