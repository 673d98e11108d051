"""Token cross-entropy and the three ways the tasks reduce it (TASKS.md section 0.6)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from pet_bench.backbone.interface import SMALL
from pet_bench.data.batches import Batch


def per_token_loss(logits: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy (B, T) in float32 of logits (n, V) at the labels (n,), positions in the flat targets (B, T); 0
    elsewhere."""
    logits = logits.float()
    if logits.shape[-1] < SMALL:
        whole = logits.new_zeros(targets.numel(), logits.shape[-1]).index_copy(0, labels, logits)
        return F.cross_entropy(whole.view(*targets.shape, -1).transpose(1, 2), targets, reduction="none")
    losses = F.cross_entropy(logits, targets.flatten()[labels], reduction="none")
    return losses.new_zeros(targets.numel()).index_copy(0, labels, losses).view_as(targets)


def reduce_loss(losses: Tensor, targets: Tensor, reduction: str, scores: Tensor | None = None) -> Tensor:
    """The scalar that is back-propagated. T_b: the tokens of example b's target, start and end words included.

    sample-mean: mean_b (1/T_b) Σ_t CE_bt. score-weighted: mean_b score_b (1/T_b) Σ_t CE_bt, scores (B,).
    token-mean: Σ_bt CE_bt / Σ_b T_b.
    """
    lengths = (targets != -100).sum(dim=1)
    if reduction == "token-mean":
        return losses.sum() / lengths.sum()
    means = losses.sum(dim=1) / lengths.clamp(min=1)
    if reduction == "score-weighted":
        assert scores is not None  # a batch has them
        means = means * scores
    return means.mean()


def share_of(part: Batch, whole: Batch, reduction: str) -> float:
    """What the loss of a part of a batch counts in that of the whole one.

    Its share of the tokens for token-mean, else of the examples.
    """
    if reduction == "token-mean":
        return len(part.labels) / len(whole.labels)
    return len(part) / len(whole)
