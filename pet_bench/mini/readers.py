"""The mini backbones while they learn to read: exercises as batches, what is lost, what is right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.modeling_outputs import BaseModelOutput

from pet_bench.backbone.denoise import denoised
from pet_bench.backbone.encoder_decoder import EncoderDecoderFamily
from pet_bench.backbone.family import Family
from pet_bench.backbone.known import EXTRA_WORDS
from pet_bench.mini.clip_language import CLIP_TASKS, ClipExercise
from pet_bench.mini.language import IMAGES, Exercise
from pet_bench.mini.tokens import bart_tokenizer, llama_tokenizer, t5_tokenizer
from pet_bench.mini.world import GRID
from pet_bench.registry import FAMILIES

Backbone = BartForConditionalGeneration | T5ForConditionalGeneration | LlamaForCausalLM
Inputs = tuple[Tensor, tuple[Tensor, Tensor] | None]  # of `Reader.encode`

WIDTH, HEADS, LAYERS = 64, 4, 2
FRAMES = 64


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
        self.family: type[EncoderDecoderFamily] = FAMILIES.get(lm.config.model_type)
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
                    encoder_layers=LAYERS,
                    decoder_layers=LAYERS,
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
                    num_layers=LAYERS,
                    num_decoder_layers=LAYERS,
                    num_heads=HEADS,
                    feed_forward_proj="relu",
                    dropout_rate=0.0,
                    pad_token_id=0,
                    eos_token_id=1,
                    decoder_start_token_id=0,  # type: ignore[call-arg]  # of every configuration
                )
            )
        else:
            tokenizer = llama_tokenizer(seed)
            return Continuing(_llama(tokenizer), tokenizer)
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

    def targets(self, lines: Sequence[str]) -> Tensor:
        """Answers (B, T) with their end."""
        return self.text(lines)

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
        mask = torch.cat([mask, mask.new_ones(cells[0].shape)], dim=1)
        return self.family.encode(self.lm, self.family.embed(self.lm, text), self.seen(*cells), mask), mask

    def seen(self, location: Tensor, words: Tensor) -> Tensor:
        """Condensed cells as visual tokens (B, P, d)."""
        table = _table(self.lm)
        image, *parts = F.embedding(words, table).mul(words.ne(self.pad)[..., None]).unbind(2)
        said = sum(parts[1:], start=parts[0])
        if self.family.norm is nn.LayerNorm:
            said = F.layer_norm(said, said.shape[-1:])
        else:
            said = said * torch.rsqrt(said.square().mean(-1, keepdim=True) + 1e-6)
        return said + image + F.embedding(location, table)

    def generated(self, text: Tensor, cells: tuple[Tensor, Tensor] | None) -> Tensor:
        """The ids of what it answers, greedily."""
        states, mask = self.encode(text, cells)
        ids = self.lm.generate(  # type: ignore[misc]  # the stub asks for a self that no model is
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask.long(),
            max_length=40,
            do_sample=False,
        )
        assert isinstance(ids, Tensor)
        return ids

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
        targets = self.targets([e.target for e in exercises])
        if form == "written":
            return (self.text([f"{e.text} {e.written(rng)}" for e in exercises]), None), targets
        told = self.cells([e.condensed(cells, rng) for e in exercises])
        return (self.text([e.text for e in exercises]), told), targets

    def denoising(self, exercises: Sequence[Exercise | ClipExercise], rng: Random) -> tuple[Inputs, Tensor]:
        """Spans of about three tokens, 30 % (BART) or 15 % (T5) of the text, are to be restored."""
        sources, targets = [], []
        for e in exercises:
            line = rng.choice((e.written(rng), f"{e.text} {e.target}"))
            ids = self.tokenizer(line, add_special_tokens=False).input_ids
            source, target = denoised(self.tokenizer, ids, rng)
            sources.append(source)
            targets.append(target)
        return (self.padded(sources), None), self.padded(targets)

    def padded(self, lines: Sequence[list[int]]) -> Tensor:
        """With the tokenizer's special tokens around each line."""
        start = self.tokenizer.bos_token_id
        bos = [] if start is None else [start]
        ids = [torch.tensor([*bos, *line, self.tokenizer.eos_token_id]) for line in lines]
        return nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=self.pad)

    def save(self, folder: Path) -> None:
        """The usual `transformers` files."""
        config = self.lm.config
        start = getattr(config, "decoder_start_token_id", None)
        self.lm.generation_config = GenerationConfig(
            bos_token_id=self.tokenizer.bos_token_id,
            pad_token_id=config.pad_token_id,
            eos_token_id=config.eos_token_id,
            **({} if start is None else {"decoder_start_token_id": start}),
        )
        self.lm.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        for file in folder.iterdir():
            file.chmod(0o644)

    @torch.no_grad()
    def accuracy(self, task: str, *, form: str = "condensed", count: int = 200, seed: int = 1) -> float:
        """Share of exact answers, generated greedily, to exercises about fresh scenes."""
        was_training, rng = self.lm.training, Random(f"fresh-{task}-{seed}")
        self.lm.eval()
        exercises = [exercise(task, rng) for _ in range(count)]
        inputs, _ = self.comprehension(exercises, form, FRAMES if task in CLIP_TASKS else GRID * GRID, rng)
        said = self.tokenizer.batch_decode(self.generated(*inputs), skip_special_tokens=True)
        self.lm.train(was_training)
        return sum(s == e.target for s, e in zip(said, exercises, strict=True)) / count


