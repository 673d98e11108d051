"""Pre-train the vision-language mini backbone: it learns to see on captions alone, of fewer kinds of objects.

In two courses, of fresh exercises at every step:

* "sight": a tower learns to see by captioning drawn scenes with a decoder that is thrown away: what people say of them,
  and what is where, of one picture or of two. These pictures have two of the world's four shapes, four of its six
  colours and one to four objects (`glimpse`); the tasks have all of them, and two to five;
* "language": the tower is put, with a new projector, before a language model that has read, `mini-llama`
  (`pet_bench.mini.pretrain`), as LLaVA's was before Vicuna, and all of it trains: on such captions, and on reading
  comprehension of text alone over the whole world, a task's question over scenes written out, or condensed to a cell a
  token where a picture would be. So it keeps what it knew.

Nothing is ever asked about a picture. Left to learn for a method are two shapes and two colours that it has never seen,
and to answer from what it sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
)

from pet_bench.errors import UserError
from pet_bench.mini.language import IMAGES, Exercise, captions, located
from pet_bench.mini.pretrain import descend, read_record, record
from pet_bench.mini.readers import HEADS, LAYERS, WIDTH, Continuing, Reader, load_reader
from pet_bench.mini.world import COLORS, GRID, PATCH, SIZES, Scene, Thing, draw
from pet_bench.mini.write import whole

SEEN = {"shape": ("square", "circle"), "color": tuple(COLORS)[:4]}  # of pictures in pre-training
MOST = 4  # objects of one of them
STEPS, RATE, BATCH = {"sight": 1500, "language": 1500}, 2e-3, 32
PICTURES = {("picture", "caption"): 5.0, ("picture", "places"): 4.0, ("picture", "pair"): 1.0}
TEXTS = {
    (form, task): share * often
    for form, share in (("condensed", 5), ("written", 1))
    for task, often in (("vqa", 0.35), ("gqa", 0.35), ("nlvr", 0.2), ("caption", 0.1))
}
COURSES = {"sight": PICTURES, "language": PICTURES | TEXTS}
ASKED = {"caption": "caption: ", "places": "what is there?", "pair": "what is there?"}
TURNS = (  # what the pictures and texts of a talk become
    "{{ bos_token }}{% for turn in messages %}<{{ turn.role }}>{% for part in turn.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "{% if turn.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def glimpse(rng: Random, most: int = MOST) -> Scene:
    """A scene of the other distribution, of which pictures are drawn in pre-training."""
    kinds = list(product(SIZES, SEEN["color"], SEEN["shape"]))
    cells = sorted(rng.sample(range(GRID * GRID), rng.randint(1, most)))
    return Scene(tuple(Thing(cell, *rng.choice(kinds)) for cell in cells))


def told(kind: str, scenes: Sequence[Scene], rng: Random) -> str:
    """The caption of that kind of one picture, or of a left and a right one."""
    if kind == "caption":
        return captions(scenes[0], rng, 1)[0]
    listed = [", ".join(located(t, rng, words_only=True) for t in scene.things) + "." for scene in scenes]
    return (
        " ".join(f"{image} image: {it}" for image, it in zip(IMAGES, listed, strict=True)) if listed[1:] else listed[0]
    )


class Seer:
    """The backbone with its processor, and the exercises as batches for it."""

    def __init__(self, lm: LlavaForConditionalGeneration, processor: Any):
        self.lm, self.processor, self.tokenizer = lm, processor, processor.tokenizer
        self.pad, self.image = self.tokenizer.pad_token_id, lm.config.image_token_id
        self.reader = Continuing(lm.model.language_model, self.tokenizer)  # of its words in condensed cells

    @classmethod
    def new(cls, start: Reader) -> Seer:
        """A language model behind a tower and a projector of random weights."""
        if not isinstance(start, Continuing):
            raise UserError("the language model is not decoder-only")
        tokenizer = start.tokenizer
        tokenizer.add_tokens(["<image>", "<user>", "<assistant>"], special_tokens=True)
        start.lm.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        processor = LlavaProcessor(
            SiglipImageProcessorPil(size={"height": GRID * PATCH, "width": GRID * PATCH}),
            tokenizer,
            patch_size=PATCH,
            vision_feature_select_strategy="full",
            chat_template=TURNS,
        )
        tower = SiglipVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            image_size=GRID * PATCH,
            patch_size=PATCH,
            vision_use_head=False,
        )
        config = LlavaConfig(
            vision_config=tower,
            text_config=start.lm.config,
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
            image_seq_length=GRID * GRID,
            vision_feature_select_strategy="full",
            vision_feature_layer=-1,
            tie_word_embeddings=True,
        )
        lm = LlavaForConditionalGeneration(config)
        lm.model.language_model.load_state_dict(start.lm.model.state_dict())
        lm.generation_config = GenerationConfig(
            bos_token_id=tokenizer.bos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        return cls(lm, processor)

    @classmethod
    def load(cls, folder: Path) -> Seer:
        lm = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        return cls(lm.eval(), LlavaProcessor.from_pretrained(folder))

    def save(self, folder: Path) -> None:
        """The usual `transformers` files."""
        self.lm.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        for file in folder.iterdir():
            file.chmod(0o644)

    def prompt(self, text: str, cells: int = 0) -> str:
        """The user's turn, with so many tokens of pictures."""
        return f"{self.tokenizer.bos_token}<user>{'<image>' * cells}{text}<assistant>"

    def pixels(self, scenes: Sequence[Scene], rng: np.random.Generator) -> Tensor:
        return self.processor.image_processor([draw(s, rng) for s in scenes], return_tensors="pt")["pixel_values"]

    def loss(self, prompts: Sequence[str], answers: Sequence[str], seen: Tensor | None) -> Tensor:
        """Token-mean cross-entropy of the answers with their end; seen: what stands where pictures do, of all rows."""
        asked = self.tokenizer(list(prompts), add_special_tokens=False).input_ids
        said = self.tokenizer([f"{a}{self.tokenizer.eos_token}" for a in answers], add_special_tokens=False).input_ids
        rows = [torch.tensor(a + b) for a, b in zip(asked, said, strict=True)]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.pad)
        places = torch.arange(ids.shape[1])
        ends = torch.tensor([[len(a), len(a) + len(b)] for a, b in zip(asked, said, strict=True)])
        answered = (places >= ends[:, :1]) & (places < ends[:, 1:])
        words = self.lm.get_input_embeddings()(ids)
        if seen is not None:
            words = words.masked_scatter((ids == self.image)[..., None], seen)
        states = self.lm.model.language_model(inputs_embeds=words, use_cache=False).last_hidden_state
        return F.cross_entropy(self.lm.lm_head(states[:, :-1][answered[:, 1:]]), ids[answered])

    def exercised(self, course: str, whole: float, rng: Random, pixels: np.random.Generator) -> tuple[str, str, Tensor]:
        """(form, task, loss) of a batch; whole: the share of condensed scenes of which no cell is left out."""
        shares = COURSES[course]
        ((form, task),) = rng.choices(tuple(shares), list(shares.values()))
        if form == "picture":
            most = MOST if task != "pair" else 2
            shown = [[glimpse(rng, most) for _ in range(1 + (task == "pair"))] for _ in range(BATCH)]
            features = self.lm.model.get_image_features(self.pixels([s for row in shown for s in row], pixels))
            prompts = [self.prompt(ASKED[task], GRID * GRID * len(shown[0]))] * BATCH
            return (
                form,
                task,
                self.loss(prompts, [told(task, s, rng) for s in shown], torch.stack(features.pooler_output)),
            )
        exercises = [Exercise.sample(task, rng) for _ in range(BATCH)]
        answers = [e.target for e in exercises]
        if form == "written":
            return form, task, self.loss([self.prompt(f"{e.text} {e.written(rng)}") for e in exercises], answers, None)
        cells = GRID * GRID if rng.random() < whole else rng.randint(5, 14)
        location, words = self.reader.cells([e.condensed(cells, rng) for e in exercises])
        prompts = [self.prompt(e.text, location.shape[1]) for e in exercises]
        return form, task, self.loss(prompts, answers, self.reader.seen(location, words))

    @torch.no_grad()
    def generated(self, scenes: Sequence[Sequence[Scene]], asked: str, seed: int) -> list[str]:
        """What it says, greedily, of drawn scenes."""
        pictures = [[draw(s, np.random.default_rng([seed, i])) for s in row] for i, row in enumerate(scenes)]
        return self.said(pictures, [asked] * len(pictures))

    @torch.no_grad()
    def said(self, pictures: Sequence[Sequence[Image.Image]], asked: Sequence[str]) -> list[str]:
        """Its answers to a text about pictures each, greedily."""
        prompts = [
            self.prompt(text).replace("<user>", "<user>" + "<image>" * len(row))
            for text, row in zip(asked, pictures, strict=True)
        ]
        self.tokenizer.padding_side = "left"
        given = self.processor(
            text=prompts,
            images=[list(row) for row in pictures],
            add_special_tokens=False,
            padding=True,
            return_tensors="pt",
        )
        ids = self.lm.generate(**given, max_new_tokens=80, do_sample=False)
        return self.tokenizer.batch_decode(ids[:, given["input_ids"].shape[1] :], skip_special_tokens=True)

    def accuracy(self, kind: str, *, count: int = 100, seed: int = 1) -> float:
        """Share of fresh pictures of its own distribution that it says of what people could say of that kind."""
        rng = Random(f"fresh-{kind}-{seed}")
        shown = [
            [glimpse(rng, 2 if kind == "pair" else MOST) for _ in range(1 + (kind == "pair"))] for _ in range(count)
        ]
        said = self.generated(shown, ASKED[kind], seed)
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
    that of `pet_bench.mini.pretrain.pretrain`, whose arguments the others are.
    """
    before, steps = read_record(start) if start else None, steps or STEPS[course]
    with whole(Path(out)) as draft:
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        rng, pixels = Random(seed), np.random.default_rng(seed)
        seer = Seer.load(start) if start else Seer.new(Reader.new("mini-llama", seed))
        if language:
            tower = seer.lm.model.vision_tower
            seer = Seer.new(load_reader(language))
            seer.lm.model.vision_tower.load_state_dict(tower.state_dict())
        curve = descend(seer.lm, lambda step: seer.exercised(course, step / steps, rng, pixels), RATE, steps)
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
