"""Pre-train the vision-language mini backbone: it learns to see on captions alone, of fewer kinds of objects.

In two courses, of fresh exercises at every step:

* "sight": a tower learns to see by captioning drawn scenes with a decoder that is thrown away: what people say of them,
  and what is where, of one picture or of two. These pictures have two of the world's four shapes, four of its six
  colours and one to four objects (`glimpse`); the tasks have all of them, and two to five;
* "language": the tower is put, with a new projector, before a language model that has read, `mini-llama`
  (`pet_bench.mini.pretrain`), as LLaVA's was before Vicuna, and all of it trains: on such captions, and on reading
  comprehension of text alone over the whole world, a task's question over scenes written out. So it keeps what it knew:
  the questions' words, and how to answer from a description.

Nothing is ever asked about a picture. Left to learn for a method are two shapes and two colours that it has never seen,
and to answer from what it sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor

from pet_bench.files import filling
from pet_bench.mini.language import IMAGES, Exercise, captions, located
from pet_bench.mini.pretrain import MOST_STEPS, descend, read_record, record
from pet_bench.mini.readers import Reader, load_reader
from pet_bench.mini.seer import CELLS, Seer
from pet_bench.mini.world import COLORS, SIZES, Scene, Thing, draw
from pet_bench.spec import LARGEST

SEEN = {"shape": ("square", "circle"), "color": tuple(COLORS)[:4]}  # of pictures in pre-training
MOST = 4  # objects of one of them
STEPS, RATE, BATCH = {"sight": 1500, "language": 1500}, 2e-3, 32
PICTURES = {("picture", "caption"): 5.0, ("picture", "places"): 4.0, ("picture", "pair"): 1.0}  # shares of (form, task)
TEXTS = {("written", "vqa"): 2.1, ("written", "gqa"): 2.1, ("written", "nlvr"): 1.2, ("written", "caption"): 0.6}
COURSES = {"sight": PICTURES, "language": PICTURES | TEXTS}
ASKED = {"caption": "caption: ", "places": "what is there?", "pair": "what is there?"}


def glimpse(rng: Random, most: int = MOST) -> Scene:
    """A scene of the other distribution, of which pictures are drawn in pre-training."""
    kinds = list(product(SIZES, SEEN["color"], SEEN["shape"]))
    cells = sorted(rng.sample(range(CELLS), rng.randint(1, most)))
    return Scene(tuple(Thing(cell, *rng.choice(kinds)) for cell in cells))


def glimpses(kind: str, rng: Random) -> list[Scene]:
    """What a caption of that kind is of."""
    return [glimpse(rng, 2), glimpse(rng, 2)] if kind == "pair" else [glimpse(rng)]


def told(kind: str, scenes: Sequence[Scene], rng: Random) -> str:
    """The caption of that kind of one picture, or of a left and a right one."""
    if kind == "caption":
        return captions(scenes[0], rng, 1)[0]
    listed = [", ".join(located(t, rng, words_only=True) for t in scene.things) + "." for scene in scenes]
    named = [f"{image} image: {things}" for image, things in zip(IMAGES, listed, strict=False)]
    return " ".join(named) if kind == "pair" else listed[0]


def exercised(seer: Seer, course: str, rng: Random, pixels: np.random.Generator) -> tuple[str, str, Tensor]:
    """(form, task, loss) of a batch."""
    shares = COURSES[course]
    ((form, task),) = rng.choices(tuple(shares), list(shares.values()))
    if form == "written":
        exercises = [Exercise.sample(task, rng) for _ in range(BATCH)]
        prompts = [seer.prompt(f"{e.text} {e.written(rng)}", 0) for e in exercises]
        return form, task, seer.loss(prompts, [e.target for e in exercises], None)
    shown = [glimpses(task, rng) for _ in range(BATCH)]
    seen = seer.seen([draw(scene, pixels) for row in shown for scene in row])
    prompts = [seer.prompt(ASKED[task], CELLS * len(row)) for row in shown]
    return form, task, seer.loss(prompts, [told(task, row, rng) for row in shown], seen)


def accuracy(seer: Seer, kind: str, *, count: int = 100, seed: int = 1) -> float:
    """Share of fresh pictures of its own distribution of which it says what people could say, of that kind."""
    rng, pixels = Random(f"fresh-{kind}-{seed}"), np.random.default_rng(seed)
    shown = [glimpses(kind, rng) for _ in range(count)]
    said = seer.says([[draw(scene, pixels) for scene in row] for row in shown], [ASKED[kind]] * count)
    return sum(s in {told(kind, row, rng) for _ in range(50)} for s, row in zip(said, shown, strict=True)) / count


def pretrain(
    out: Path,
    *,
    course: str = "sight",
    seed: int = 0,
    steps: int | None = None,
    start: Path | None = None,
    language: Path | None = None,
    threads: int = 1,
) -> None:
    """Train `mini-llava` and write the folder `out`, from random weights or on from those of `start`, an earlier `out`.

    language: a folder whose language model takes the place of that of `start`, with a new projector. The folder is as
    that of `pet_bench.mini.pretrain.pretrain`, whose arguments the others are and which raises the same.
    """
    before, steps = read_record(start) if start else None, steps or STEPS.get(course)
    if steps is None:
        raise ValueError(f"no course {course!r}; possible: {', '.join(COURSES)}")
    if not 1 <= steps <= MOST_STEPS:
        raise ValueError(f"steps are 1 to {MOST_STEPS:,}, found {steps}")
    if not 0 <= seed <= LARGEST:
        raise ValueError(f"a seed is 0 to {LARGEST:,}, found {seed}")
    with filling(Path(out)) as draft:
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        rng, pixels = Random(seed), np.random.default_rng(seed)
        seer = Seer.load(start) if start else Seer.new(Reader.new("mini-llama", seed))
        if language:
            tower = seer.lm.model.vision_tower
            seer = Seer.new(load_reader(language))
            seer.lm.model.vision_tower.load_state_dict(tower.state_dict())
        curve = descend(seer.lm, lambda step: exercised(seer, course, rng, pixels), RATE, steps)
        seer.save(draft)
        said = f"OUT --course {course} --seed {seed} --steps {steps}" + " --language MINI_LLAMA" * bool(language)
        record(draft, curve, said, before, "pretrain_llava")


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--course", choices=tuple(COURSES), default="sight")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--start", type=Path)
    parser.add_argument("--language", type=Path)
    pretrain(**vars(parser.parse_args()))
