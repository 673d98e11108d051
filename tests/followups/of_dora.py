"""DoRA's linear layers."""

from __future__ import annotations

from pet_bench.pet import WeightDecomposed
from tests.followups.places import projection
from tests.followups.restate import Fixture, Tensors, called


def dora(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    flags, norm = fixture.flags, "constant" if fixture.name.endswith("simple") else "differentiated"
    layer = projection(
        flags["d_in"], flags["d_out"], WeightDecomposed(flags["r"], flags["r"] * flags["lora_s"], norm=norm)
    )
    weights = {
        "module.weight": w["weight_v"], "module.bias": w["bias"], "inserted.delta.m": w["weight_m"][:, 0],
        "inserted.delta.A": w["lora_A"], "inserted.delta.B": w["lora_B"],
    }  # fmt: skip
    return {"output/y": called(layer, weights, given["x"])}


FIXTURES = {r"dora_\w+": dora}
