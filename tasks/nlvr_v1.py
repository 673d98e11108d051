"""NLVR, version 1: is a statement true of three boxes of coloured shapes (Suhr et al. 2017, ACL P17-2034).

Read as its public repository (lil-lab/nlvr) has it: `nlvr/<split>/<split>.json`, one object a line, and
`nlvr/<split>/images/<directory>/<split>-<identifier>-<permutation>.png`. Where a row names no directory, as those of
`hidden`, its pictures are found by their names. The root may also be `nlvr/` itself. An image shows three boxes of
100 × 100 pixels, 50 pixels apart; its permutations show the same boxes in another order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, NotRequired

import numpy as np
from PIL import Image
from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict

from pet_bench.data.patches import patches
from pet_bench.data.rows import Text, read_json_lines, shown
from pet_bench.data.task import Choose, Example, LeftOut, OptionalSplit, Split, Task
from pet_bench.errors import UserError
from pet_bench.metrics.scores import length_group
from pet_bench.spec import STRICT

SIZE = (400, 100)
BOXES = ((0, 0, 100, 100), (150, 0, 250, 100), (300, 0, 400, 100))
PREFIX = "nlvr-v1"


class Row(TypedDict):
    sentence: Text
    label: Literal["true", "false"]
    identifier: Text
    directory: NotRequired[str]


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

    def read(self, root: Path, name: str, split: Split) -> Iterator[Example | LeftOut]:
        home = _home(root)
        path = home / name / f"{name}.json"
        if not path.is_file():
            here = sorted(folder.name for folder in home.glob("*") if (folder / f"{folder.name}.json").is_file())
            other = f", choose one with --set {self.name}.{split}={here[0]}" if here else ""
            raise UserError(f"{self.name}: no {path}; splits in {home}: {', '.join(here) or 'none'}{other}")
        rows = read_json_lines(self.name, path, Row)
        images = home / name / "images"
        pictures, faults = _pictures(images), []
        for row in rows:
            stem, folder = f"{name}-{row['identifier']}", row.get("directory")
            there = pictures.get(stem, [])
            found = [picture for picture in there if picture.folder == folder] or there
            if not found:
                where = images / folder if folder else images
                yield LeftOut(stem, f"{path}: {row['identifier']} has no image in {where}", missing=True)
            twice = {one.place for one, other in pairwise(found) if one.permutation == other.permutation}
            faults += [f"{self.name}: {path}: the image {place} is in another folder too" for place in sorted(twice)]
            for picture in found if split == "train" else found[:1]:
                key = f"{PREFIX}/{name}/images/{picture.place}"
                yield Example(
                    id=f"{stem}-{picture.permutation}",
                    text=self.prompt + row["sentence"],
                    images=tuple(f"{key}#{box}" for box in range(len(BOXES))),
                    targets=((row["label"], 1.0),),
                    references={"label": row["label"], "group": f"{name}-{row['identifier'].split('-')[0]}"},
                    groups={"length": length_group(row["sentence"])},
                )
        if faults:
            raise shown(faults, f"{self.name}: {path}")

    def feature_path(self, root: Path | str, key: str) -> Path:
        """A key is `nlvr-v1/<path of the PNG>#<box>`."""
        return _home(root) / key.removeprefix(f"{PREFIX}/").rsplit("#", 1)[0]

    def picture(self, root: Path | str, key: str) -> tuple[Path, str]:
        """Folder and name, the boxes' pictures being in `<split>/images`."""
        split, _, place = key.removeprefix(f"{PREFIX}/").rsplit("#", 1)[0].split("/", 2)
        return _home(root) / split, place

    def seen(self, picture: Image.Image, key: str) -> Image.Image:
        """The box."""
        if picture.size != SIZE:
            raise ValueError(f"the image has {picture.size} pixels, expected {SIZE}")
        return picture.crop(BOXES[int(key.rsplit("#", 1)[1])])

    def feature(self, root: Path | str, key: str) -> np.ndarray:
        with Image.open(self.feature_path(root, key)) as image:
            return patches(self.seen(image, key))


def _home(root: Path | str) -> Path:
    root = Path(root)
    return root / "nlvr" if (root / "nlvr").is_dir() else root


class Picture(NamedTuple):
    """place, folder: below `images`."""

    permutation: int
    place: str
    folder: str


def _pictures(images: Path) -> dict[str, list[Picture]]:
    """The pictures of every file name without its permutation, in the order of those."""
    found = defaultdict(list)
    for path in images.rglob("*.png"):
        stem, _, permutation = path.stem.rpartition("-")
        if permutation.isdigit():
            place = path.relative_to(images)
            found[stem].append(Picture(int(permutation), place.as_posix(), place.parent.as_posix()))
    return {stem: sorted(pictures) for stem, pictures in found.items()}
