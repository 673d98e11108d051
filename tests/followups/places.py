"""Our inserts on modules that stand alone, as the reference's do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn

from pet_bench.backbone.anatomy import Site
from pet_bench.backbone.bart import Bart
from pet_bench.backbone.interface import Context, Model
from pet_bench.pet import Insert, Place
from pet_bench.pet.inserted import Inserted, hook


def place(module: nn.Module, d_x: int, d_h: int, *, site: str = "encoder.self_attn.query", tasks: tuple[str, ...] = ()):
    """A place of a model that is nothing but its context; `pet.shared` is in the place's model."""
    anatomy = SimpleNamespace(stacks={"encoder": SimpleNamespace(width=d_x)}, reading="encoder", d=d_x)
    model = SimpleNamespace(context=Context(), pet=nn.ModuleDict(), family=Bart, anatomy=anatomy)
    return Place(
        model=cast(Model, model), tasks=tasks, stack="encoder", layer=0, site=site, reader=module, writer=module,
        feeds=None, d_x=d_x, d_h=d_h,
    )  # fmt: skip


class Alone(nn.Module):
    """A stock module with one insert at it, `inserted`; X and H are what it reads and writes."""

    def __init__(self, module: nn.Module, insert: Insert, d_x: int, d_h: int, tasks: tuple[str, ...] = ()):
        super().__init__()
        where = place(module, d_x, d_h, site=insert.sites[0], tasks=tasks)
        self.context = where.context
        self.module, self.inserted = module, Inserted(insert, where)
        self.shared = where.model.pet
        hook(where, Site("", ""), self.inserted)

    def forward(self, x: Tensor, **told: Any) -> Tensor:
        """x (B, T, d_x) → (B, T, d_h). told: fields of the context."""
        for name, value in told.items():
            setattr(self.context, name, value)
        return self.module(x)


def projection(d_in: int, d_out: int, delta: Any, tasks: tuple[str, ...] = ()) -> Alone:
    """A delta on a linear layer, `module.weight` and `module.bias`; its own are `inserted.delta.…`."""
    torch.manual_seed(0)
    linear = nn.Linear(d_in, d_out)
    return Alone(linear, Insert(("encoder.self_attn.query",), delta, reads="input"), d_in, d_out, tasks).eval()


def away(layer: Alone) -> Alone:
    """With every weight drawn, so that nothing is 0."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return layer
