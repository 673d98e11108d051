"""DoRA's linear layers and MTL-LoRA's."""

from __future__ import annotations

import torch

from pet_bench.methods.mtl_lora import MixedLowRank
from pet_bench.pet import WeightDecomposed
from tests.followups.places import projection
from tests.followups.restate import Fixture, Tensors, called


def dora(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    flags, norm = fixture.flags, "constant" if fixture.name.endswith("simple") else "differentiated"
    delta = WeightDecomposed(flags["r"], flags["r"] * flags["lora_s"], norm=norm)
    weights = {
        "module.weight": w["weight_v"], "module.bias": w["bias"], "inserted.delta.m": w["weight_m"][:, 0],
        "inserted.delta.A": w["lora_A"], "inserted.delta.B": w["lora_B"],
    }  # fmt: skip
    return {"output/y": called(projection(flags["d_in"], flags["d_out"], delta), weights, given["x"])}


def mtl_lora(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    """Each row has a task of its own there; here a batch has one. A scaler that never trains is a part of alpha."""
    flags, tasks = fixture.flags, tuple(map(str, range(fixture.flags["tasks"])))
    scaler = w["lora_scaler"].detach().sigmoid().item() if flags.get("tunable_scaler") else 1.0
    delta = MixedLowRank(
        rank=flags["r"], alpha=flags["lora_alpha"] * scaler, ups=flags["B_num"], temperature=flags["temperature"],
        mixer="diagonal" if flags["diagonal"] else "full",
    )  # fmt: skip
    layer = projection(flags["d_in"], flags["d_out"], delta, tasks)
    weights = {
        "module.weight": w["weight"], "module.bias": w["bias"], "inserted.delta.A": w["lora_A"][0],
        "inserted.delta.mixer": w["lora_lambdas"], "inserted.delta.B": w["lora_B"], "inserted.delta.w": w["lora_B_w"],
    }  # fmt: skip
    rows = [
        called(layer, weights, x[None], task=str(task.item()))
        for x, task in zip(given["x"], given["task"], strict=True)
    ]
    return {"output/y": torch.cat(rows)}


FIXTURES = {r"dora_\w+": dora, r"mtl_lora_\w+": mtl_lora}
