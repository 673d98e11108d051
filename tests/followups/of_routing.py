"""LoRA and adapters with a routing function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pet_bench.pet import Insert
from pet_bench.pet.routing import RoutedBottleneck, RoutedLowRank, RoutedLowRankModule, route
from tests.followups.places import Alone, place, projection
from tests.followups.restate import Fixture, Tensors, called

SWITCHES = {"element_mul": "mul", "element_add": "add", "element_mul_expand": "expand", "routing_xt": "xt"}


def routing(flags: dict[str, Any]) -> Any:
    """The first of the switches that is on; "linear" where none is."""
    if not flags.get("use_routing", True):
        return "none"
    relu = "-relu" if flags.get("add_relu") else ""
    if flags.get("multiply_ones"):
        return f"ones{relu}"
    return next((how for switch, how in SWITCHES.items() if flags.get(switch)), f"linear{relu}")


def seen(given: Tensors) -> dict[str, Tensor]:
    """The context's visual tokens, all of them there."""
    return {"visual": given["v"], "seen": torch.ones(given["v"].shape[:2], dtype=torch.bool)}


def lora(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    flags = fixture.flags
    if flags.get("visual_tokens", 1) > 1:  # a method here has one, the mean of all
        t, u = F.linear(given["x"], w["lora_A"]), F.linear(given["v"], w["lora_A"])
        update = F.linear(route(routing(flags), t, u), w["lora_B"]) * flags["lora_alpha"] / flags["r"]
        return {"output/y": F.linear(given["x"], w["weight"], w["bias"]) + update}
    pooled = bool(flags.get("do_pooling"))
    delta = RoutedLowRank(
        rank=flags["r"], alpha=flags["lora_alpha"], routing=routing(flags), summary="encoder" if pooled else "visual"
    )
    told = {"mask": given["mask"][:, 0, 0] == 0} if pooled else seen(given)
    layer = projection(given["x"].shape[-1], len(w["lora_B"]), delta)
    weights = {
        "module.weight": w["weight"], "module.bias": w["bias"], "inserted.delta.downs.A": w["lora_A"],
        "inserted.delta.B": w["lora_B"][None],
    }  # fmt: skip
    return {"output/y": called(layer, weights, given["x"], **told)}


def query_and_value(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    """One matrix for queries, keys and values, stored (in, out)."""
    flags, d = fixture.flags, given["x"].shape[-1]
    delta = RoutedLowRank(
        rank=flags["r"], alpha=flags["lora_alpha"], routing=routing(flags), coupled=True,
        after="B" if "afterB" in fixture.name else "A",
    )  # fmt: skip
    where = place(nn.Linear(d, d), d, d)
    module = RoutedLowRankModule(delta, where, d, parts=2).eval()
    vars(where.context).update(seen(given))
    weights = {"downs.A": w["lora_A"], "B": w["lora_B"].unflatten(0, (2, -1))}
    query, value = (called(module, weights, given["x"], part) for part in range(2))
    stock = given["x"] @ w["weight"] + w["bias"]
    return {"output/y": stock + torch.cat([query, torch.zeros_like(query), value], -1)}


def two_downs(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    """Separate A of text and image; the update alone."""
    flags = fixture.flags
    down = next(name for name in ("merge-norm", "merge", "split") if name.replace("-norm", "_res") in fixture.name)
    delta = RoutedLowRank(rank=flags["r"], alpha=flags["lora_alpha"], routing=routing(flags), down=down)  # type: ignore[arg-type]
    where = place(nn.Linear(1, 1), given["x"].shape[-1], len(w["lora_B"]))
    module = RoutedLowRankModule(delta, where, given["x"].shape[-1]).eval()
    vars(where.context).update(seen(given))
    weights = {
        "downs.A": w["lora_A_text.weight"], "downs.A_visual": w["lora_A_img.weight"],
        "downs.widen": w["lora_A_text_up.weight"], "downs.widen_visual": w["lora_A_img_up.weight"],
        "B": w["lora_B"][None],
    }  # fmt: skip
    return {"output/y": called(module, weights, given["x"])}


def adapter(fixture: Fixture, w: Tensors, given: Tensors) -> Tensors:
    """Behind the identity, whose output it reads."""
    flags, d = fixture.flags, given["x"].shape[-1]
    delta = RoutedBottleneck(
        width=flags["r"], routing=routing(flags), activation="gelu_new" if flags["add_res"] else "gelu"
    )
    insert = Insert(("encoder.ffn",), delta, base_scale=float(flags["add_res"]))
    module = Alone(nn.Identity(), insert, d, d).eval()
    weights = {
        f"inserted.delta.{ours}.{leaf}": w[f"{ours}_sampler.{leaf}"]
        for ours in ("down", "up") for leaf in ("weight", "bias")
    }  # fmt: skip
    return {"output/y": called(module, weights, given["x"], **seen(given))}


FIXTURES = {
    r"routing_lora_(?!qv_|split_|merge_)\w+": lora,
    r"routing_lora_qv_\w+": query_and_value,
    r"routing_lora_(split|merge)_\w+": two_downs,
    r"routing_adapter_\w+": adapter,
}
