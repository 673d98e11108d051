"""Token cross-entropy and the three ways the tasks reduce it (TASKS.md section 0.6)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def per_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy (B, T) of logits (B, T, V) in float32; 0 where targets (B, T) are -100."""
    return F.cross_entropy(logits.float().transpose(1, 2), targets, ignore_index=-100, reduction="none")


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


def share_of(part: Tensor, whole: Tensor, reduction: str) -> float:
    """What the loss of a part of a batch counts in that of the whole one; targets (B, T) of both.

    Its share of the tokens for token-mean, else of the examples.
    """
    if reduction == "token-mean":
        return int((part != -100).sum()) / int((whole != -100).sum())
    return len(part) / len(whole)
