"""What is random and does not train: kept, and put back into models that were drawn otherwise."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pet_bench.backbone.loading import grow_vocabulary
from pet_bench.errors import UserError
from pet_bench.pet import frozen_tensors, load_frozen, load_trained, save_frozen, save_trained
from tests.conftest import one_each
from tests.methods.test_peft_bridge import SIZES, USABLE
from tests.pet.minis import CASES, FAMILIES, batch, logits, mini
from tests.pet.minis import stock as mini_stock
from tests.tiny import TINY, tiny_model

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
PEFT = [(family, f"peft:{kind}", SIZES.get(kind, {})) for family in FAMILIES for kind in USABLE]
FROZEN_VISION = [(family, "vl-pet-large", {"visual": "frozen"}) for family in FAMILIES]


@pytest.mark.parametrize(
    ("family", "method", "options"),
    one_each([*((*case, {}) for case in CASES), *PEFT, *FROZEN_VISION], lambda case: (*case[1:2], *case[2]), "frozen"),
    ids=str,
)
def test_another_draw_becomes_the_model_that_was_saved(family, method, options, tmp_path):
    model, other = (mini(family, method, seed=seed, **options) for seed in (0, 99))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    adapter, frozen = tmp_path / "adapter.safetensors", tmp_path / "frozen.safetensors"
    save_trained(model, adapter)
    save_frozen(model, mini_stock(family)[0].lm, frozen)
    load_trained(other, adapter)
    if frozen.exists():
        load_frozen(other, frozen)
        assert not load_file(frozen).keys() & load_file(adapter).keys()
    assert torch.equal(logits(other, batch(family)), logits(model, batch(family)))


def test_what_is_kept():
    stock = mini_stock("bart")[0].lm
    assert frozen_tensors(mini("bart", "lora"), stock) == {}
    assert frozen_tensors(mini("bart", "full"), stock) == {}
    kept = frozen_tensors(mini("bart", "vl-pet-large", visual="frozen"), stock)
    assert {name.split(".")[0] for name in kept} == {"visual"}
    vera = frozen_tensors(mini("bart", "peft:vera"), stock)
    assert {name.rsplit(".", 2)[-2] for name in vera} == {"vera_A", "vera_B"}
    assert len(vera) == 2  # which all layers share


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_rows_that_a_word_table_has_grown_by(family, tmp_path):
    stock, model, other = (tiny_model(family).lm for _ in range(3))
    for seed, lm in enumerate((model, other)):
        torch.manual_seed(seed)
        grow_vocabulary(lm, 67, 0.5, TINY[family].anatomy)
        lm.requires_grad_(False)
    kept = frozen_tensors(model, stock)
    rows = {tuple(tensor.shape) for tensor in kept.values()}
    assert rows == ({(7, 32), (1, 7)} if family == "bart" else {(7, 32)})
    save_frozen(model, stock, tmp_path / "frozen")
    load_frozen(other, tmp_path / "frozen")
    differ = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, other.state_dict()[name])]
    assert differ == []


def test_a_frozen_tensor_that_training_changed_is_kept_whole():
    stock, model = tiny_model("bart").lm, tiny_model("bart").lm.requires_grad_(False)
    model.model.encoder.layers[0].fc1.weight[3, 5] += 1e-6
    assert {name: tuple(tensor.shape) for name, tensor in frozen_tensors(model, stock).items()} == {
        "model.encoder.layers.0.fc1.weight": (64, 32)
    }


class Buffers(nn.Module):
    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.register_buffer("hidden", scale * torch.arange(12.0).view(3, 4), persistent=False)
        self.register_buffer("number", torch.tensor(scale, dtype=torch.bfloat16))
        self.register_buffer("mask", torch.tensor([True, False, scale > 1]))


def test_buffers_of_any_type_that_no_state_dict_has(tmp_path):
    save_frozen(Buffers(2.0), nn.Module(), tmp_path / "frozen")
    assert load_file(tmp_path / "frozen").keys() == {"hidden", "number", "mask"}
    other = Buffers()
    load_frozen(other, tmp_path / "frozen")
    for name, buffer in Buffers(2.0).named_buffers():
        assert torch.equal(other.get_buffer(name), buffer)
    save_frozen(other, other, tmp_path / "frozen")
    assert not (tmp_path / "frozen").exists()


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"other": torch.zeros(3)}, "other is no tensor of this model"),
        ({"hidden": torch.zeros(3, 5)}, r"hidden has shape \(3, 5\), expected \(3, 4\)"),
        ({"hidden": torch.zeros(2, 3)}, r"hidden has shape \(2, 3\), expected \(3, 4\)"),
        ({"hidden": torch.zeros(4)}, r"hidden has shape \(4,\), expected \(3, 4\)"),
        ({"mask": torch.zeros(3)}, "mask is of type torch.float32, expected torch.bool"),
    ],
)
def test_what_does_not_fit_changes_nothing(tensors, message, tmp_path):
    save_file({"number": torch.tensor(5.0, dtype=torch.bfloat16)} | tensors, tmp_path / "frozen")
    model = Buffers()
    with pytest.raises(UserError, match=message) as error:
        load_frozen(model, tmp_path / "frozen")
    assert len(error.value.faults) == 1
    assert model.number == 1


def test_a_file_that_is_none(tmp_path):
    (tmp_path / "frozen").write_text("no tensors")
    with pytest.raises(UserError, match="frozen is no readable safetensors file"):
        load_frozen(Buffers(), tmp_path / "frozen")
