"""Prompt tuning (Lester et al., EMNLP 2021): learned tokens before the text."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from pet_bench.pet import Builder, Design, Door, Method
from pet_bench.spec import STRICT, Size


@dataclass(frozen=True, config=STRICT)
class Prompt(Door):
    """Encoder input [P; text; image], P = W_2 tanh(W_1 T + b_1) + b_2, T (length, d), W_1 (hidden, d), W_2 (d, hidden).

    The prompt is part of the text block: BART's embedding norm acts on [P; text], T5's relative positions run through
    it; BART's positions start at the text. It is never masked. per_task: every task has its own.
    """

    kind: ClassVar = "prompt"
    length: Size
    hidden: Size
    per_task: bool = False

    @property
    def formula(self) -> str:
        own = ", one per task" if self.per_task else ""
        return f"encoder input = [P; text; image],  P = W_2 tanh(W_1 T + b_1) + b_2, T ({self.length}, d){own}"

    def open(self, build):
        def make():
            return PromptModule(self, build)

        prompt = build.by_task(make) if self.per_task else make()
        build.model.text_edits.append(prompt)
        return prompt


class PromptModule(nn.Module):
    def __init__(self, spec: Prompt, build: Builder):
        super().__init__()
        d = build.anatomy.d
        self.table = build.table(spec.length, d)
        self.project = nn.Sequential(build.linear(d, spec.hidden), nn.Tanh(), build.linear(spec.hidden, d))

    def forward(self, words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """words (B, L, d), mask (B, L) → both with the prompt before them."""
        prompt = self.project(self.table).expand(len(words), -1, -1)
        return torch.cat([prompt, words], dim=1), torch.cat([mask.new_ones(prompt.shape[:2]), mask], dim=1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PromptTuning(Method):
    """The encoder reads [P; text; image], P = W_2 tanh(W_1 T + b_1) + b_2, (length, d).

    The prompt stands before the text: a decoder-only model reads [begin; image; P; text]. Models fed with pixels have
    no place for it: their processors lay out text and images together, and positions and masks follow that.
    length: 40 tokens; hidden: 800; both as published, at every d. The network stays: P is not folded after training.
    Deliberate difference from Lester et al.: they learn P itself.
    """

    name: ClassVar = "prompt-tuning"
    source: ClassVar = "Lester et al., EMNLP 2021; network and settings of VL-PET Table 2 and Ladder-Side-Tuning"
    year: ClassVar = 2021
    needs: ClassVar = ("prompts",)
    size: ClassVar = "length"
    learning_rates: ClassVar = {"t5": 3e-3, "mini-bart": 1e-2, "mini-t5": 1e-2}

    length: Size = 40
    hidden: Size = 800
    per_task: bool = False

    def design(self, anatomy):
        return Design(doors=(Prompt(self.length, self.hidden, self.per_task),))
