"""Stock encoder-decoders fed with stored features: one encoder reads [text; image], the decoder is stock."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import BaseModelOutput

from pet_bench.backbone.anatomy import Anatomy, Site, Stack, attention_sites
from pet_bench.backbone.beams import search, shared_cache, sharing
from pet_bench.backbone.family import Family
from pet_bench.backbone.interface import Inputs, Model, plain_settings
from pet_bench.backbone.visual import VisualEmbedding, pool_grid
from pet_bench.errors import UserError
from pet_bench.spec import Visual

Edit = Callable[[Tensor], Tensor]


@dataclass
class Encoded(BaseModelOutput):
    """Encoder states `last_hidden_state` (B, N, d) with their mask (B, N), the visual tokens, what is kept beside
    them, and whose batch they are.

    side, side_mask: likewise of a side network, (B, M, width) and (B, M). example (B,): 0 … B-1. `generate` repeats all
    tensors for its beams.
    """

    mask: Tensor | None = None
    visual: Tensor | None = None
    seen: Tensor | None = None
    beside: Tensor | None = None
    side: Tensor | None = None
    side_mask: Tensor | None = None
    example: Tensor | None = None
    task: str | None = None


class EncoderDecoder(Model):
    """The encoder reads [text; visual], `visual` being the visual embedding.

    Padding text is masked, and visual positions never are, but for those of all-zero features in the tasks that
    `masks_empty` names. A module `pet.side` with `encode(words, text_mask, visual, visual_mask)` runs the encoder in
    the place of the family's `encode`.
    """

    aligned = True
    family: type[EncoderDecoderFamily]

    def __init__(self, lm: PreTrainedModel, anatomy: Anatomy, family: type[EncoderDecoderFamily], visual: Visual):
        super().__init__(lm, anatomy, family)
        self.visual: nn.Module = VisualEmbedding(visual, anatomy.d, family.norm, family.visual_eps)
        self.joint, self.states = nn.Identity(), nn.Identity()  # the encoder's first input and last output, as places
        self.pet = nn.ModuleDict()
        for linear in (self.visual.feature, self.visual.box):
            family.init_linear(linear)
        family.init_embedding(self.visual.image_order.weight)
        lm.register_forward_pre_hook(self._recall, with_kwargs=True)

    def _recall(self, lm: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """What the decoder runs on is what was encoded, a row for each beam."""
        if isinstance(encoded := kwargs.get("encoder_outputs"), Encoded):
            context = self.context
            context.task, context.mask = encoded.task, encoded.mask
            context.visual, context.seen, context.encoded = encoded.visual, encoded.seen, encoded.last_hidden_state
            context.side, context.beside, context.example = encoded.side, encoded.beside, encoded.example

    def encode(
        self, text: Tensor, features: Tensor, boxes: Tensor | None = None, *, task: str | None = None
    ) -> Encoded:
        """text (B, L) ids, features (B, I, N, f), boxes (B, I, N, 4) → states and mask over L + I*P positions."""
        self.context.task = task
        visual = self.visual(features, self.words, boxes)
        words, mask = self.family.embed(self.lm, text), text != self.pad
        seen = mask.new_ones(visual.shape[:2])
        if task in self.masks_empty and seen.numel():
            seen = pool_grid(features, visual.shape[1] // features.shape[1]).any(dim=-1).flatten(1)
        self.context.visual, self.context.seen = visual, seen
        for edit in self.text_edits:
            words, mask = edit(words, mask)
        if "side" in self.pet:
            self.context.mask = mask
            side: Any = self.pet["side"]
            encoded = side.encode(words, mask, visual, seen)
        else:
            self.context.mask = joint = torch.cat([mask, seen], dim=1)
            states = self.family.encode(self.lm, words, visual, joint, self.joint, self.states)
            encoded = Encoded(states, mask=joint, side=self.context.side)
        encoded.task, encoded.visual, encoded.seen, encoded.beside = task, visual, seen, self.context.beside
        encoded.example = torch.arange(len(text), device=text.device)
        return encoded

    def forward(
        self,
        text: Tensor,
        features: Tensor,
        targets: Tensor,
        boxes: Tensor | None = None,
        *,
        task: str | None = None,
    ) -> Tensor:
        """Teacher-forced logits (B, T, V) for targets (B, T), padded with -100."""
        return self.decode(self.encode(text, features, boxes, task=task), self.shift_right(targets))

    def logits(self, inputs: Inputs, targets: Tensor) -> Tensor:
        return self(**inputs, targets=targets)

    def decode(self, encoded: Encoded, decoder_ids: Tensor) -> Tensor:
        """Logits (B, T, V) of decoder ids (B, T)."""
        assert encoded.mask is not None
        return self.lm(
            encoder_outputs=encoded,
            attention_mask=prepared(encoded.mask),
            decoder_attention_mask=causal(decoder_ids),
            decoder_input_ids=decoder_ids,
            use_cache=False,
        ).logits

    def shift_right(self, targets: Tensor) -> Tensor:
        """Targets (B, T) moved one place to the right behind the start token; -100 becomes padding."""
        start = targets.new_full((len(targets), 1), self.lm.config.decoder_start_token_id)
        shifted = torch.cat([start, targets[:, :-1]], dim=1)
        return shifted.masked_fill(shifted == -100, self.pad)

    def read_before(self, answer: Tensor | None) -> Tensor:
        if answer is not None:
            return self.shift_right(answer)
        config = self.lm.config
        ids = [config.decoder_start_token_id, *(getattr(config, name) for name in self.family.before_choice)]
        return torch.tensor([ids], device=self.device)

    @torch.no_grad()
    def generate(self, inputs: Inputs, *, num_beams: int, max_length: int, plain: bool = False) -> Tensor:
        """max_length counts the start token, which is not among the ids, as in the published runs.

        Also as there (transformers 4.2.1): no token is forced first, and whether the end token is forced last is the
        family's (TASKS.md section 0.5).
        """
        encoded = self.encode(**inputs)
        assert encoded.mask is not None
        # transformers' own cache has as many layers as T5's encoder, which may be fewer than the decoder's
        cache = (
            {} if self.lm.generation_config.use_cache is False else {"past_key_values": shared_cache(len(encoded.mask))}
        )
        forced = self.lm.config.eos_token_id if self.family.beams_end and num_beams > 1 else None
        with sharing(self, num_beams):
            ids = self.lm.generate(
                encoder_outputs=encoded,
                attention_mask=encoded.mask.long(),
                num_beams=num_beams,
                max_length=max_length,
                do_sample=False,
                forced_bos_token_id=None,
                forced_eos_token_id=forced,
                custom_generate=search if num_beams > 1 else None,
                **cache,
                **plain_settings(plain),
            )
        return ids[:, 1:]

    def choose(self, inputs: Inputs, words: list[int]) -> Tensor:
        """After one pass of the decoder over what `read_before(None)` has."""
        encoded = self.encode(**inputs)
        ids = self.read_before(None).expand(len(inputs["text"]), -1)
        return self.decode(encoded, ids)[:, -1, words]


def waits(tensor: Tensor) -> bool:
    """Whether the host has to wait to read it."""
    return tensor.device.type != "cpu"


def prepared(mask: Tensor) -> Tensor:
    """(B, N) as stock attention takes it, (B, 1, 1, N): else the stock model reads it, to find out whether it can do
    without. Where that is for nothing, as it is."""
    return mask[:, None, None] if waits(mask) else mask


def causal(ids: Tensor) -> Tensor | None:
    """Likewise what each of (B, T) may look at, (1, 1, T, T)."""
    if not waits(ids):
        return None
    return torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).tril()[None, None]


def keep(states: Tensor) -> Tensor:
    return states


class EncoderDecoderFamily(Family):
    """What encoder-decoders of one architecture have of their own: paths below a layer, and the order of their parts.

    stacks: path of each stack and, inside it, of layer `{i}`. depth: the configuration's keys of layers and heads.
    sub_layers: (reader, writer) below a layer. before_choice: what the decoder has read, behind the start token, where
    it chooses, as it was trained. beams_end: beam search forces the end token last. input, output: where words enter a
    stack and where its last states leave it; None where no module stands there.

    For side networks: narrow are the configuration's widths, alike the projections of a module that read the same, and
    walk the modules of a layer in the order in which a state passes through them.
    """

    stacks: ClassVar[dict[str, tuple[str, str]]]
    depth: ClassVar[dict[str, tuple[str, str]]]
    sub_layers: ClassVar[dict[str, tuple[str, str]]]
    projections: ClassVar[dict[str, str]]
    before_choice: ClassVar[tuple[str, ...]] = ()
    beams_end: ClassVar[bool] = False
    biases: ClassVar[bool]
    decoder_input: ClassVar[str]
    decoder_output: ClassVar[str]
    narrow: ClassVar[tuple[str, ...]]
    alike: ClassVar[tuple[tuple[str, ...], ...]]
    walk: ClassVar[dict[str, tuple[str, ...]]]

    @classmethod
    @abstractmethod
    def feed_forward(cls, name: str, reader: str, writer: str, config: Any) -> dict[str, Site]:
        """The sites of a feed-forward."""

    @classmethod
    def anatomy(cls, backbone, config, rates_of=""):
        stacks = {"projector": Stack(1, config.d_model, 0, "visual")}
        sites = {"projector.in": Site("visual.feature", "visual.feature"), "projector.output": Site(None, "visual")}
        for stack, (path, block) in cls.stacks.items():
            layers, heads = (getattr(config, key) for key in cls.depth[stack])
            stacks[stack] = Stack(layers, config.d_model, heads, path, blocks := f"{path}.{block}.{{i}}")
            sites[f"{stack}.layer"] = Site(blocks, blocks)
            for name, paths in cls.sub_layers.items():
                if not name.startswith(stack):
                    continue
                reader, writer = (f"{blocks}.{path}" for path in paths)
                if name.endswith("attn"):
                    sites |= attention_sites(name, reader, writer, cls.projections)
                else:
                    sites |= cls.feed_forward(name, reader, writer, config)
        sites |= {"encoder.input": Site(None, "joint"), "encoder.output": Site(None, "states")}
        sites |= {"decoder.input": Site(None, cls.decoder_input), "decoder.output": Site(None, cls.decoder_output)}
        return Anatomy(
            backbone,
            cls.name,
            stacks,
            sites | {"decoder.head": Site("lm.lm_head", "lm.lm_head")},
            reading="encoder",
            writing="decoder",
            embeddings=tuple(f"{path}.embed_tokens" for path, _ in cls.stacks.values()),
            head="lm.lm_head",
            biases=cls.biases,
            rates_of=rates_of or backbone,
            offers=("prompts", "side blocks", "features"),
        )

    @classmethod
    def model(cls, lm, anatomy, visual):
        return EncoderDecoder(lm, anatomy, cls, visual)

    # the encoder's pass over [text; image] ---------------------------------------------------------------------------

    @staticmethod
    @abstractmethod
    def embed(lm: Any, text: Tensor) -> Tensor:
        """Text ids (B, L) as the encoder's input, (B, L, d), before what acts on the whole text block."""

    @staticmethod
    def begin(encoder: Any, words: Tensor) -> Tensor:
        """What acts on the whole text block (B, L, d)."""
        return words

    @staticmethod
    def positions(blocks: Any, length: int, images: int) -> tuple[Tensor, ...]:
        """What layers are told of relative positions, for `length` positions of text before `images` visual ones."""
        return ()

    @staticmethod
    def last_norm(stack: Any) -> nn.Module | None:
        """The norm behind a stack's last layer, after which it drops out once more; None where there is none."""
        return None

    @classmethod
    def finish(cls, stack: Any, norm: nn.Module | None, states: Tensor) -> Tensor:
        return states if norm is None else drop(stack, norm(states))

    @classmethod
    def layers(cls, lm: nn.Module, stack: str) -> nn.ModuleList:
        """The layers of a stack."""
        path, blocks = cls.stacks[stack]
        layers = lm.get_submodule(f"{path}.{blocks}".removeprefix("lm."))
        assert isinstance(layers, nn.ModuleList)
        return layers

    @classmethod
    def encode(
        cls, lm: Any, words: Tensor, visual: Tensor, mask: Tensor, enter: Edit = keep, leave: Edit = keep
    ) -> Tensor:
        """Joint encoding of embedded text (B, L, d) and visual tokens (B, P, d), mask (B, L+P) → (B, L+P, d).

        enter, leave: what acts on the joint input and on the last states.
        """
        encoder, blocks = lm.get_encoder(), cls.layers(lm, "encoder")
        states = drop(encoder, enter(torch.cat([cls.begin(encoder, words), visual], dim=1)))
        masks = create_bidirectional_mask(encoder.config, states, prepared(mask))
        positions = cls.positions(blocks, words.shape[1], visual.shape[1])
        for block in blocks:
            states = first(block(states, masks, *positions))
        return leave(cls.finish(encoder, cls.last_norm(encoder), states))

    # side networks ---------------------------------------------------------------------------------------------------

    @classmethod
    def narrowed(cls, config: PreTrainedConfig, reduction: int) -> PreTrainedConfig:
        """The configuration of a stack `reduction` times thinner; raises UserError where a width does not divide."""
        thin = copy.deepcopy(config)
        for key in cls.narrow:
            if getattr(config, key) % reduction:
                raise UserError(f"{key} = {getattr(config, key)} does not divide by the reduction {reduction}")
            setattr(thin, key, getattr(config, key) // reduction)
        return thin

    @classmethod
    @abstractmethod
    def block(cls, stack: str, config: Any, i: int, layers: int) -> nn.Module:
        """A stock layer. A decoder's keeps its keys and values in the cache behind those of `layers` others."""

    @staticmethod
    @abstractmethod
    def decode_step(
        block: nn.Module, states: Tensor, mask: Any, memory: Tensor, memory_mask: Any, cache: Any, kept: dict[str, Any]
    ) -> Tensor:
        """A decoder layer's states. kept: what one layer tells the next ones."""


def drop(stack: Any, x: Tensor) -> Tensor:
    """The stock stack's dropout of embeddings and final states."""
    return F.dropout(x, stack.dropout, stack.training) if isinstance(stack.dropout, float) else stack.dropout(x)


def first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output
