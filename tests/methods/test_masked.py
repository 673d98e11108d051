"""Sparse fine-tuning: which entries train, that no other moves, and their folding into the backbone."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from torch.nn import functional as F

from pet_bench.pet import frozen_tensors
from pet_bench.pet.masked import linears, losses, squared_gradients
from tests.methods.test_against_peft import check_merge, moved
from tests.pet.minis import FAMILIES, batch, built, mini, stock
from tests.tiny import TINY, tiny_batch, tiny_model

both = pytest.mark.parametrize("family", FAMILIES)


class Stand:
    """A batch of training, as far as a door asks."""

    def __init__(self, inputs, targets):
        self.inputs, self.targets = inputs, targets

    def __len__(self):
        return len(self.targets)

    def split(self, parts):
        rows = [slice(i, i + 1) for i in range(parts)]
        return [
            Stand({k: v[at] if isinstance(v, torch.Tensor) else v for k, v in self.inputs.items()}, self.targets[at])
            for at in rows
        ]


def updates(model):
    entries = model.pet["masked"]
    return {linear: entries.update(i) for i, linear in enumerate(entries.linears)}


@both
@pytest.mark.parametrize("across", ["matrix", "model"])
def test_pafi_takes_the_smallest(family, across):
    model = mini(family, "pafi", density=0.02, across=across)
    with torch.no_grad():
        model.pet["masked"].values.fill_(1.0)
    chosen = updates(model)
    assert sum(int(update.sum()) for update in chosen.values()) == len(model.pet["masked"].values)
    weights = torch.cat([linear.weight.abs().flatten() for linear in chosen])
    for linear, update in chosen.items():
        inside, outside = linear.weight[update == 1].abs(), linear.weight[update == 0].abs()
        if across == "matrix":
            assert len(inside) == max(1, round(0.02 * linear.weight.numel()))
            assert inside.max() <= outside.min()
        else:
            limit = weights.kthvalue(len(model.pet["masked"].values)).values
            assert (inside <= limit).all() and (outside >= limit).all()


@both
def test_fisher_information_by_hand(family):
    """Squared gradients of each example's own loss, summed; padding of a batch counts for nothing."""
    given, model = batch(family), mini(family)
    layers = list(linears(model))
    weights = [linear.weight for linear in layers]

    def rows(*chosen):
        inputs = {k: v[[*chosen]] if isinstance(v, torch.Tensor) else v for k, v in given.items() if k != "targets"}
        return Stand(inputs, given["targets"][[*chosen]])

    ours = squared_gradients(model, weights, islice(losses(model, [rows(0, 1), rows(2)]), 2))
    expected = [torch.zeros_like(linear.weight) for linear in layers]
    for row in (0, 1):
        model.zero_grad()
        for linear in layers:
            linear.weight.requires_grad_(True)
        one = rows(row)
        logits = model(**one.inputs, targets=one.targets)
        F.cross_entropy(logits.transpose(1, 2), one.targets, ignore_index=-100).backward()
        for total, linear in zip(expected, layers, strict=True):
            total += linear.weight.grad**2
    for mine, by_hand in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, by_hand, atol=1e-8, rtol=1e-4)


@both
def test_fishmask_takes_the_most_informative(family):
    model = mini(family, "fishmask", density=0.02, samples=3)
    (door,) = built(family, "fishmask", density=0.02, samples=3).design(model.anatomy).doors
    given = {k: v for k, v in batch(family).items() if k != "targets"}
    batches = [Stand(given, batch(family)["targets"])]
    before = model.pet["masked"].index.clone()
    door.before_training(model, batches)
    entries = model.pet["masked"]
    assert not torch.equal(entries.index, before)
    weights = [linear.weight for linear in entries.linears]
    scores = torch.cat([s.flatten() for s in squared_gradients(model, weights, losses(model, batches))])
    chosen = torch.zeros(len(scores), dtype=torch.bool).index_fill(0, entries.index, True)
    assert scores[chosen].min() >= scores[~chosen].max()
    assert all(not linear.weight.requires_grad for linear in entries.linears)
    again = mini(family, "fishmask", density=0.02, samples=3)
    door.restore(again, door.state(model))
    assert torch.equal(again.pet["masked"].index, entries.index)
    assert "pet.masked.index" in frozen_tensors(model, stock(family)[0].lm)


@pytest.mark.parametrize("family", TINY)
def test_only_chosen_entries_move_and_they_fold_in(family):
    model = moved(tiny_model(family, "pafi", density=0.1))
    model(**tiny_batch()).logsumexp(-1).sum().backward()
    assert model.pet["masked"].values.grad.any()
    assert all(linear.weight.grad is None for linear in linears(model))
    check_merge(model)
