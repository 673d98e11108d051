"""Doors of the visual side: what replaces the visual embedding or a part of it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from pet_bench.backbone.visual import VisualEmbedding
from pet_bench.errors import UserError
from pet_bench.pet.build import Builder
from pet_bench.pet.deltas import TwoLayer
from pet_bench.pet.parts import Door
from pet_bench.spec import STRICT, Size


@dataclass(frozen=True, config=STRICT)
class LowRankProjector(Door):
    """VL-PET's low-rank visual projector in the place of W_f: p = W_2 gelu_new(W_1 f + b_1) + b_2, W_1 (r, width).

    width: r. heads: must divide r and changes nothing else, as every head reads the whole of f (METHODS.md 3.2).
    gate_width: where given, p ← G ⊙ p with G = σ(V_2 gelu_new(V_1 f)), before the norm. residual: p ← p + G ⊙ p.
    Source: METHODS.md section 9, the ablation of VL-PET's visual projector.
    """

    kind: ClassVar = "low-rank-projector"
    width: Size
    heads: Size = 1
    gate_width: Size | None = None
    residual: bool = False

    @property
    def formula(self) -> str:
        gate = f"{'p + ' if self.residual else ''}σ(V_2 gelu_new(V_1 f)) ⊙ p" if self.gate_width else "p"
        return f"W_f f ← {gate}, p = W_2 gelu_new(W_1 f + b_1) + b_2 (r = {self.width})"

    def open(self, build):
        if self.width % self.heads:
            raise UserError(f"the visual projector's width {self.width} does not divide into {self.heads} heads")
        visual_embedding(build).feature = Projector(self, build)


def visual_embedding(build: Builder) -> Any:
    """The visual embedding; raises UserError where the backbone has none that reads stored features."""
    visual = getattr(build.model, "visual", None)
    if not isinstance(visual, VisualEmbedding):
        raise UserError(f"{build.anatomy.backbone} has no projection of stored features")
    return visual


class Projector(nn.Module):
    def __init__(self, spec: LowRankProjector, build: Builder):
        super().__init__()
        old = visual_embedding(build).feature
        sizes = old.in_features, old.out_features
        self.in_features, self.out_features = sizes
        self.residual = spec.residual
        self.project = TwoLayer.dense(build, sizes[0], spec.width, sizes[1])
        self.gate = TwoLayer.dense(build, sizes[0], spec.gate_width, sizes[1]) if spec.gate_width else None

    def forward(self, features: Tensor) -> Tensor:
        """(…, width) → (…, d)."""
        p = self.project(features)
        if self.gate is None:
            return p
        gated = torch.sigmoid(self.gate(features)) * p
        return p + gated if self.residual else gated


@dataclass(frozen=True, config=STRICT)
class NoVision(Door):
    """The encoder reads the text alone: no visual tokens, no visual embedding."""

    kind: ClassVar = "no-vision"

    @property
    def formula(self) -> str:
        return "encoder input = [text]"

    def open(self, build):
        visual_embedding(build)
        build.model.visual = Blind(build.anatomy.d)


class Blind(nn.Module):
    def __init__(self, d: int):
        super().__init__()
        self.d = d

    def forward(self, features: Tensor, words: Tensor, boxes: Tensor | None = None) -> Tensor:
        """(B, I, N, f) → (B, 0, d)."""
        return words.new_zeros(len(features), 0, self.d)
