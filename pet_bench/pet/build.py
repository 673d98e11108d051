"""Where and with what a part is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import nn

from pet_bench.backbone.anatomy import Anatomy
from pet_bench.backbone.interface import Context, Model
from pet_bench.errors import UserError

M = TypeVar("M", bound=nn.Module)


def below(node: nn.ModuleDict, key: str) -> nn.ModuleDict:
    """The modules under a name, made where there are none yet."""
    if key not in node:
        node[key] = nn.ModuleDict()
    return cast(nn.ModuleDict, node[key])


@dataclass(frozen=True)
class Builder:
    """Makes new modules for a model as its family's published runs initialise them (METHODS.md section 7)."""

    model: Model
    tasks: tuple[str, ...] = ()

    @property
    def anatomy(self) -> Anatomy:
        return self.model.anatomy

    @property
    def context(self) -> Context:
        """What the model is running on: the batch's task, masks and visual tokens."""
        return self.model.context

    def linear(self, d_in: int, d_out: int, *, zero: bool = False) -> nn.Linear:
        """A new linear layer, or one whose weight and bias are 0."""
        linear = nn.Linear(d_in, d_out)
        if zero:
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        else:
            self.model.family.init_linear(linear)
        return linear

    def table(self, rows: int, width: int) -> nn.Parameter:
        """A new table of embeddings (rows, width)."""
        weight = nn.Parameter(torch.empty(rows, width))
        self.model.family.init_embedding(weight)
        return weight

    def by_task(self, make: Callable[[], nn.Module]) -> ByTask:
        """One copy of a module for each task."""
        return ByTask({task: make() for task in self.named_tasks()}, self.context)

    def named_tasks(self) -> tuple[str, ...]:
        """The tasks; raises UserError where there are none."""
        if not self.tasks:
            raise UserError("this method has a part for each task, but no tasks were named")
        return self.tasks

    def shared(self, key: str, make: Callable[[], M]) -> M:
        """The module `pet.shared.<key>`, made when it is first asked for: what several places have in common."""
        modules = below(self.model.pet, "shared")
        if key not in modules:
            modules[key] = make()
        return cast(M, modules[key])


class ByTask(nn.Module):
    """One module a task; the batch's task says which one runs."""

    def __init__(self, modules: dict[str, nn.Module], context: Context):
        super().__init__()
        self.of, self.context = nn.ModuleDict(modules), context

    def forward(self, *args):
        return self.of[self.context.task_among(self.of)](*args)


@dataclass(frozen=True, kw_only=True)
class Place(Builder):
    """Where an insert is built: a site of one layer, the stock modules that X goes into and H comes from, their widths.

    feeds: the projection that reads H, at hidden units. part: as in `Site`.
    """

    stack: str
    layer: int
    site: str
    reader: nn.Module | None
    writer: nn.Module
    feeds: nn.Module | None
    d_x: int
    d_h: int
    part: tuple[int, int] | None = None
