"""Losses of logits at labels are those of all logits: of a small vocabulary to the bit, else within rounding."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from pet_bench.backbone.interface import SMALL
from pet_bench.data.batches import labels_of
from pet_bench.trial.loss import per_token_loss


@pytest.mark.parametrize("words", [150, 651, SMALL - 1, SMALL, 9000])
@pytest.mark.parametrize("rows", [1, 3, 50])
def test_losses_and_gradients_of_all_logits(words, rows):
    generator = torch.Generator().manual_seed(words)
    logits = torch.randn(rows, 5, words, generator=generator, requires_grad=True)
    targets = torch.randint(words, (rows, 5), generator=generator)
    targets[torch.arange(5)[None] > torch.arange(rows)[:, None] % 5] = -100
    labels, weights = labels_of(targets), torch.rand(rows, 5, generator=generator)
    whole = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    losses = per_token_loss(logits.flatten(0, 1)[labels], targets, labels)
    (theirs,), (own,) = (torch.autograd.grad((each * weights).sum(), logits) for each in (whole, losses))
    if words < SMALL:
        assert torch.equal(losses, whole)
        assert torch.equal(own, theirs)
    else:
        torch.testing.assert_close(losses, whole, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(own, theirs, rtol=1e-5, atol=1e-8)
