"""The visual embedding: from image or clip features to encoder tokens. Trained in every method."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pet_bench.spec import Visual


class VisualEmbedding(nn.Module):
    """Token j of image k: e = Norm(W_f f + b_f) + Norm(W_p [box, area] + b_p) + order[k] + E_word[V-1-j].

    W_f (d, width), W_p (d, 5), order (images, d); Norm is the family's own (LayerNorm, or T5's RMS norm). Features
    of a square grid are max-pooled to a smaller square first; boxes are not pooled but cut to the first rows.
    E_word is the backbone's word embedding: the gradient reaches it only where it is trained itself.

    Source: VL-T5 and VL-Adapter (METHODS.md section 1). The published CLIP loaders set all boxes to zero, so the
    position term is a learned constant; `boxes=None` means that.
    """

    def __init__(self, visual: Visual, d: int, norm: type[nn.Module], eps: float):
        super().__init__()
        self.visual = visual
        self.feature = nn.Linear(visual.width, d)
        self.feature_norm = norm(d, eps=eps)
        self.box = nn.Linear(5, d)
        self.box_norm = norm(d, eps=eps)
        self.image_order = nn.Embedding(visual.images, d)

    def forward(self, features: Tensor, words: Tensor, boxes: Tensor | None = None) -> Tensor:
        """features (B, I, N, width), words (V, d), boxes (B, I, N, 4) or None → (B, I*P, d)."""
        features = pool_grid(features, self.visual.pooled)
        images, tokens = features.shape[1:3]
        if boxes is None:
            position = features.new_zeros(1, 1, 1, 5)
        else:
            boxes = boxes[:, :, :tokens]
            area = (boxes[..., 3] - boxes[..., 2]) * (boxes[..., 1] - boxes[..., 0])
            position = torch.cat([boxes, area.unsqueeze(-1)], dim=-1)
        order = self.image_order.weight[:images, None]  # (I, 1, d)
        objects = words[-tokens:].flip(0)  # row V-1-j for j = 0 … P-1
        embedded = self.feature_norm(self.feature(features)) + self.box_norm(self.box(position)) + order + objects
        return embedded.flatten(1, 2)


def pool_grid(features: Tensor, pooled: int) -> Tensor:
    """Adaptive max pooling of a square, row-major grid: (B, I, N, f) → (B, I, pooled, f); N = pooled is kept."""
    batch, images, tokens, width = features.shape
    if tokens == pooled:
        return features
    side, target = math.isqrt(tokens), math.isqrt(pooled)
    grid = features.reshape(batch * images, side, side, width).permute(0, 3, 1, 2)
    return F.adaptive_max_pool2d(grid, target).flatten(2).transpose(1, 2).reshape(batch, images, pooled, width)
