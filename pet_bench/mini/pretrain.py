"""Pre-train the mini backbones on the world's text alone: they never meet a pixel.

In two courses, on scenes and then on clips with scenes between. Three forms of exercise, all on fresh text at every
step:

* denoising of sentences and written scenes (BART text infilling, T5 span corruption);
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
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.modeling_outputs import BaseModelOutput

from pet_bench.backbone.families import family_of
from pet_bench.backbone.known import EXTRA_WORDS
from pet_bench.errors import UserError
from pet_bench.files import read_text
from pet_bench.mini.clip_language import CLIP_TASKS, ClipExercise
from pet_bench.mini.language import IMAGES, Exercise
from pet_bench.mini.tokens import bart_tokenizer, t5_tokenizer
from pet_bench.mini.world import GRID
from pet_bench.spec import LARGEST

Backbone = BartForConditionalGeneration | T5ForConditionalGeneration
Inputs = tuple[Tensor, tuple[Tensor, Tensor] | None]  # of `Reader.encode`
Shares = dict[tuple[str, str], float]  # of (task, hint)

WIDTH, HEADS, ENCODER_LAYERS, DECODER_LAYERS = 64, 4, 2, 2
STEPS = {"mini-bart": {"scenes": 6000, "clips": 8000}, "mini-t5": {"scenes": 7000, "clips": 8000}}
RATE = {"mini-bart": 2e-3, "mini-t5": 2e-3}
BATCH = {"mini-bart": 64, "mini-t5": 32}
MOST_STEPS = 1_000_000
WARM_UP = 300
HEADER = ["step", "form", "task", "loss"]
DROPOUT_WHILE_READING = 0.02  # small models of an endless corpus underfit, they do not memorise
FRAMES = 64
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
    "clips": {"condensed": 19, "denoising": 1},  # written out, they are too long to be understood
}


def exercise(task: str, rng: Random, hint: str = "") -> Exercise | ClipExercise:
    return ClipExercise.sample(task, rng, hint) if task in CLIP_TASKS else Exercise.sample(task, rng)


def _table(lm: PreTrainedModel) -> Tensor:
    """Its word embeddings."""
    table = lm.get_input_embeddings().weight
    assert isinstance(table, Tensor)
    return table


class Reader:
    """A backbone with its tokenizer, and the exercises as batches for it."""

    def __init__(self, lm: Backbone, tokenizer: PreTrainedTokenizerFast):
        self.lm, self.tokenizer = lm, tokenizer
        self.family = family_of(lm.config)
        assert isinstance(tokenizer.pad_token_id, int)
        self.pad = tokenizer.pad_token_id
        self.ids: dict[str, list[int]] = {}  # words as they stand inside a sentence

    @classmethod
    def new(cls, name: str, seed: int) -> Reader:
        """Random weights, and a tokenizer of the world's text."""
        if name == "mini-bart":
            tokenizer = bart_tokenizer(seed)
            lm: Backbone = BartForConditionalGeneration(
                BartConfig(
                    vocab_size=len(tokenizer),
                    d_model=WIDTH,
                    encoder_layers=ENCODER_LAYERS,
                    decoder_layers=DECODER_LAYERS,
                    encoder_attention_heads=HEADS,
                    decoder_attention_heads=HEADS,
                    encoder_ffn_dim=2 * WIDTH,
                    decoder_ffn_dim=2 * WIDTH,
                    max_position_embeddings=256,
                    activation_function="gelu",
                    dropout=0.0,
                    attention_dropout=0.0,
                    activation_dropout=0.0,
                    init_std=0.08,
                    bos_token_id=0,
                    pad_token_id=1,
                    eos_token_id=2,
                    decoder_start_token_id=2,
                    forced_eos_token_id=None,
                )
            )
        elif name == "mini-t5":
            tokenizer = t5_tokenizer(seed)
            lm = T5ForConditionalGeneration(
                T5Config(
                    vocab_size=len(tokenizer),
                    d_model=WIDTH,
                    d_kv=WIDTH // HEADS,
                    d_ff=2 * WIDTH,
                    num_layers=ENCODER_LAYERS,
                    num_decoder_layers=DECODER_LAYERS,
                    num_heads=HEADS,
                    feed_forward_proj="relu",
                    dropout_rate=0.0,
                    pad_token_id=0,
                    eos_token_id=1,
                    decoder_start_token_id=0,  # type: ignore[call-arg]  # of every configuration
                )
            )
        else:
            raise ValueError(f"no mini backbone {name!r}; possible: {', '.join(STEPS)}")
        reader = cls(lm, tokenizer)
        if name == "mini-t5":  # T5's words start at unit variance: where would drown what
            table = _table(lm).data
            table[-len(EXTRA_WORDS) :] *= 0.2
            table[[i for word in IMAGES for i in reader.word(word)]] *= 0.2
        return reader

    def word(self, word: str) -> list[int]:
        if word not in self.ids:
            self.ids[word] = self.tokenizer(f" {word}", add_special_tokens=False).input_ids
        return self.ids[word]

    def text(self, lines: Sequence[str]) -> Tensor:
        return self.tokenizer(list(lines), padding=True, return_tensors="pt").input_ids

    def cells(self, told: Sequence[Sequence[tuple[str, str]]]) -> tuple[Tensor, Tensor]:
        """Condensed scenes → location ids (B, P) and the ids of each cell's words (B, P, 4), padded."""
        location = [[self.tokenizer.convert_tokens_to_ids(place) for place, _ in scene] for scene in told]
        words = [
            [([i for w in said.split() for i in self.word(w)] + [self.pad] * 4)[:4] for _, said in scene]
            for scene in told
        ]
        return torch.tensor(location), torch.tensor(words)

    def encode(self, text: Tensor, cells: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Encoder states and mask of ids (B, L), followed by condensed cells if there are any."""
        mask = text.ne(self.pad)
        if cells is None:
            return self.lm.get_encoder()(input_ids=text, attention_mask=mask.long())[0], mask
        location, words = cells
        table = _table(self.lm)
        image, *parts = F.embedding(words, table).mul(words.ne(self.pad)[..., None]).unbind(2)
        said = sum(parts[1:], start=parts[0])
        if self.lm.config.model_type == "bart":
            said = F.layer_norm(said, said.shape[-1:])
        else:
            said = said * torch.rsqrt(said.square().mean(-1, keepdim=True) + 1e-6)
        visual = said + image + F.embedding(location, table)
        mask = torch.cat([mask, mask.new_ones(location.shape)], dim=1)
        return self.family.encode(self.lm, self.family.embed(self.lm, text), visual, mask), mask

    def loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        """Token-mean cross-entropy."""
        states, mask = self.encode(*inputs)
        labels = targets.masked_fill(targets.eq(self.pad), -100)
        return self.lm(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask.long(),
            labels=labels,
        ).loss

    def comprehension(
        self, exercises: Sequence[Exercise | ClipExercise], form: str, cells: int, rng: Random
    ) -> tuple[Inputs, Tensor]:
        """(inputs of `encode`, targets) with the scenes `written` out, or `condensed` to `cells` cells each."""
        targets = self.text([e.target for e in exercises])
        if form == "written":
            return (self.text([f"{e.text} {e.written(rng)}" for e in exercises]), None), targets
        told = self.cells([e.condensed(cells, rng) for e in exercises])
        return (self.text([e.text for e in exercises]), told), targets

    def denoising(self, exercises: Sequence[Exercise | ClipExercise], rng: Random) -> tuple[Inputs, Tensor]:
        """Spans of about three tokens, 30 % (BART) or 15 % (T5) of the text, are to be restored."""
        bart = self.lm.config.model_type == "bart"
        sources, targets = [], []
        for e in exercises:
            line = rng.choice((e.written(rng), f"{e.text} {e.target}"))
            ids = self.tokenizer(line, add_special_tokens=False).input_ids
            source, i = [], 0
            spans: list[list[int]] = []
            while i < len(ids):
                length = rng.randint(1, 5)
                if rng.random() < (0.14 if bart else 0.06) and len(spans) < 99:
                    mark = self.tokenizer.mask_token_id
                    if not bart:
                        mark = self.tokenizer.convert_tokens_to_ids(f"<extra_id_{len(spans)}>")
                    assert isinstance(mark, int)
                    source.append(mark)
                    spans.append([mark, *ids[i : i + length]])
                    i += length
                else:
                    source.append(ids[i])
                    i += 1
            sources.append(source)
            targets.append(ids if bart else [t for span in spans for t in span])
        return (self.padded(sources), None), self.padded(targets)

    def padded(self, lines: Sequence[list[int]]) -> Tensor:
        """With the tokenizer's special tokens around each line."""
        bos = [0] if self.lm.config.model_type == "bart" else []
        ids = [torch.tensor([*bos, *line, self.tokenizer.eos_token_id]) for line in lines]
        return nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=self.pad)

    @torch.no_grad()
    def accuracy(self, task: str, *, form: str = "condensed", count: int = 200, seed: int = 1) -> float:
        """Share of exact answers, generated greedily, to exercises about fresh scenes."""
        was_training, rng = self.lm.training, Random(f"fresh-{task}-{seed}")
        self.lm.eval()
        exercises = [exercise(task, rng) for _ in range(count)]
        inputs, _ = self.comprehension(exercises, form, FRAMES if task in CLIP_TASKS else GRID * GRID, rng)
        states, mask = self.encode(*inputs)
        ids = self.lm.generate(  # type: ignore[misc]  # the stub asks for a self that no model is
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask.long(),
            max_length=40,
            do_sample=False,
        )
        assert isinstance(ids, Tensor)
        said = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        self.lm.train(was_training)
        return sum(s == e.target for s, e in zip(said, exercises, strict=True)) / count


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
    """Train `mini-bart` or `mini-t5` and write the folder `out`.

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
    draft = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        save(reader, draft)
        record(draft, curve, f"{name} OUT --course {course} --seed {seed} --steps {steps}", before)
        draft.chmod(0o755)
        draft.rename(out)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


Record = tuple[list[list[str]], str]  # rows of `loss_curve.csv`, and `COMMAND`


def read_record(folder: Path) -> Record:
    """What an earlier call wrote of its training; raises UserError where that cannot be read."""
    rows = list(csv.reader(read_text(folder / "loss_curve.csv", f'"{folder / "loss_curve.csv"}"').splitlines()))
    if rows[:1] != [HEADER] or not rows[-1][0].isdecimal():
        raise UserError(f'"{folder / "loss_curve.csv"}" is no loss curve of an earlier call')
    return rows, read_text(folder / "COMMAND", f'"{folder / "COMMAND"}"')


def record(
    folder: Path, curve: Sequence[tuple[int, str, str, float]], arguments: str, before: Record | None = None
) -> None:
    """`loss_curve.csv` and `COMMAND`; where training went on, after those of before."""
    rows, commands = before or ([HEADER], "")
    done = int(rows[-1][0]) if before else 0
    rows = rows + [[str(done + step), form, task, f"{loss:.4f}"] for step, form, task, loss in curve]
    with (folder / "loss_curve.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    go_on = " --start EARLIER_OUT" if before else ""
    (folder / "COMMAND").write_text(f"{commands}python -m pet_bench.mini.pretrain {arguments}{go_on}\n")


def train(reader: Reader, rng: Random, name: str, course: str, steps: int) -> list[tuple[int, str, str, float]]:
    """Exercises at the settings of the backbone `name`; rows of (step, form, task, mean loss since the last)."""
    lm = reader.lm.train()
    optimizer = torch.optim.AdamW(lm.parameters(), lr=RATE[name], betas=(0.9, 0.98), weight_decay=0.01)
    warm_up = min(WARM_UP, steps // 10 + 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / warm_up, (steps - s) / max(1, steps - warm_up))
    )
    curve: list[tuple[int, str, str, float]] = []
    recent: dict[tuple[str, str], list[float]] = {}
    with Progress() as progress:
        bar = progress.add_task("reading", total=steps)
        for step in range(1, steps + 1):
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
            task = f"{task}:{hint}" if hint else task
            loss = reader.loss(inputs, targets)
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


def save(reader: Reader, folder: Path) -> None:
    config = reader.lm.config
    reader.lm.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id if config.model_type == "bart" else None,
        pad_token_id=config.pad_token_id,
        eos_token_id=config.eos_token_id,
        decoder_start_token_id=config.decoder_start_token_id,
    )
    reader.lm.save_pretrained(folder)
    reader.tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)


def load_reader(folder: Path) -> Reader:
    """A written backbone, to examine what it understands."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    lm = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return Reader(lm.eval(), tokenizer)


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
