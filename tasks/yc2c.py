"""YC2C: captions of cooking clips from YouCook2 (Zhou et al., AAAI 2018), as VALUE released them.

Files, as in a VL-Adapter workspace: `video/ann/yc2c/yc2c_<split>_release.jsonl`, `video/ann/yc2_subtitles.jsonl`,
`video/vis_features/yc2/clip-vit/<clip>.npz`.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict

from pet_bench.data.clips import Description, DescriptionTask
from pet_bench.spec import STRICT


class Row(TypedDict):
    clip_id: int
    vid_name: str
    descs: list[Description]


@dataclass(frozen=True, config=STRICT)
class YC2C(DescriptionTask):
    """One caption a clip, so that both units are the same but for the ids."""

    name: ClassVar = "yc2c"
    hub: ClassVar = ("video-text-to-text", "yc2c", "YouCook2 captions")
    folder: ClassVar = "yc2"
    row: ClassVar = Row

    prompt: str = "yc2c: "

    def annotations(self, root: Path, name: str) -> Path:
        return root / "video" / "ann" / "yc2c" / f"yc2c_{name}_release.jsonl"
