"""Captions of images on Karpathy's splits (Karpathy and Fei-Fei 2015), as his `dataset_<name>.json` files have them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, NotRequired

from pydantic import Field
from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict

from pet_bench.data.captions import CaptionTask
from pet_bench.data.rows import named, read_json, shown
from pet_bench.data.task import Example, Generate, Split
from pet_bench.errors import unknown
from pet_bench.metrics.cider import medoid
from pet_bench.metrics.scores import length_group
from pet_bench.spec import STRICT


class Sentence(TypedDict):
    raw: str


class Image(TypedDict):
    filename: NotRequired[str]
    filepath: NotRequired[str]
    cocoid: NotRequired[int]
    split: str
    sentences: list[Sentence]


class Captions(TypedDict):
    images: list[Image]


SPLITS = {"train", "restval", "val", "test"}


@dataclass(frozen=True, config=STRICT)
class KarpathyTask(CaptionTask):
    """The prompt is the whole text. Training has an example per caption, validation and testing one per image.

    folder: where, below the root, everything lies. file: its annotations' name. max_length: of generated captions,
    special tokens included.
    """

    loss: ClassVar = "token-mean"
    max_text: ClassVar = 40
    max_target: ClassVar = 40
    batch_ratio: ClassVar = 50 / 60
    folder: ClassVar[str]
    file: ClassVar[str]

    prompt: str = "caption: "
    max_length: int = Field(default=40, ge=3, le=1024)

    @property
    def decoding(self) -> Generate:  # type: ignore[override]  # an option here, a fact elsewhere
        return Generate(num_beams=5, max_length=self.max_length)

    def sources(self, root: Path, split: Split) -> list[Path]:
        return [root / self.folder / self.file]

    def read(self, root: Path, name: str, split: Split) -> Iterator[Example]:
        path = self.sources(root, split)[0]
        where = f"{self.name}: {path}"
        rows = [named(row) for row in read_json(self.name, path, Captions)["images"]]
        nameless = [f"{where}: images.row {i}.filename is missing" for i, image in enumerate(rows) if not image]
        if nameless:
            raise shown(nameless, where)
        images = [image for image in rows if image]
        chosen = [image for image in images if image["split"] == name]
        there = {image["split"] for image in images}
        if not chosen and not {name, *there} <= SPLITS:  # of Karpathy's, a part of the data may have none
            raise unknown(f"{self.name} split in {path}", name, there)
        twice = {name for name, count in Counter(image["filename"] for image in images).items() if count > 1}
        said = [f"{name} occurs more than once" for name in sorted(twice & {image["filename"] for image in chosen})]
        said += [f"{image['filename']} has no captions" for image in chosen if not image["sentences"]]
        said += [
            f"{image['filename']} has an empty caption (sentences.row {i}.raw)"
            for image in chosen
            for i, sentence in enumerate(image["sentences"])
            if not sentence["raw"].strip()
        ]
        if said:
            raise shown((f"{where}: {fault}" for fault in said), where)
        for image in chosen:
            captions = [sentence["raw"].strip() for sentence in image["sentences"]]
            key, features = str(image["cocoid"]), (f"{self.folder}/{Path(image['filename']).stem}",)
            if split == "train":
                for i, caption in enumerate(captions):
                    yield Example(f"{key}-{i}", self.prompt, features, ((caption, 1.0),))
            else:
                groups = {"length": length_group(*captions)}
                yield Example(key, self.prompt, features, ((captions[0], 1.0),), {"captions": captions}, groups=groups)

    def constant_answer(self, examples: Sequence[Example]) -> str:
        """The medoid of the training captions, since few captions occur twice."""
        return medoid([caption for example in examples for caption, _ in example.targets])
