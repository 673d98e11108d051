"""A stock encoder-decoder that reads text and images together."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from pet_bench.backbone.families import FAMILY, Family
from pet_bench.backbone.known import Shape
from pet_bench.backbone.visual import VisualEmbedding
from pet_bench.spec import Visual


class VisionLanguageModel(nn.Module):
    """`lm` is the stock `transformers` model, `visual` the visual embedding, `pet` what a design has added.

    The encoder reads [text; visual]; padding text is masked, visual positions never are. The decoder is stock.
    Parameters of the stock model keep their names under `lm.`.
    """

    def __init__(self, lm: PreTrainedModel, shape: Shape, visual: Visual):
        super().__init__()
        self.lm = lm
        self.shape = shape
        self.family: type[Family] = FAMILY[shape.family]
        self.visual = VisualEmbedding(visual, shape.d, self.family.norm, self.family.visual_eps)
        self.pet = nn.ModuleDict()
        for linear in (self.visual.feature, self.visual.box):
            self.family.init_linear(linear)
        self.family.init_embedding(self.visual.image_order.weight)

    def encode(self, text: Tensor, features: Tensor, boxes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """text (B, L) ids, features (B, I, N, f), boxes (B, I, N, 4) → states (B, L+I*P, d), mask (B, L+I*P)."""
        words = self.lm.get_input_embeddings().weight
        visual = self.visual(features, words, boxes)
        text_mask = text != self.lm.config.pad_token_id
        mask = torch.cat([text_mask, text_mask.new_ones(visual.shape[:2])], dim=1)
        return self.family.encode(self.lm, text, visual, mask), mask

    def forward(self, text: Tensor, features: Tensor, targets: Tensor, boxes: Tensor | None = None) -> Tensor:
        """Teacher-forced logits (B, T, V) for targets (B, T), padded with -100."""
        states, mask = self.encode(text, features, boxes)
        return self.decode(states, mask, self.shift_right(targets))

    def decode(self, states: Tensor, mask: Tensor, decoder_ids: Tensor) -> Tensor:
        """Logits (B, T, V) of decoder ids (B, T) over encoder states (B, N, d) under mask (B, N)."""
        return self.lm(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask,
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
        self, text: Tensor, features: Tensor, *, num_beams: int, max_length: int, boxes: Tensor | None = None
    ) -> Tensor:
        """Decoded ids (B, ≤ max_length), start token first; the checkpoint's other generation settings hold.

        As in the published runs (transformers 4.2.1): no token is forced first, and the end token is forced last in
        BART's beam search only (TASKS.md section 0.5).
        """
        states, mask = self.encode(text, features, boxes)
        forced_end = self.lm.config.eos_token_id if self.shape.family == "bart" and num_beams > 1 else None
        return self.lm.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask.long(),
            num_beams=num_beams,
            max_length=max_length,
            do_sample=False,
            forced_bos_token_id=None,
            forced_eos_token_id=forced_end,
        )
