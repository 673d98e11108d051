"""The optimiser's own ways of doing one update."""

from __future__ import annotations

import pytest
import torch

from pet_bench.trial import optim
from pet_bench.trial.optim import ReferenceAdamW

SHAPES = [(7,), (3, 50), (64, 33), (1, 1), (200,), (2, 3, 5), (0,)]


def updated(count: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    params.append(torch.nn.Parameter(torch.randn(40, 30, generator=generator).t()))  # not contiguous
    groups = [{"params": params[::2], "weight_decay": 0.01}, {"params": params[1::2], "lr": 0.1}]
    optimizer = ReferenceAdamW(groups, lr=0.01)
    for step in range(count):
        for i, p in enumerate(params):
            p.grad = None if (i + step) % 4 == 0 else torch.randn(p.shape, generator=generator)
        optimizer.step()
    return [p.detach() for p in params] + [m for state in optimizer.state.values() for m in (state["m"], state["v"])]


@pytest.mark.parametrize("piece", [1, 16, 100, 10_000])
def test_pieces_change_no_bit(piece, monkeypatch):
    whole = updated()
    monkeypatch.setattr(optim, "PIECE", piece)
    for ours, theirs in zip(updated(), whole, strict=True):
        assert torch.equal(ours, theirs)


def test_no_piece_is_left_out_or_larger(monkeypatch):
    sizes = []
    monkeypatch.setattr(optim, "PIECE", 64)
    update = ReferenceAdamW._update

    def noted(self, group, params, *others):
        sizes.append(sum(p.numel() for p in params))
        update(self, group, params, *others)

    monkeypatch.setattr(ReferenceAdamW, "_update", noted)
    p = torch.nn.Parameter(torch.zeros(1000))
    p.grad = torch.ones(1000)
    ReferenceAdamW([p], lr=0.1).step()
    assert sum(sizes) == 1000
    assert max(sizes) <= 64
    assert p.detach().unique().numel() == 1
    assert p[0] != 0
