"""The optimiser's own ways of doing one update."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from pet_bench.trial import optim
from pet_bench.trial.optim import ReferenceAdamW

SHAPES = [(7,), (3, 50), (64, 33), (1, 1), (200,), (2, 3, 5), (0,)]


def updated(count: int = 3, **options) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    params.append(torch.nn.Parameter(torch.randn(40, 30, generator=generator).t()))  # not contiguous
    groups = [{"params": params[::2], "weight_decay": 0.01}, {"params": params[1::2], "lr": 0.1}]
    optimizer = ReferenceAdamW(groups, lr=0.01, **options)
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


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.98)])
def test_steps_and_rates_as_tensors_are_the_published_update(betas):
    """Within rounding, also where some have no gradient, and so other counts of steps."""
    for ours, theirs in zip(updated(9, capturable=True, betas=betas), updated(9, betas=betas), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=1e-7)


def optimised(capturable: bool, rates=(0.0, 0.1)):
    p = torch.nn.Parameter(torch.linspace(-1, 1, 7))
    p.grad = torch.linspace(2, 1, 7)
    optimizer = ReferenceAdamW([p], lr=0.1, weight_decay=0.5, capturable=capturable)
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    return p, optimizer


def test_a_captured_update_reads_the_rates_of_now():
    """The first update's rate is 0, and changes nothing."""
    p, optimizer = optimised(True, rates=(0.0,))
    assert torch.equal(p.detach(), torch.linspace(-1, 1, 7)) and optimizer.state[p]["step"].shape == ()
    optimizer.param_groups[0]["lr"] = 5.0
    optimizer.update()
    assert torch.equal(p.detach(), torch.linspace(-1, 1, 7))
    optimizer.take_rates()
    optimizer.update()
    assert not torch.equal(p.detach(), torch.linspace(-1, 1, 7))


@pytest.mark.parametrize("before", [False, True])
def test_a_state_goes_on_either_way(before):
    """As where a checkpoint of a CPU is taken up on an accelerator."""
    (p, one), (q, other) = optimised(before), optimised(not before)
    other.state[q] = deepcopy(one.state[p])
    one.step()
    other.step()
    assert isinstance(other.state[q]["step"], torch.Tensor) == (not before)
    torch.testing.assert_close(q, p, rtol=2e-6, atol=1e-7)


def test_the_schedule_sets_numbers():
    _, optimizer = optimised(True)
    schedule = optim.linear_schedule(optimizer, warmup=2, total=4)
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)
    optimizer.take_rates()
    assert optimizer.rates[0].item() == pytest.approx(0.05)
