"""The method `design`: the grammar as plain data."""

from __future__ import annotations

import json

import pytest
import torch

from pet_bench.errors import UserError
from pet_bench.pet import build_method, default_spec, trained_parameters
from pet_bench.spec import MethodSpec
from tests.pet.minis import FAMILIES, SUITE, batch, built, logits, mini, stock

families = pytest.mark.parametrize("family", FAMILIES)


def spelled(family: str) -> dict:
    """VL-PET-large as a grid file would write it."""
    width, zero, scale = (8, False, 1.0) if family == "bart" else (16, True, 0.3)
    adapter = {
        "delta": {"kind": "bottleneck", "width": width, "zero_init": zero, "heads": 4},
        "gate": {"kind": "large", "width": width, "zero_init": zero},
        "scale": scale,
    }
    value = {"kind": "bottleneck", "width": 8, "zero_init": zero}
    return {
        "inserts": [
            {"sites": ["encoder.self_attn"], **adapter},
            {"sites": ["encoder.ffn"], **adapter},
            {"sites": ["decoder.cross_attn.value"], "reads": "input", "delta": value},
        ],
        "train": ["visual", "encoder.norms"],
    }


@families
def test_a_named_method_spelled_out(family):
    named, written = mini(family, "vl-pet-large"), mini(family, "design", **spelled(family))
    method = built(family, "design", **spelled(family))
    assert method.design(named.anatomy) == built(family, "vl-pet-large").design(named.anatomy)
    found = trained_parameters(written)
    assert list(found) == list(trained_parameters(named))
    assert all(torch.equal(found[name], parameter) for name, parameter in trained_parameters(named).items())
    assert torch.equal(logits(written, batch(family)), logits(named, batch(family)))


@families
def test_there_and_back_through_json(family):
    options = spelled(family) | {"doors": [{"kind": "prompt", "length": 3, "hidden": 5}]}
    method = built(family, "design", **options)
    spec = default_spec(method)
    text = json.dumps(spec.options)
    assert build_method(MethodSpec("design", json.loads(text)), stock(family)[0].anatomy) == method
    assert spec.options["inserts"][0]["gate"] == {"kind": "large", "width": 8 if family == "bart" else 16} | {
        "zero_init": family == "t5"
    }
    assert spec.options["inserts"][2]["gate"] is None
    assert spec.options["doors"] == [{"kind": "prompt", "length": 3, "hidden": 5, "per_task": False}]


@families
def test_doors_and_claims(family):
    """A door by its mapping is the named method's; what is inserted takes the claims of a bare design away."""
    prompt = {"kind": "prompt", "length": 40, "hidden": 800, "per_task": True}
    written, named = mini(family, "design", doors=[prompt]), mini(family, "prompt-tuning", per_task=True)
    for task in SUITE.tasks:
        assert torch.equal(logits(written, batch(family, task=task)), logits(named, batch(family, task=task)))
    assert built(family, "design").identity_at_start
    assert not built(family, "design", doors=[prompt]).identity_at_start
    small = {"sites": ["encoder.ffn"], "gate": "small"}
    assert not built(family, "design", inserts=[small]).batch_invariant
    assert not built(family, "design", inserts=[small]).identity_at_start


def test_a_kind_alone_is_a_mapping_without_fields():
    insert = {"sites": ["encoder.ffn"], "delta": "identity", "gate": "small"}
    longer = insert | {"delta": {"kind": "identity"}, "gate": {"kind": "small"}}
    assert built("bart", "design", inserts=[insert]) == built("bart", "design", inserts=[longer])


FAULTS = [
    (
        {"delta": {"kind": "botleneck", "width": 4}},
        ['inserts.0.delta: unknown delta "botleneck": did you mean "bottleneck"?'],
    ),
    ({"delta": {"width": 4}}, ["inserts.0.delta: a delta is a kind or a mapping with a kind, found {'width': 4}"]),
    ({"delta": {"kind": [1]}}, ["inserts.0.delta: a delta is a kind or a mapping with a kind, found {'kind': [1]}"]),
    ({"delta": 3}, ["inserts.0.delta: a delta is a kind or a mapping with a kind, found 3"]),
    (
        {"delta": {"kind": "bottleneck", "width": -1, "heads": 0}},
        [
            'inserts.0.delta: delta "bottleneck": width: Input should be greater than 0, found -1',
            'inserts.0.delta: delta "bottleneck": heads: Input should be greater than 0, found 0',
        ],
    ),
    (
        {"delta": {"kind": "low-rank", "rank": 2, "alhpa": 1.0}, "gate": "large"},
        [
            'inserts.0.delta: delta "low-rank": alpha is missing',
            'inserts.0.delta: unknown delta "low-rank" key "alhpa": did you mean "alpha"?',
            'inserts.0.gate: gate "large": width is missing',
        ],
    ),
    (
        {"gate": "lrage", "gating": "mul", "scale": "big"},
        [
            'inserts.0.gate: unknown gate "lrage": did you mean "large"?',
            "inserts.0.scale: Input should be a valid number, found 'big'",
            "inserts.0.gating: Input should be 'multiply', 'add' or 'base', found 'mul'",
        ],
    ),
    ({"sites": "encoder.ffn"}, ["inserts.0.sites: Input should be a list, found 'encoder.ffn'"]),
]


@pytest.mark.parametrize(("insert", "faults"), FAULTS)
def test_every_fault_in_one_line(insert, faults):
    with pytest.raises(UserError) as error:
        built("bart", "design", inserts=[{"sites": ["encoder.ffn"]} | insert])
    lines = [line.removeprefix('method "design": ') for line in error.value.faults]
    assert [line.partition(" (possible: ")[0] for line in lines] == faults  # what is possible depends on plug-ins


def test_faults_of_doors_and_of_the_design():
    with pytest.raises(UserError) as error:
        built("bart", "design", doors=[None, "promt", {"kind": "prompt", "length": 4}], insert=[])
    none, unknown, missing, key = error.value.faults
    assert none == 'method "design": doors.0: a door is a kind or a mapping with a kind, found None'
    assert unknown.startswith('method "design": doors.1: unknown door "promt": did you mean "prompt"? (possible: ')
    assert missing == 'method "design": doors.2: door "prompt": hidden is missing'
    assert key.startswith('unknown method "design" key "insert": did you mean "inserts"?')
    with pytest.raises(UserError, match='door "prompt" is opened twice'):
        mini("bart", "design", doors=[{"kind": "prompt", "length": 4, "hidden": 4}] * 2)


@families
def test_claims_follow_the_options(family):
    """What a method says of itself is what it does, off its defaults too."""
    bitfit = built(family, "bitfit", added=True, zero_init=True)
    assert bitfit.identity_at_start
    model = mini(family, "bitfit", added=True, zero_init=True)
    assert torch.equal(logits(model, batch(family)), logits(mini(family), batch(family)))
    assert not built(family, "vl-pet-large", gate="small").batch_invariant
    assert not built(family, "vl-pet-large", value_gate="small", gate_padding="masked").batch_invariant
