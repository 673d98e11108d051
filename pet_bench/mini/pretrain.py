"""Pre-train the mini backbones on the world's text alone: they never meet a pixel.

In two courses, on scenes and then on clips with scenes between. Three forms of exercise, all on fresh text at every
step:

* denoising of sentences and written scenes (BART text infilling, T5 span corruption; LLaMA goes on writing them);
* reading comprehension over written scenes: a task's prompted question, then the scene as a list of located
  objects;
* the same over condensed scenes: one token per cell, e = Norm(sum of the words' embeddings) + the location
  word's. This is still text, in the shape in which the visual embedding will later hand over an image
  (METHODS.md section 1), so a frozen backbone knows what a filled cell means and what is left to learn is
  to see it. A clip has one token per frame.

To choose between answers a small model needs several steps at once: to find the answer, and to find it again among the
choices. So the course on clips begins with one or the other (`ClipExercise.sample`).
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import torch
from rich.progress import Progress
from torch import Tensor, nn

from pet_bench.errors import UserError
from pet_bench.files import filling, read_text
from pet_bench.mini.clip_language import CLIP_TASKS
from pet_bench.mini.readers import FRAMES, Inputs, Reader, exercise, load_reader
from pet_bench.mini.world import GRID
from pet_bench.spec import LARGEST

Shares = dict[tuple[str, str], float]  # of (task, hint)

STEPS = {
    "mini-bart": {"scenes": 6000, "clips": 8000},
    "mini-t5": {"scenes": 7000, "clips": 8000},
    "mini-llama": {"scenes": 9000, "clips": 8000},
}
RATE = {"mini-bart": 2e-3, "mini-t5": 2e-3, "mini-llama": 2e-3}
BATCH = {"mini-bart": 64, "mini-t5": 32, "mini-llama": 64}
MOST_STEPS = 1_000_000
WARM_UP = 300
HEADER = ["step", "form", "task", "loss"]
DROPOUT_WHILE_READING = 0.02  # small models of an endless corpus underfit, they do not memorise
# Shares of the exercises, (task, hint), until a fraction of the course is over.
_SCENES: Shares = {("vqa", ""): 3, ("gqa", ""): 4, ("nlvr", ""): 2, ("caption", ""): 1}
_TOLD: Shares = {("tvc", ""): 1, ("yc2c", ""): 1}


def _shares(scenes: float, told: float, **hints: float) -> Shares:
    """Shares of the scenes' tasks, of descriptions, and of each hint ("full": none) in both choice tasks."""
    shares: Shares = {key: scenes * share / 10 for key, share in _SCENES.items()} | dict.fromkeys(_TOLD, told / 2)
    return shares | {
        (task, hint.replace("full", "")): share / 2 for hint, share in hints.items() for task in ("tvqa", "how2qa")
    }


COURSES: dict[str, list[tuple[float, Shares]]] = {
    "scenes": [(1.0, _SCENES)],
    "clips": [
        (0.1, _shares(3, 1.0, bare=4, named=4, open=3, full=1)),
        (0.4, _shares(4, 1.0, bare=1, named=2, open=4, full=4)),
        (1.0, _shares(5, 1.0, bare=0.3, named=0.7, open=2, full=7)),
    ],
}
FORM_SHARES = {
    "mini-bart": {"condensed": 13, "written": 6, "denoising": 1},
    "mini-t5": {"condensed": 17, "written": 2, "denoising": 1},
    "mini-llama": {"condensed": 17, "written": 2, "denoising": 1},
    "clips": {"condensed": 19, "denoising": 1},  # written out, they are too long to be understood
}


def pretrain(
    name: str,
    out: Path,
    *,
    seed: int = 0,
    steps: int | None = None,
    threads: int = 1,
    start: Path | None = None,
    course: str = "scenes",
) -> None:
    """Train `mini-bart`, `mini-t5` or `mini-llama` and write the folder `out`.

    course: "scenes" or "clips". From random weights, or on from those of `start`, an earlier `out`, with the learning
    rate rising anew.

    AdamW, linear warm-up and decay to 0; every batch is one form of exercise on one task. The folder has
    the usual `transformers` files, `loss_curve.csv` (step, form, task, loss, averaged over 100 steps) and
    `COMMAND`. It is written beside `out` and renamed, so an interrupted call leaves nothing half-made.
    Deterministic in the arguments on one kind of machine.

    Raises, before any training, `ValueError` for an unknown name or course and for a seed or steps out of range,
    `FileExistsError` if `out` exists, `OSError` where it cannot be written, and `UserError` where `start` is no folder
    of an earlier call.
    """
    out, steps = Path(out), steps or STEPS.get(name, {}).get(course)
    if out.exists():
        raise FileExistsError(f"{out} exists")
    for kind, given, possible in (("mini backbone", name, STEPS), ("course", course, COURSES)):
        if given not in possible:
            raise ValueError(f"no {kind} {given!r}; possible: {', '.join(possible)}")
    if steps is None or not 1 <= steps <= MOST_STEPS:
        raise ValueError(f"steps are 1 to {MOST_STEPS:,}, found {steps}")
    if not 0 <= seed <= LARGEST:
        raise ValueError(f"a seed is 0 to {LARGEST:,}, found {seed}")
    before = read_record(start) if start else None
    out.parent.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=out.parent).close()  # what cannot be written to is said before hours of work
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    rng = Random(seed)
    reader = load_reader(start) if start else Reader.new(name, seed)
    set_dropout(reader.lm, DROPOUT_WHILE_READING)
    curve = train(reader, rng, name, course, steps)
    with filling(out) as draft:
        reader.save(draft)
        record(draft, curve, f"{name} OUT --course {course} --seed {seed} --steps {steps}", before)


