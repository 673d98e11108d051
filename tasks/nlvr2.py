"""NLVR2: is a statement true of a pair of photographs (Suhr et al. 2019, arXiv:1811.00491).

Files, as in a VL-Adapter workspace: `nlvr/{train,valid,test}.json` in LXMERT's format (valid is the official dev,
test the official test1), `nlvr/clip_features/…/<image>.h5`. Where rows do not name their two images, the identifier
does. The official files, one object a line, are read too (`valid="dev"`, `test="test1"`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal, NotRequired

from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict

from pet_bench.data.rows import Flag, Text, read_json, read_json_lines, starts_with
from pet_bench.data.task import Choose, Example, OptionalSplit, Split, Task
from pet_bench.errors import UserError
from pet_bench.metrics.nlvr_accuracy import sentence_of
from pet_bench.metrics.scores import length_group
from pet_bench.spec import STRICT

ANSWERS = ("true", "false")


class Row(TypedDict):
    identifier: str
    img0: NotRequired[Text]
    img1: NotRequired[Text]
    label: Flag
    sent: Text


class OfficialRow(TypedDict):
    identifier: str
    label: Literal["True", "False"]
    sentence: Text


def from_official(row: OfficialRow) -> Row:
    return {"identifier": row["identifier"], "label": 1 if row["label"] == "True" else 0, "sent": row["sentence"]}


@dataclass(frozen=True, config=STRICT)
class NLVR2(Task):
    """True or false, by comparing the two words after one decoder pass. The text is never cut."""

    name: ClassVar = "nlvr2"
    hub: ClassVar = ("image-text-to-text", "nlvr2", "NLVR2")
    batch_ratio: ClassVar = 20 / 60
    decoding: ClassVar = Choose(ANSWERS)
    metric: ClassVar = "nlvr-accuracy"
    closed: ClassVar = True
    origins: ClassVar = {
        "nlvr/*.json": "VL-Adapter's data package, folder nlvr; or the lil-lab/nlvr repository, folder nlvr2/data",
        "nlvr/clip_features": "VL-Adapter's data package, folder nlvr; the photographs on request, see lil-lab/nlvr",
    }

    prompt: str = "nlvr: "
    train: str = "train"
    valid: OptionalSplit = "valid"
    test: str = "test"

    def sources(self, root: Path, split: Split) -> list[Path]:
        return [root / "nlvr" / f"{name}.json" for name in self.names(split)]

    def read(self, root: Path, name: str, split: Split) -> Iterator[Example]:
        path = root / "nlvr" / f"{name}.json"
        if starts_with(path, b"{"):
            rows = [from_official(row) for row in read_json_lines(self.name, path, OfficialRow)]
        else:
            rows = read_json(self.name, path, list[Row])
        for i, row in enumerate(rows):
            key = row["identifier"]
            if key.count("-") != 3:
                raise UserError(f"{self.name}: {path}: row {i}: identifier must have four fields, found {key!r}")
            answer = "true" if row["label"] else "false"
            pair = key.rpartition("-")[0]
            yield Example(
                id=key,
                text=self.prompt + row["sent"],
                images=tuple(f"nlvr/{row.get(image, f'{pair}-{image}')}" for image in ("img0", "img1")),
                targets=((answer, 1.0),),
                references={"label": answer, "group": sentence_of(key)},
                groups={"length": length_group(row["sent"])},
            )
