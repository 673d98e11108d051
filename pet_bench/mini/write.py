"""Write the world to disk, in the layout and the file formats of the real data sets."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np
from PIL.Image import Image

from pet_bench.data.patches import patches
from pet_bench.files import filling
from pet_bench.mini.language import (
    GQA,
    VQA,
    WORDINGS,
    Question,
    Statement,
    Wording,
    annotators,
    captions,
    pair,
    questioned,
    soft_label,
)
from pet_bench.mini.world import COLORS, SHAPES, SIZES, Scene, draw

FEATURES = "clip_features/data_clip_RN101_att"  # where users of the real data have theirs
WORDS = (*SIZES, *COLORS, *SHAPES, "left", "right", "above", "below")
AHEAD = 256  # images drawn and not yet written, at most
ANSWERS = ("", "yes", "no", "0", "1", "2", "3", "4", *WORDS)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Sizes:
    """Images (COCO, VG, GQA) and sentence sets (NLVR2) per split.

    Every COCO, VG and GQA image has `per_image` questions; COCO images have five captions. An NLVR2 set is
    two sentences over the same four image pairs: eight images, eight examples.
    """

    coco_train: int = 400
    coco_restval: int = 40
    coco_val: int = 40
    coco_test: int = 100
    vg_train: int = 400
    vg_valid: int = 40
    gqa_testdev: int = 100
    nlvr_train: int = 100
    nlvr_valid: int = 25
    nlvr_test: int = 63
    per_image: int = 5

    @property
    def images(self) -> int:
        coco = self.coco_train + self.coco_restval + self.coco_val + self.coco_test
        gqa = self.vg_train + self.vg_valid + self.gqa_testdev
        return coco + gqa + 8 * (self.nlvr_train + self.nlvr_valid + self.nlvr_test)


SECOND = Sizes(
    coco_train=800, coco_restval=80, coco_val=100, coco_test=500, vg_train=800, vg_valid=100, gqa_testdev=400,
    nlvr_train=200, nlvr_valid=63, nlvr_test=250,
)  # fmt: skip
"""Twice as much to learn from, four to five times as many questions and captions to be tested on."""


def write_image_text(
    root: Path,
    *,
    seed: int = 0,
    sizes: Sizes | None = None,
    progress: Progress | None = None,
    extract: Callable[[Image], np.ndarray] = patches,
    wordings: Sequence[Wording] = WORDINGS,
) -> None:
    """Write the four image-text tasks under `root`, which must not exist yet or be empty.

    The layout is that of a VL-Adapter workspace: ``COCO/``, ``VG/``, ``GQA/``, ``nlvr/``, ``vqa/``. Each
    image has one ``<folder>/clip_features/data_clip_RN101_att/<IMG>.h5`` with ``<IMG>/features`` (36, 192)
    float16, made by `extract` (see `pet_bench.data.patches`), and one ``<folder>/images/<IMG>.png`` of the same pixels.
    ``scenes.json`` holds what was drawn, ``{image: [[cell, size, color, shape], ...]}``, which no task
    reads.

    wordings: of captions. The same (seed, sizes, wordings) gives the same text and pixels. Everything is
    written beside `root` first and renamed into place, so an interrupted call leaves nothing half-made.
    `progress(done, total)` is called once an image.

    Raises `FileExistsError` if `root` holds anything.
    """
    with filling(root) as draft:
        Writer(draft, seed, sizes or Sizes(), progress, extract, wordings).write()


class Writer:
    """One world in the making."""

    def __init__(
        self,
        root: Path,
        seed: int,
        sizes: Sizes,
        progress: Progress | None,
        extract: Callable[[Image], np.ndarray] = patches,
        wordings: Sequence[Wording] = WORDINGS,
    ):
        self.root, self.sizes, self.progress, self.extract, self.wordings = root, sizes, progress, extract, wordings
        self.rng = Random(seed)
        self.pixels = np.random.default_rng(seed)
        self.scenes: dict[str, Scene] = {}
        self.made: dict[int, tuple[bytes, int, int]] = {}  # length of a name → a file, where name and numbers are
        self.writers, self.writing = ThreadPoolExecutor(2), deque[Future[None]]()

    def write(self) -> None:
        for folder in ("COCO", "VG", "GQA", "nlvr"):
            (self.root / folder / FEATURES).mkdir(parents=True)
            (self.root / folder / "images").mkdir()
        with self.writers:  # compressing takes most of an image's time, and lets the next be drawn meanwhile
            self.coco_and_vqa()
            self.gqa()
            self.nlvr()
            while self.writing:
                self.writing.popleft().result()
        self.json("scenes.json", {image: scene.to_json() for image, scene in self.scenes.items()})

    def json(self, path: str, value: object) -> None:
        file = self.root / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(value), encoding="utf-8")

    def image(self, folder: str, name: str, scene: Scene) -> None:
        self.writing.append(self.writers.submit(self.files, folder, name, draw(scene, self.pixels)))
        if len(self.writing) > AHEAD:
            self.writing.popleft().result()
        self.scenes[name] = scene
        if self.progress:
            self.progress(len(self.scenes), self.sizes.images)

    def files(self, folder: str, name: str, picture: Image) -> None:
        picture.save(self.root / folder / "images" / f"{name}.png")
        self.features(self.root / folder / FEATURES / f"{name}.h5", name, self.extract(picture))

    def features(self, path: Path, name: str, values: np.ndarray) -> None:
        """Write `<name>/features`, to the byte as h5py does.

        That takes it as long as all else of an image. So it writes one file for each length of a name; the others are
        that one with their own name and numbers in their places.
        """
        text, numbers = name.encode(), values.tobytes()
        if len(text) in self.made:
            content, at, data = self.made[len(text)]
            head = content[:at] + text + content[at + len(text) : data]
            path.write_bytes(head + numbers + content[data + len(numbers) :])
            return
        with h5py.File(path, "w", locking=False) as file:
            data = file.create_dataset(f"{name}/features", data=values).id.get_offset()
        content = path.read_bytes()
        at = content.find(b"\0" + text + b"\0") + 1
        if 0 < at < data and content.count(b"\0" + text + b"\0") == 1:  # a short name may look like a number
            self.made[len(text)] = content, at, data

    def answers(self, folder: str) -> None:
        self.json(f"{folder}/trainval_ans2label.json", {answer: i for i, answer in enumerate(ANSWERS)})
        self.json(f"{folder}/trainval_label2ans.json", ANSWERS)

    def coco_and_vqa(self) -> None:
        images: list[dict[str, Any]] = []
        annotations: dict[str, list[dict[str, Any]]] = {"train2014": [], "val2014": []}
        items: dict[str, list] = {"train": [], "val": [], "test": []}
        sentences = 0
        for split in ("train", "restval", "val", "test"):
            part = "train2014" if split == "train" else "val2014"
            for _ in range(getattr(self.sizes, f"coco_{split}")):
                scene, asked = questioned(self.rng, VQA, self.sizes.per_image)
                number = len(images) + 1
                name = f"COCO_{part}_{number:012d}"
                self.image("COCO", name, scene)
                raws = captions(scene, self.rng, wordings=self.wordings)
                images.append(
                    {
                        "filepath": part,
                        "filename": f"{name}.jpg",
                        "imgid": number - 1,
                        "cocoid": number,
                        "split": split,
                        "sentids": list(range(sentences, sentences + len(raws))),
                        "sentences": [
                            {
                                "raw": raw,
                                "tokens": raw.translate(str.maketrans("", "", ".,:")).split(),
                                "imgid": number - 1,
                                "sentid": sentences + i,
                            }
                            for i, raw in enumerate(raws)
                        ],
                    }
                )
                sentences += len(raws)
                for i, question in enumerate(asked):
                    item, annotation = self.vqa_pair(question, number, 1000 * number + i, name)
                    items["train" if split == "restval" else split].append(item)
                    annotations[part].append(annotation)
        self.json("COCO/dataset_coco.json", {"images": images, "dataset": "coco"})
        for split, rows in items.items():
            self.json(f"vqa/karpathy_{split}.json", rows)
        for part, rows in annotations.items():
            self.json(
                f"vqa/v2_mscoco_{part}_annotations.json",
                {"data_type": "mscoco", "data_subtype": part, "annotations": rows},
            )
        self.answers("vqa")

    def vqa_pair(self, question: Question, image: int, identity: int, name: str) -> tuple[dict, dict]:
        """The Karpathy-split item and the official annotation of one question."""
        given = annotators(question.answer, self.rng)
        is_yes_no = question.answer in ("yes", "no")
        types = {
            "answer_type": "yes/no" if is_yes_no else "number" if question.answer.isdigit() else "other",
            "question_type": question.kind,
        }
        item = {
            "question_id": identity,
            "img_id": name,
            "sent": question.text,
            "label": soft_label(given),
            **types,
        }
        annotation = {
            "question_id": identity,
            "image_id": image,
            "multiple_choice_answer": max(given, key=given.count),
            "answers": [
                {"answer": answer, "answer_confidence": "yes", "answer_id": i}
                for i, answer in enumerate(given, start=1)
            ],
            **types,
        }
        return item, annotation

    def gqa(self) -> None:
        number = 0
        for split in ("train", "valid", "testdev"):
            folder, prefix = ("GQA", "n") if split == "testdev" else ("VG", "")
            items = []
            for _ in range(self.sizes.gqa_testdev if folder == "GQA" else getattr(self.sizes, f"vg_{split}")):
                scene, asked = questioned(self.rng, GQA, self.sizes.per_image)
                number += 1
                name = f"{prefix}{number}"
                self.image(folder, name, scene)
                items += [
                    {
                        "question_id": f"{100 * number + i:08d}",
                        "img_id": name,
                        "sent": question.text,
                        "label": {question.answer: 1.0},
                    }
                    for i, question in enumerate(asked)
                ]
            self.json(f"GQA/{split}.json", items)
        self.answers("GQA")

    def nlvr(self) -> None:
        for split, prefix in (("train", "train"), ("valid", "dev"), ("test", "test1")):
            items: list[dict] = []
            for number in range(getattr(self.sizes, f"nlvr_{split}")):
                for i, (statements, scenes) in enumerate(self.sentence_set()):
                    stem = f"{prefix}-{number}-{i}"
                    for k, scene in enumerate(scenes):
                        self.image("nlvr", f"{stem}-img{k}", scene)
                    items += [
                        {
                            "identifier": f"{stem}-{j}",
                            "img0": f"{stem}-img0",
                            "img1": f"{stem}-img1",
                            "label": int(truth),
                            "sent": statement.text,
                            "uid": f"nlvr2_{split}_{len(items) + j}",
                        }
                        for j, (statement, truth) in enumerate(statements)
                    ]
            self.json(f"nlvr/{split}.json", items)

    def sentence_set(self) -> Iterator[tuple[list[tuple[Statement, bool]], tuple[Scene, Scene]]]:
        """Two sentences over four image pairs, one pair for each combination of their truth values."""
        truths = [(True, True), (True, False), (False, True), (False, False)]
        while True:
            statements = Statement.sample(self.rng), Statement.sample(self.rng)
            wanted = [list(zip(statements, t, strict=True)) for t in self.rng.sample(truths, len(truths))]
            if len({s.text for s in statements}) == 1:
                continue
            pairs = [drawn for w in wanted if (drawn := pair(self.rng, w))]
            if len(pairs) == len(wanted):
                return zip(wanted, pairs, strict=True)
