"""The equation of an insert, H' = s · G ⊙ (b · H + a · ΔH), on random tensors against its terms written out."""

from __future__ import annotations

from functools import cache
from itertools import product
from math import pi, sqrt

import pytest
import torch

from pet_bench.errors import UserError
from pet_bench.pet import (
    Bottleneck,
    DeltaGate,
    Design,
    FactorBottleneck,
    Identity,
    Insert,
    LargeGate,
    LowRank,
    MiddleXGate,
    PHMBottleneck,
    Place,
    SmallGate,
    VectorGate,
    WeightDecomposed,
    attach,
)
from pet_bench.pet.inserted import Inserted
from tests.tiny import tiny_batch, tiny_model

B, T, D = 3, 5, 8
MASK = torch.arange(T) < torch.tensor([[5], [3], [1]])


def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def gelu_new(x):
    return 0.5 * x * (1 + torch.tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))


def linear(layer, x):
    return x @ layer.weight.T + layer.bias


def two_layer(module, x):
    return linear(module.up, gelu_new(linear(module.down, x)))


GATES = {
    "none": (None, lambda gate, x, y, delta: 1),
    "large": (LargeGate(3), lambda gate, x, y, delta: sigmoid(two_layer(gate.project, x))),
    "large-full": (LargeGate(None), lambda gate, x, y, delta: sigmoid(linear(gate.project, x))),
    "middle-x": (MiddleXGate(), lambda gate, x, y, delta: sigmoid(linear(gate.project, x + y))),
    "middle-y": (VectorGate(1.0), lambda gate, x, y, delta: 1 + gate.g),
    "vector": (VectorGate(sigmoid=True), lambda gate, x, y, delta: sigmoid(gate.g)),
    "small": (
        SmallGate(),
        lambda gate, x, y, delta: sigmoid(linear(gate.project, torch.cat([x, y], -1))).mean(1, keepdim=True),
    ),
    "small-masked": (
        SmallGate(padding="masked"),
        lambda gate, x, y, delta: torch.stack(
            [sigmoid(linear(gate.project, torch.cat([x, y], -1)[i, MASK[i]])).mean(0, keepdim=True) for i in range(B)]
        ),
    ),
    "delta": (DeltaGate(), lambda gate, x, y, delta: sigmoid(delta)),
}  # fmt: skip
NORMS = {
    None: lambda norm, y: y,
    "layer": lambda norm, y: (
        (y - y.mean(-1, keepdim=True)) / (y.var(-1, correction=0, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias
    ),
    "l2": lambda norm, y: y / y.square().sum(-1, keepdim=True).sqrt(),
}


@cache
def place(d_x: int = D) -> Place:
    model = tiny_model("bart")
    model.context.mask = MASK
    return Place(
        model=model,
        stack="encoder",
        layer=0,
        site="encoder.ffn",
        reader=None,
        writer=torch.nn.Identity(),
        feeds=None,
        d_x=d_x,
        d_h=D,
    )


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("gating", ["multiply", "add", "base"])
@pytest.mark.parametrize("gate", GATES)
def test_the_equation(gate, gating, norm):
    torch.manual_seed(0)
    spec, G = GATES[gate]
    deltas = [Bottleneck(4)] if gate == "delta" else [Bottleneck(4), None]
    scales = [(1.0, 1.0, 1.0), (0.3, -2.0, 0.5)]
    for delta, reads, adds_to, (s, a, b) in product(deltas, ("output", "input"), ("output", "input"), scales):
        d_x = D + 4 if adds_to == "output" and gate != "middle-x" else D
        insert = Insert(("encoder.ffn",), delta, reads, spec, s, gating, a, b, adds_to, norm)
        module = Inserted(insert, place(d_x))
        for parameter in module.parameters():
            parameter.data.normal_(std=0.5)
        x, h = torch.randn(B, T, d_x), torch.randn(B, T, D)

        base = b * (x if adds_to == "input" else h)
        change = two_layer(module.delta, x if reads == "input" else h) if delta else torch.zeros(B, T, D)
        y = base + a * change
        g = G(module.gate, x, y, change)
        total = {"multiply": g * y, "add": y + g, "base": g * base + a * change}[gating] if spec else y
        torch.testing.assert_close(module(x, h), s * NORMS[norm](module.norm, total), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("delta", "f"),
    [
        (Bottleneck(4, activation="relu"), lambda m, x: linear(m.up, linear(m.down, x).clamp(min=0))),
        (
            Bottleneck(4, norm_before=True, norm_after=True),
            lambda m, x: NORMS["layer"](m[2], two_layer(m[1], NORMS["layer"](m[0], x))),
        ),
        (
            Bottleneck(4, heads=2, layout="pair"),
            lambda m, x: torch.cat(
                [linear(up, z) for up, z in zip(m.up.groups, gelu_new(linear(m.down, x)).split(2, -1), strict=True)], -1
            ),
        ),
        (
            FactorBottleneck(4, rank=2),
            lambda m, x: gelu_new(x @ m.down.U @ m.down.V + m.down.b) @ m.up.U @ m.up.V + m.up.b,
        ),
        (Identity(), lambda m, x: x),
        (LowRank(2, alpha=6.0, dropout=0.5), lambda m, x: 3 * x @ m.A.T @ m.B.T),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)  # fmt: skip
def test_modules(delta, f):
    module = Inserted(Insert(("encoder.ffn",), delta), place()).eval()
    for parameter in module.parameters():
        parameter.data.normal_(std=0.5)
    h = torch.randn(B, T, D)
    torch.testing.assert_close(module(h, h), h + f(module.delta, h), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_reader_and_writer(family):
    """X is what the stock sub-layer reads and H what it writes, wherever it runs."""
    site = "decoder.cross_attn.value"
    model, bare = tiny_model(family), tiny_model(family)
    attach(model, Design((Insert((site,), Identity(), reads="input"),)))
    path = model.anatomy.sites[site].writer
    seen = []
    for m in (model, bare):
        m.at(path, 1).register_forward_hook(lambda module, args, out: seen.append((*args, out)))
        with torch.no_grad():
            m(**tiny_batch())
    (x, changed), (stock_x, stock) = seen
    torch.testing.assert_close(x, stock_x)  # the encoder's states: no decoder layer has a part in them
    torch.testing.assert_close(changed, stock + x)


@pytest.mark.parametrize(
    ("site", "insert", "fault"),
    [
        ("encoder.ffn", {"gate": DeltaGate()}, 'the gate "delta" reads ΔH, but there is no delta'),
        ("encoder.ffn.out", {"adds_to": "input"}, "X of width 64 cannot take the place of H of width 32"),
        ("encoder.ffn.out", {"gate": MiddleXGate()}, "the gate reads X + Y, of widths 64 and 32"),
        ("encoder.ffn.out", {"delta": Identity(), "reads": "input"}, "an identity from width 64 to 32"),
        ("encoder.ffn", {"delta": Bottleneck(9, heads=2)}, "the bottleneck 9 does not divide into 2 heads"),
        ("encoder.ffn", {"delta": PHMBottleneck(9)}, "9 does not divide by the hypercomplex division n = 2"),
        ("encoder.self_attn", {"delta": WeightDecomposed(2, 1.0)}, "has no weight to decompose that reads a width of"),
        ("encoder.ffn.out", {"delta": WeightDecomposed(2, 1.0)}, "reads a width of 32"),
    ],
)
@pytest.mark.parametrize("family", ["bart", "t5"])
def test_what_does_not_fit_is_said_when_it_is_attached(family, site, insert, fault):
    with pytest.raises(UserError) as error:
        attach(tiny_model(family), Design((Insert((site,), **insert),)))
    assert fault in str(error.value)
    assert site in str(error.value)
