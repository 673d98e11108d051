"""Masks that are made without reading the device are those of the stock model."""

from __future__ import annotations

import torch

from pet_bench.backbone import encoder_decoder
from tests.pet.minis import batch, every, logits, mini, nudge


@every
def test_masks_made_beforehand(family, method, monkeypatch):
    """As on an accelerator."""
    model, inputs = nudge(mini(family, method)), batch(family)
    stock = logits(model, inputs)
    monkeypatch.setattr(encoder_decoder, "waits", lambda tensor: True)
    torch.testing.assert_close(logits(model, inputs), stock, rtol=1e-4, atol=1e-4)