class Continuing(Reader):
    """A decoder-only one: it reads [begin; cells; text] and goes on with the answer; what is denoised, it goes on with.

    Padding stands on the right, behind the answer, but for texts of a batch, whose padding is masked where it is.
    """

    @property
    def begin(self) -> int:
        return cast(int, self.lm.config.bos_token_id)

    def text(self, lines: Sequence[str]) -> Tensor:
        """Texts (B, L) without begin and end."""
        return self.tokenizer(list(lines), padding=True, return_tensors="pt", add_special_tokens=False).input_ids

    def targets(self, lines: Sequence[str]) -> Tensor:
        return self.text([f"{line}{self.tokenizer.eos_token}" for line in lines])

    def prompt(self, text: Tensor, cells: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """[begin; cells; text] (B, N, d) and its mask (B, N), padding on the left."""
        begin = F.embedding(text.new_full((len(text), 1), self.begin), _table(self.lm))
        seen = begin[:, :0] if cells is None else self.seen(*cells)
        states = torch.cat([begin, seen, F.embedding(text, _table(self.lm))], dim=1)
        mask = torch.cat([text.new_ones(len(text), 1 + seen.shape[1]), text.ne(self.pad).long()], dim=1)
        mask, order = mask.sort(dim=1, stable=True)
        return states.gather(1, order[..., None].expand_as(states)), mask

    def loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        states, mask = self.prompt(*inputs)
        joint = torch.cat([mask, targets.ne(self.pad).long()], dim=1)
        logits = self.lm(
            inputs_embeds=torch.cat([states, F.embedding(targets, _table(self.lm))], dim=1),
            attention_mask=joint,
            position_ids=(joint.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
        ).logits[:, states.shape[1] - 1 : -1]
        return F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=self.pad)

    def generated(self, text: Tensor, cells: tuple[Tensor, Tensor] | None) -> Tensor:
        states, mask = self.prompt(text, cells)
        return cast(Any, self.lm).generate(
            inputs_embeds=states, attention_mask=mask, max_new_tokens=40, do_sample=False
        )

    def denoising(self, exercises: Sequence[Exercise | ClipExercise], rng: Random) -> tuple[Inputs, Tensor]:
        """Lines to be written from nothing."""
        lines = [rng.choice((e.written(rng), f"{e.text} {e.target}")) for e in exercises]
        return (torch.empty(len(lines), 0, dtype=torch.long), None), self.targets(lines)


def _llama(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    lm = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2 * LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            max_position_embeddings=256,
            initializer_range=0.1,
            tie_word_embeddings=True,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=3,
        )
    )
    _table(lm).data.mul_(3)
    return lm


def load_reader(folder: Path) -> Reader:
    """A written backbone, to examine what it understands."""
    tokenizer, config = AutoTokenizer.from_pretrained(folder), AutoConfig.from_pretrained(folder)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    family: type[Family] = FAMILIES.get(config.model_type)
    lm: Any = family.stock.from_pretrained(folder, dtype=torch.float32)
    return (Reader if config.is_encoder_decoder else Continuing)(lm.eval(), tokenizer)
