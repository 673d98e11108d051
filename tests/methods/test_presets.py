"""Methods of a few lines each: their formulas by hand, and their folding into the backbone."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from pet_bench.errors import UserError
from pet_bench.methods.hiwi import WeightAdapter
from pet_bench.methods.kadaptation import Kronecker
from pet_bench.pet import Insert, Offset, VectorGate, merge
from pet_bench.pet.linears import PHMRule
from tests.followups.places import Alone, away, projection
from tests.methods.test_against_peft import check_merge, moved
from tests.tiny import TINY, tiny_model

both = pytest.mark.parametrize("family", TINY)


def update(layer, x):
    return layer(x) - F.linear(x, layer.module.weight, layer.module.bias)


def test_kronecker_by_hand():
    layer = away(projection(6, 4, Kronecker(2, 3, 0.5)))
    f, x = layer.inserted.delta, torch.randn(2, 5, 6)
    rule = layer.shared["shared"]["kronecker_rule"]
    assert isinstance(rule, PHMRule)
    weight = sum(torch.kron(rule.A[i], f.u[i] @ f.v[i].T) for i in range(2))
    torch.testing.assert_close(update(layer, x), 0.5 * x @ weight.T)


@pytest.mark.parametrize("of", ["weights", "biases"])
def test_weight_adapter_by_hand(of):
    layer = away(projection(6, 4, WeightAdapter(3, of)))
    f, x = layer.inserted.delta, torch.randn(2, 5, 6)
    stock = layer.module.weight if of == "weights" else layer.module.bias
    adapted = (stock @ f.down.T).relu() @ f.up.T
    expected = x @ adapted.T if of == "weights" else adapted.expand(2, 5, -1)
    torch.testing.assert_close(update(layer, x), expected)


def test_scale_and_shift_by_hand():
    insert = Insert(("encoder.self_attn.query",), Offset("normal"), gate=VectorGate(offset=1.0), gating="base")
    layer = away(Alone(torch.nn.Linear(6, 4), insert, 6, 4)).eval()
    x = torch.randn(2, 5, 6)
    expected = (1 + layer.inserted.gate.g) * layer.module.weight.mv(x[0, 0]) + layer.inserted.delta.beta
    expected = expected + (1 + layer.inserted.gate.g) * layer.module.bias
    torch.testing.assert_close(layer(x)[0, 0], expected)


@pytest.mark.parametrize(
    ("family", "method", "options"),
    [
        ("bart", "ssf", {"norms": False}),
        ("bart", "hiwi", {"of": "biases"}),
        *((family, method, {}) for family in TINY for method in ("hiwi", "kadaptation")),
    ],
)
def test_they_fold_into_the_backbone(family, method, options):
    model = moved(tiny_model(family, method, **options))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("fc1.bias"):  # which start at 0: an adapter makes nothing of them
                parameter.normal_()
    check_merge(model)


def test_a_shift_needs_a_bias_to_be_folded_into():
    with pytest.raises(UserError, match="it cannot be merged"):
        merge(moved(tiny_model("t5", "ssf", norms=False)))
    with pytest.raises(UserError, match=r'site "encoder\.ffn\.in" has no bias for an adapter to read'):
        tiny_model("t5", "hiwi", of="biases")


@both
def test_mam_is_the_two_that_it_mixes(family):
    """Parameters of both, and of nothing else."""

    def added(method, **options):
        model = tiny_model(family, method, **options)
        return sum(p.numel() for name, p in model.named_parameters() if name.startswith("pet."))

    parts = added("prefix-tuning", length=30) + added("parallel-adapter")
    assert added("mam") == parts
