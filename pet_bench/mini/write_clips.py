"""Write the world in motion to disk, in the layout and the file formats of the VALUE benchmark's tasks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from pet_bench.files import filling
from pet_bench.mini.clip_language import CHOICES, Like, ask, choices, description, subtitles
from pet_bench.mini.clips import SECONDS, Clip, draw, features
from pet_bench.mini.write import Progress, Sizes, Writer

SHOWS = ("Shape Parade", "The Color Hour")


@dataclass(frozen=True)
class ClipSizes:
    """Clips per folder and split. Every tv and how2 clip has `per_clip` questions, every tv clip two descriptions."""

    tv_train: int = 450
    tv_val: int = 100
    how2_train: int = 450
    how2_val: int = 100
    yc2_train: int = 450
    yc2_val: int = 100
    per_clip: int = 4

    @property
    def clips(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self)) - self.per_clip


SECOND = ClipSizes(tv_val=500, how2_val=500, yc2_val=500)
"""Five times as many questions and descriptions to be tested on: 2,000 of each task's questions, 500 clips."""


def write_video_text(
    root: Path,
    *,
    seed: int = 0,
    sizes: ClipSizes | None = None,
    progress: Progress | None = None,
    moving: float = 0.5,
) -> None:
    """Write the four video-text tasks under `root`, which must not exist yet or be empty.

    The layout is that of a VL-Adapter workspace: annotations and subtitles in ``video/ann``, frame vectors in
    ``video/vis_features/<folder>/clip-vit/<clip>.npz``, ``features`` (T, 432) float16 (see `pet_bench.mini.clips`).
    ``video/frames/<folder>/<clip>.png`` is a strip of the same frames, ``video/clips.json`` holds what was drawn,
    ``{folder/clip: [[color, shape, direction], ...]}``; no task reads either.

    moving: the share of descriptions that say where things go. Otherwise as `pet_bench.mini.write.write_image_text`.
    """
    with filling(root) as draft:
        ClipWriter(draft, seed, sizes or ClipSizes(), progress, moving).write()


def write_all(root: Path, *, seed: int = 0, progress: Progress | None = None) -> None:
    """Write all eight tasks under `root`, as `write_image_text` and `write_video_text` do."""
    images, clips = Sizes(), ClipSizes()
    total = images.images + clips.clips
    report = progress or (lambda done, total: None)
    with filling(root) as draft:
        Writer(draft, seed, images, lambda done, _: report(done, total)).write()
        ClipWriter(draft, seed, clips, lambda done, _: report(images.images + done, total)).write()


class ClipWriter:
    """One world in the making."""

    def __init__(self, root: Path, seed: int, sizes: ClipSizes, progress: Progress | None, moving: float = 0.5):
        self.video, self.sizes, self.progress, self.moving = root / "video", sizes, progress, moving
        self.rng = Random(seed)
        self.pixels = np.random.default_rng(seed)
        self.clips: dict[str, Clip] = {}

    def write(self) -> None:
        for folder in ("tv", "how2", "yc2"):
            spoken = []
            for split in ("train", "val"):
                rows: dict[str, list[dict[str, Any]]] = {}
                for number in range(getattr(self.sizes, f"{folder}_{split}")):
                    clip, likes = Clip.sample(self.rng), subtitles(self.rng)
                    name = self.name(folder, split, number)
                    self.clip(folder, name, clip)
                    spoken.append(self.spoken(name, clip, likes))
                    for task, row in self.rows(folder, split, number, name, clip, likes):
                        rows.setdefault(task, []).append(row)
                for task, part in rows.items():
                    release = "" if task == "tvqa" else "_release"
                    self.lines(f"ann/{task}/{task}_{split}{release}.jsonl", part)
            self.lines(f"ann/{folder}_subtitles.jsonl", spoken)
        shots = {name: clip.to_json() for name, clip in self.clips.items()}
        (self.video / "clips.json").write_text(json.dumps(shots), encoding="utf-8")

    def lines(self, path: str, rows: list[dict[str, Any]]) -> None:
        file = self.video / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def name(self, folder: str, split: str, number: int) -> str:
        """A clip's name as each data set gives them."""
        number += self.sizes.clips * (split == "val")
        match folder:
            case "tv":
                return f"mini_s01e{number // 100:02d}_seg02_clip_{number % 100:02d}"
            case "how2":
                return str(20000 + number)
            case _:
                return f"mini{number:07d}_{number % 7}"

    def clip(self, folder: str, name: str, clip: Clip) -> None:
        pixels = draw(clip, self.pixels)
        strip = self.video / "frames" / folder / f"{name}.png"
        strip.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(list(pixels), axis=1)).save(strip)
        vectors = self.video / "vis_features" / folder / "clip-vit" / f"{name}.npz"
        vectors.parent.mkdir(parents=True, exist_ok=True)
        np.savez(vectors, features=features(pixels))
        self.clips[f"{folder}/{name}"] = clip
        if self.progress:
            self.progress(len(self.clips), self.sizes.clips)

    def spoken(self, name: str, clip: Clip, likes: list[Like]) -> dict[str, Any]:
        sub = [
            {"text": f" {like.text}", "start": SECONDS * i, "end": SECONDS * (i + 1)} for i, like in enumerate(likes)
        ]
        return {"vid_name": name, "sub": sub}

    def rows(
        self, folder: str, split: str, number: int, name: str, clip: Clip, likes: list[Like]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """(task, annotation) of everything asked and said about a clip."""
        number += 100_000 * (split == "val")
        task = {"tv": "tvqa", "how2": "how2qa"}.get(folder)
        for i in range(self.sizes.per_clip if task else 0):
            assert task is not None
            count, askers = CHOICES[task]
            question = ask(clip, likes, self.rng, askers)
            offered, right = choices(question, count, self.rng)
            yield (
                task,
                {
                    "qid": 10 * number + i,
                    "q": question.text,
                    **{f"a{k}": value for k, value in enumerate(offered)},
                    "answer_idx": right,
                    "ts": f"0.00-{clip.seconds:.2f}",
                    "vid_name": name,
                    **({"show_name": SHOWS[number % 2]} if task == "tvqa" else {}),
                },
            )
        task = {"tv": "tvc", "yc2": "yc2c"}.get(folder)
        if task:
            said = [description(clip, self.rng, self.moving) for _ in range(2 if task == "tvc" else 1)]
            extra = {"type": "v", "from_retrieval": False} if task == "tvc" else {}
            descriptions = [{"desc": text, "desc_id": 2 * number + i, **extra} for i, text in enumerate(said)]
            moment = {"ts": [0.0, clip.seconds]} if task == "tvc" else {}
            yield (
                task,
                {"vid_name": name, "duration": clip.seconds, **moment, "clip_id": number, "descs": descriptions},
            )
