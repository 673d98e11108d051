"""Frozen weights divided among the processes of a trial, where a model does not fit one device.

Each process keeps a part of every layer of the stacks that words pass through, and has the whole of a layer while that
runs, forward or backward (`torch.distributed.fsdp.fully_shard`): the same numbers within rounding. What trains, word
tables, the output layer and a vision tower stay whole everywhere. Gradients are of what trains alone, hence whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch import distributed as dist

from pet_bench.backbone.interface import Model
from pet_bench.errors import Faults
from pet_bench.pet.design import Design
from pet_bench.pet.parts import titled
from pet_bench.spec import Frozen


def check_sharded(design: Design, frozen: Frozen) -> None:
    """Raises UserError, with all faults together, where a design does not go together with weights in parts."""
    faults = Faults()
    for part in dict.fromkeys(titled(part) for part in design.parts() if part.reads_weights):
        faults.add(f"frozen weights are sharded, but the {part} reads the weights themselves")
    if frozen == "4bit":
        faults.add("frozen weights are sharded, but recipe.frozen is 4bit, whose weights cannot be divided")
    if "all" in design.train:
        faults.add("frozen weights are sharded, but every layer trains")
    faults.check()


def layers_of(model: Model) -> list[nn.Module]:
    """The layers whose frozen weights are divided."""
    stacks = [model.anatomy.stacks[name] for name in model.anatomy.words]
    return [model.at(stack.blocks, stack.name_of(i)) for stack in stacks for i in range(stack.layers)]


def place(model: nn.Module, device: torch.device, but: Iterable[nn.Module] = ()) -> None:
    """Put a model onto a device, but for these of its modules."""
    left = {module for each in but for module in each.modules()}
    for module in model.modules():
        if module not in left:
            module._apply(lambda tensor: tensor.to(device), recurse=False)


def shard(model: Model, device: torch.device) -> None:
    """Divide the frozen weights of layers, one after the other on its way to the device, and bring the rest there too.

    All processes have to ask. What is tied to something else stays whole, and so do tables, as of relative positions,
    which are read before the layer runs.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    uses = Counter(p for module in model.modules() for p in module.parameters(recurse=False))
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in layers_of(model):
        kept = {p for table in layer.modules() if isinstance(table, nn.Embedding) for p in table.parameters()}
        kept |= {p for p in layer.parameters() if p.requires_grad or uses[p] > 1 or not p.dim()}
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=kept)
    model.to(device)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be sharded; then every process has to ask."""
    return cast(Tensor, getattr(tensor, "full_tensor", lambda: tensor)())
