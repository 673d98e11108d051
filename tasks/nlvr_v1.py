"""NLVR, version 1: is a statement true of three boxes of coloured shapes (Suhr et al. 2017, ACL P17-2034).

Read as its public repository (lil-lab/nlvr) has it: `nlvr/<split>/<split>.json`, one object a line, and
`nlvr/<split>/images/<directory>/<split>-<identifier>-<permutation>.png`. The root may also be `nlvr/` itself. An image
shows three boxes of 100 × 100 pixels, 50 pixels apart; its permutations show the same boxes in another order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict

from pet_bench.data.patches import patches
from pet_bench.data.rows import read_json_lines, shown
from pet_bench.data.task import Choose, Example, OptionalSplit, Split, Task
from pet_bench.errors import UserError
from pet_bench.metrics.scores import length_group
from pet_bench.spec import STRICT

SIZE = (400, 100)
BOXES = ((0, 0, 100, 100), (150, 0, 250, 100), (300, 0, 400, 100))
PREFIX = "nlvr-v1"


class Row(TypedDict):
    sentence: str
    label: Literal["true", "false"]
    identifier: str
    directory: str


@dataclass(frozen=True, config=STRICT)
class NLVRv1(Task):
    """Three images an example, one a box, each as raw pixel patches. True or false as in NLVR2.

    Which permutations are there varies: training takes each as an example of its own, validation and testing the first
    one only. Consistency is over the images of one sentence. valid "none" trains without validation.
    """

    name: ClassVar = "nlvr-v1"
    hub: ClassVar = ("image-text-to-text", "nlvr", "NLVR")
    decoding: ClassVar = Choose(("true", "false"))
    metric: ClassVar = "nlvr-accuracy"
    closed: ClassVar = True
    origins: ClassVar = {"*": "the lil-lab/nlvr repository, folder nlvr (annotations and images)"}

    prompt: str = "nlvr: "
    train: str = "train"
    valid: OptionalSplit = "dev"
    test: str = "test"

    def sources(self, root: Path, split: Split) -> list[Path]:
        return [_home(root) / name / f"{name}.json" for name in self.names(split)]

    def read(self, root: Path, name: str, split: Split) -> Iterator[Example]:
        home = _home(root)
        path = home / name / f"{name}.json"
        if not path.is_file():
            here = sorted(folder.name for folder in home.glob("*") if (folder / f"{folder.name}.json").is_file())
            other = f", choose one with --set {self.name}.{split}={here[0]}" if here else ""
            raise UserError(f"{self.name}: no {path}; splits in {home}: {', '.join(here) or 'none'}{other}")
        rows = read_json_lines(self.name, path, Row)
        pictures = _pictures(home / name / "images", {row["directory"] for row in rows})
        missing = [
            f"{self.name}: {path}: {row['identifier']} has no image in {home / name / 'images' / row['directory']}"
            for row in rows
            if (row["directory"], f"{name}-{row['identifier']}") not in pictures
        ]
        if missing:
            raise shown(missing, f"{self.name}: {path}")
        for row in rows:
            stem = f"{name}-{row['identifier']}"
            found = sorted(pictures[row["directory"], stem])
            for permutation in found if split == "train" else found[:1]:
                key = f"{PREFIX}/{name}/images/{row['directory']}/{stem}-{permutation}.png"
                yield Example(
                    id=f"{stem}-{permutation}",
                    text=self.prompt + row["sentence"],
                    images=tuple(f"{key}#{box}" for box in range(len(BOXES))),
                    targets=((row["label"], 1.0),),
                    references={"label": row["label"], "group": f"{name}-{row['identifier'].split('-')[0]}"},
                    groups={"length": length_group(row["sentence"])},
                )

    def feature_path(self, root: Path | str, key: str) -> Path:
        """A key is `nlvr-v1/<path of the PNG>#<box>`."""
        return _home(root) / key.removeprefix(f"{PREFIX}/").rsplit("#", 1)[0]

    def feature(self, root: Path | str, key: str) -> np.ndarray:
        with Image.open(self.feature_path(root, key)) as image:
            if image.size != SIZE:
                raise ValueError(f"the image has {image.size} pixels, expected {SIZE}")
            return patches(image.crop(BOXES[int(key.rsplit("#", 1)[1])]))


def _home(root: Path | str) -> Path:
    root = Path(root)
    return root / "nlvr" if (root / "nlvr").is_dir() else root


def _pictures(folder: Path, directories: set[str]) -> dict[tuple[str, str], list[int]]:
    """Permutations by (directory, file name without permutation)."""
    found = defaultdict(list)
    for directory in directories:
        for path in (folder / directory).glob("*.png"):
            stem, _, permutation = path.stem.rpartition("-")
            if permutation.isdigit():
                found[directory, stem].append(int(permutation))
    return found