Curve = list[tuple[int, str, str, float]]  # step, form, task, loss
Record = tuple[list[list[str]], str]  # rows of `loss_curve.csv`, and `COMMAND`


def read_record(folder: Path) -> Record:
    """What an earlier call wrote of its training; raises UserError where that cannot be read."""
    rows = list(csv.reader(read_text(folder / "loss_curve.csv", f'"{folder / "loss_curve.csv"}"').splitlines()))
    if rows[:1] != [HEADER] or not rows[-1][0].isdecimal():
        raise UserError(f'"{folder / "loss_curve.csv"}" is no loss curve of an earlier call')
    return rows, read_text(folder / "COMMAND", f'"{folder / "COMMAND"}"')


def record(folder: Path, curve: Curve, arguments: str, before: Record | None = None, module: str = "pretrain") -> None:
    """`loss_curve.csv` and `COMMAND`; where training went on, after those of before."""
    rows, commands = before or ([HEADER], "")
    done = int(rows[-1][0]) if before else 0
    rows = rows + [[str(done + step), form, task, f"{loss:.4f}"] for step, form, task, loss in curve]
    with (folder / "loss_curve.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    go_on = " --start EARLIER_OUT" if before else ""
    (folder / "COMMAND").write_text(f"{commands}python -m pet_bench.mini.{module} {arguments}{go_on}\n")


def train(reader: Reader, rng: Random, name: str, course: str, steps: int) -> Curve:
    """Exercises at the settings of the backbone `name`."""

    def exercised(step: int) -> tuple[str, str, Tensor]:
        shares = next(shares for end, shares in COURSES[course] if step <= end * steps)
        ((task, hint),) = rng.choices(tuple(shares), list(shares.values()))
        forms = FORM_SHARES["clips" if task in CLIP_TASKS else name]
        (form,) = rng.choices(tuple(forms), list(forms.values()))
        exercises = [exercise(task, rng, hint) for _ in range(BATCH[name])]
        inputs: Inputs
        if hint == "bare":
            inputs, targets = (
                (reader.text([e.text for e in exercises]), None),
                reader.text([e.target for e in exercises]),
            )
        elif form == "denoising":
            inputs, targets = reader.denoising(exercises, rng)
        else:
            # Whole boards come gradually: short inputs teach the same words for a third of the time.
            whole, often = (FRAMES, 1 / 3) if task in CLIP_TASKS else (GRID * GRID, 1)
            cells = whole if rng.random() < often * step / steps else rng.randint(5, 14)
            inputs, targets = reader.comprehension(exercises, form, cells, rng)
        return form, f"{task}:{hint}" if hint else task, reader.loss(inputs, targets)

    return descend(reader.lm, exercised, RATE[name], steps)


def descend(lm: nn.Module, exercised: Callable[[int], tuple[str, str, Tensor]], rate: float, steps: int) -> Curve:
    """Steps down the losses of exercises, (form, task, loss) of a step; the loss averaged over 100 steps."""
    lm.train()
    optimizer = torch.optim.AdamW(lm.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    warm_up = min(WARM_UP, steps // 10 + 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / warm_up, (steps - s) / max(1, steps - warm_up))
    )
    curve: Curve = []
    recent: dict[tuple[str, str], list[float]] = {}
    with Progress() as progress:
        bar = progress.add_task("reading", total=steps)
        for step in range(1, steps + 1):
            form, task, loss = exercised(step)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(lm.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            recent.setdefault((form, task), []).append(loss.item())
            if step % 100 == 0 or step == steps:
                for (form, task), losses in sorted(recent.items()):
                    curve.append((step, form, task, sum(losses) / len(losses)))
                recent.clear()
            progress.update(bar, advance=1, description=f"{form} {task} {loss.item():.3f}")
    lm.eval()
    return curve


def set_dropout(lm: nn.Module, rate: float) -> None:
    """Every dropout of the running model; its configuration keeps what it says."""
    for module in lm.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
        for name in ("dropout", "activation_dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, rate)


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=tuple(STEPS))
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--start", type=Path)
    parser.add_argument("--course", choices=tuple(COURSES), default="scenes")
    pretrain(**vars(parser.parse_args()))
