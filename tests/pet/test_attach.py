"""Attaching, selecting and loading, where a random tiny model tells as much as a trained one."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from pet_bench.errors import UserError
from pet_bench.pet import Design, Insert, attach, load_trained, save_trained
from pet_bench.pet.deltas import Bottleneck
from tests.tiny import TINY, tiny_batch, tiny_model


def test_load_refuses_another_methods_tensors(tmp_path):
    path = tmp_path / "adapter.safetensors"
    save_trained(tiny_model("bart", "lora"), path)
    with pytest.raises(UserError, match="is not trained by this method"):
        load_trained(tiny_model("bart", "vl-adapter"), path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="no readable safetensors file"):
        load_trained(tiny_model("bart", "lora"), path)


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda tensor: tensor.double(), "is of type torch.float64, expected torch.float32"),
        (lambda tensor: tensor.int(), "is of type torch.int32, expected torch.float32"),
        (lambda tensor: tensor.half(), "is of type torch.float16, expected torch.float32"),
        (lambda tensor: tensor[..., :-1].contiguous(), "has shape"),
        (lambda tensor: torch.full_like(tensor, float("nan")), "has values that are not finite"),
        (lambda tensor: torch.full_like(tensor, -float("inf")), "has values that are not finite"),
    ],
    ids=["double", "int", "half", "shape", "nan", "inf"],
)
def test_tensors_are_of_the_type_and_shape_that_train_and_finite(tmp_path, change, said):
    path, model = tmp_path / "adapter.safetensors", tiny_model("bart", "bitfit")
    save_trained(model, path)
    tensors = load_file(path)
    name = next(iter(tensors))
    save_file(tensors | {name: change(tensors[name])}, path)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UserError) as error:
        load_trained(model, path)
    assert len(error.value.faults) == 1
    assert f"{name} {said}" in error.value.faults[0]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    "content, said",
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"\xff" * 64, "no readable safetensors file"),
        (b"", "no readable safetensors file"),
        ((2).to_bytes(8, "little") + b"[]", "no readable safetensors file"),
        ((9).to_bytes(8, "little") + b'{"a": NaN', "no readable safetensors file"),
    ],
)
def test_what_is_no_adapter_is_one_line(tmp_path, content, said):
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        load_trained(tiny_model("bart", "bitfit"), path)
    assert len(error.value.faults) == 1


def test_all_faults_of_a_design_at_once():
    design = Design((Insert(("encoder.self_atn", "decoder.ffn"), Bottleneck(4)),), train=("visual", "lm.*.nothing"))
    with pytest.raises(UserError) as error:
        attach(tiny_model("t5"), design)
    assert error.value.faults == (
        error.value.faults[0],
        'selector "lm.*.nothing" matches no parameter of tiny-t5 (possible: all, visual, norms, projector.norms, '
        "encoder.norms, decoder.norms, biases, projector.biases, encoder.biases, decoder.biases, or a pattern over "
        "parameter names)",
    )
    assert error.value.faults[0].startswith('unknown site "encoder.self_atn": did you mean "encoder.self_attn"?')


def test_a_selector_that_t5_cannot_meet_is_an_error():
    with pytest.raises(UserError, match='selector "biases" matches no parameter of tiny-t5'):
        tiny_model("t5", "lora", biases=True)


def test_inserts_on_one_site_apply_in_order():
    """H' = 2 (3 H): two scales on one sub-layer, and none of it left on the others."""
    model, bare = tiny_model("bart"), tiny_model("bart")
    site = ("encoder.self_attn",)
    attach(model, Design((Insert(site, scale=3.0), Insert(site, scale=2.0))))
    seen = []
    for m in (model, bare):
        m.lm.model.encoder.layers[0].self_attn.register_forward_hook(lambda module, args, out: seen.append(out[0]))
        m(**tiny_batch())
    torch.testing.assert_close(seen[0], 6 * seen[1])


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize(("layers", "has"), [(None, ["0", "1"]), ((0,), ["0"]), ((-1,), ["1"]), ((0, -1), ["0", "1"])])
def test_layers_of_an_insert(family, layers, has):
    insert = Insert(("encoder.ffn", "decoder.self_attn.query"), Bottleneck(3), layers=layers)
    model = attach(tiny_model(family), Design((insert,)))
    assert {stack: [*model.pet[stack]] for stack in model.pet} == {"encoder": has, "decoder": has}


@pytest.mark.parametrize(
    ("sites", "layers", "message"),
    [
        (("encoder.ffn",), (2,), r"layers: encoder has no layer 2 \(possible: -2 to 1\)"),
        (("encoder.ffn",), (-3,), r"layers: encoder has no layer -3 \(possible: -2 to 1\)"),
        (("encoder.output",), (0,), 'layers: site "encoder.output" is in none'),
    ],
)
def test_layers_that_there_are_not(sites, layers, message):
    with pytest.raises(UserError, match=message):
        attach(tiny_model("bart"), Design((Insert(sites, Bottleneck(3), layers=layers),)))


def test_adapterdrop():
    """Of a stack's lowest layers, however many each stack has; and not of all."""
    model = tiny_model("t5", "adapter", dropped=1, placement="pfeiffer")
    assert {stack: [*model.pet[stack]] for stack in model.pet} == {"encoder": ["1"], "decoder": ["1"]}
    with pytest.raises(UserError, match=r"dropped: 2 of the 2 layers of the encoder \(possible: 0 to 1\)"):
        tiny_model("t5", "adapter", dropped=2)
