"""A task, its metric and its suite in one loose file: how many cells of a small picture have a colour.

pet-bench list tasks --plugin examples/counting.py
pet-bench run --suite counting --method vl-adapter --plugin examples/counting.py --out results/counting
pet-bench report results/counting --plugin examples/counting.py

Files, of 3 × 3 pictures: `counting/{train,valid,test}.csv` with the columns id, picture, colour and count, and
`counting/pictures/<picture>.txt`, three lines of three letters. The suite draws its own, so that it needs no --data.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import ClassVar

import numpy as np
from pydantic.dataclasses import dataclass

from pet_bench.data.cache import cache_dir
from pet_bench.data.suite import Suite
from pet_bench.data.task import Example, Generate, OptionalSplit, Split, Task
from pet_bench.errors import UserError
from pet_bench.files import read_text, write_text
from pet_bench.metrics.scores import Scorable, Scores, mean, paired
from pet_bench.spec import STRICT, Visual

COLOURS = {"r": "red", "g": "green", "b": "blue"}
SIDE, COUNTS = 3, range(5)  # counts whose words the mini backbones know
PICTURES = {"train": 400, "valid": 40, "test": 100}


@dataclass(frozen=True, config=STRICT)
class Counting(Task):
    """A number for an answer. A feature is a picture's cells, each one-hot over `COLOURS`: (9, 3)."""

    name: ClassVar = "counting"
    metric: ClassVar = "within-one"
    decoding: ClassVar = Generate(max_length=4)

    prompt: str = "vqa: "
    train: str = "train"
    valid: OptionalSplit = "valid"
    test: str = "test"

    def sources(self, root: Path, split: Split) -> list[Path]:
        return [root / "counting" / f"{name}.csv" for name in self.names(split)]

    def read(self, root: Path, name: str, split: Split) -> Iterator[Example]:
        path = root / "counting" / f"{name}.csv"
        for number, row in enumerate(csv.DictReader(io.StringIO(read_text(path, self.name))), start=2):
            if (
                None in row.values()
                or row.keys() != {"id", "picture", "colour", "count"}
                or not row["count"].isdecimal()
            ):
                raise UserError(f"{self.name}: {path}: line {number}: expected id,picture,colour,count, found {row}")
            yield Example(
                id=row["id"],
                text=f"{self.prompt}how many {row['colour']} squares are there?",
                images=(f"counting/{row['picture']}",),
                targets=((row["count"], 1.0),),
                references={"count": int(row["count"])},
                kind=row["colour"],
                groups={} if split == "train" else {"colour": row["colour"]},
            )

    def feature_path(self, root: Path, key: str) -> Path:
        folder, picture = key.split("/")
        return Path(root) / folder / "pictures" / f"{picture}.txt"

    def feature(self, root: Path, key: str) -> np.ndarray:
        cells = "".join(read_text(self.feature_path(root, key), self.name).split())
        return np.array([[float(cell == colour) for colour in COLOURS] for cell in cells], np.float32)


class WithinOne:
    """Accuracy, and how often the answer is a number at most one off.

    An example's references: `{"count": 3}`.
    """

    plugin_kind = "metric"
    name = "within-one"

    def __call__(self, predictions: dict[str, str], examples: Sequence[Scorable]) -> Scores:
        right, near = {}, []
        for prediction, example in paired(self.name, predictions, examples):
            off = abs(int(prediction) - example.references["count"]) if prediction.isdecimal() else None
            right[example.id] = 100.0 * (off == 0)
            near.append(100.0 * (off in (0, 1)))
        return Scores({"accuracy": mean(list(right.values())), "within-one": mean(near)}, right)


def draw() -> Path:
    """The pictures and the questions, made once in the cache."""
    root, rng = cache_dir() / "counting-1", Random(0)
    for split, number in PICTURES.items():
        rows = [["id", "picture", "colour", "count"]]
        for i in range(number):
            colour, count = rng.choice([*COLOURS]), rng.choice(COUNTS)
            others = [letter for letter in COLOURS if letter != colour]
            cells = [colour] * count + rng.choices(others, k=SIDE**2 - count)
            rng.shuffle(cells)
            picture = f"{split}-{i}"
            lines = ("".join(cells[at : at + SIDE]) for at in range(0, SIDE**2, SIDE))
            rows.append([picture, picture, COLOURS[colour], count])
            _keep(root / "counting" / "pictures" / f"{picture}.txt", "\n".join(lines))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        _keep(root / "counting" / f"{split}.csv", text.getvalue())
    return root


def _keep(path: Path, text: str) -> None:
    """Written once: what features are packed from is told by its time too."""
    if not path.exists():
        write_text(path, text)


SUITE = Suite(
    name="counting",
    tasks=("counting",),
    visual=Visual(width=len(COLOURS), tokens=SIDE**2, pooled=SIDE**2, images=1),
    embedded=draw,
)
