"""A stock encoder-decoder that reads text and images together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from pet_bench.backbone.families import Family, family_of
from pet_bench.backbone.known import Shape
from pet_bench.backbone.visual import VisualEmbedding, pool_grid
from pet_bench.errors import UserError
from pet_bench.spec import Visual


@dataclass
class Context:
    """What the model is running on, for modules that need more than X and H.

    task: the batch's task. mask: (B, N) bool, true where the encoder's positions are no padding.
    """

    task: str | None = None
    mask: Tensor | None = None

    def task_among(self, tasks: Iterable[str]) -> str:
        """The batch's task; raises UserError where it is not one of those that a module was built for."""
        if self.task not in tasks:
            raise UserError(f'task "{self.task}": the method was built for {", ".join(tasks)}')
        return self.task


@dataclass
class Encoded(BaseModelOutput):
    """Encoder states `last_hidden_state` (B, N, d) with their mask (B, N), and whose batch they are.

    side, side_mask: likewise of a side network, (B, M, width) and (B, M).
    """

    mask: Tensor | None = None
    side: Tensor | None = None
    side_mask: Tensor | None = None
    task: str | None = None


class VisionLanguageModel(nn.Module):
    """`lm` is the stock `transformers` model, `visual` the visual embedding, `pet` what a design has added.

    The encoder reads [text; visual]; padding text is masked, and visual positions never are, but for those of all-zero
    features in the tasks that `masks_empty` names. The decoder is stock. Parameters of the stock model keep their names
    under `lm.`. Ways in for a method that is more than inserts: `text_edits`, functions of the embedded text (B, L, d)
    and its mask (B, L) that return both; `visual`, which may be replaced; and a module `pet.side` with
    `encode(words, text_mask, visual, visual_mask)`, which then runs the encoder.
    """

    def __init__(self, lm: PreTrainedModel, shape: Shape, visual: Visual):
        super().__init__()
        self.lm = lm
        self.shape = shape
        self.family: type[Family] = family_of(lm.config)
        self.visual = VisualEmbedding(visual, shape.d, self.family.norm, self.family.visual_eps)
        self.pet = nn.ModuleDict()
        self.context = Context()
        self.masks_empty: frozenset[str] = frozenset()
        self.text_edits: list[Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = []
        for linear in (self.visual.feature, self.visual.box):
            self.family.init_linear(linear)
        self.family.init_embedding(self.visual.image_order.weight)

    @property
    def words(self) -> Tensor:
        """The word table (V, d) that the encoder reads."""
        return self.lm.get_encoder().embed_tokens.weight

    def encode(
        self, text: Tensor, features: Tensor, boxes: Tensor | None = None, *, task: str | None = None
    ) -> Encoded:
        """text (B, L) ids, features (B, I, N, f), boxes (B, I, N, 4) → states and mask over L + I*P positions."""
        self.context.task = task
        visual = self.visual(features, self.words, boxes)
        words, mask = self.family.embed(self.lm, text), text != self.lm.config.pad_token_id
        for edit in self.text_edits:
            words, mask = edit(words, mask)
        seen = mask.new_ones(visual.shape[:2])
        if task in self.masks_empty and seen.numel():
            seen = pool_grid(features, visual.shape[1] // features.shape[1]).any(dim=-1).flatten(1)
        if "side" in self.pet:
            self.context.mask = mask
            encoded = self.pet["side"].encode(words, mask, visual, seen)
        else:
            self.context.mask = joint = torch.cat([mask, seen], dim=1)
            encoded = Encoded(self.family.encode(self.lm, words, visual, joint), mask=joint)
        encoded.task = task
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

    def decode(self, encoded: Encoded, decoder_ids: Tensor) -> Tensor:
        """Logits (B, T, V) of decoder ids (B, T)."""
        self.context.task, self.context.mask = encoded.task, encoded.mask
        return self.lm(
            encoder_outputs=encoded,
            attention_mask=encoded.mask,
            decoder_input_ids=decoder_ids,
            use_cache=False,
        ).logits

    def shift_right(self, targets: Tensor) -> Tensor:
        """Targets (B, T) moved one place to the right behind the start token; -100 becomes padding."""
        config = self.lm.config
        start = targets.new_full((len(targets), 1), config.decoder_start_token_id)
        shifted = torch.cat([start, targets[:, :-1]], dim=1)
        return shifted.masked_fill(shifted == -100, config.pad_token_id)

    @torch.no_grad()
    def generate(
        self,
        text: Tensor,
        features: Tensor,
        *,
        num_beams: int,
        max_length: int,
        plain: bool = False,
        boxes: Tensor | None = None,
        task: str | None = None,
    ) -> Tensor:
        """Decoded ids (B, ≤ max_length), start token first; the checkpoint's other generation settings hold.

        plain: without the checkpoint's `no_repeat_ngram_size` and `early_stopping`.

        As in the published runs (transformers 4.2.1): no token is forced first, and the end token is forced last in
        BART's beam search only (TASKS.md section 0.5).
        """
        encoded = self.encode(text, features, boxes, task=task)
        forced_end = self.lm.config.eos_token_id if self.shape.family == "bart" and num_beams > 1 else None
        # transformers' own cache has as many layers as T5's encoder, which may be fewer than the decoder's
        cache = {"past_key_values": EncoderDecoderCache(DynamicCache(), DynamicCache())}
        return self.lm.generate(
            encoder_outputs=encoded,
            attention_mask=encoded.mask.long(),
            num_beams=num_beams,
            max_length=max_length,
            do_sample=False,
            forced_bos_token_id=None,
            forced_eos_token_id=forced_end,
            **(cache if self.lm.generation_config.use_cache else {}),
            **({"no_repeat_ngram_size": 0, "early_stopping": False} if plain else {}),
        )
