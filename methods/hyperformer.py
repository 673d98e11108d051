"""HyperFormer (Karimi Mahabadi et al., ACL 2021): adapters generated from task and layer."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from pet_bench.pet import Builder, Delta, Design, Insert, Method, Place
from pet_bench.pet.deltas import gelu_new
from pet_bench.spec import STRICT, Size


@dataclass(frozen=True, config=STRICT)
class GeneratedBottleneck(Delta):
    """f(x) = W_u gelu_new(W_d x + b_d) + b_u, all written by the stack's hyper-network for (task, layer, place)."""

    kind: ClassVar = "generated-bottleneck"
    width: Size
    projected: Size
    embedding: Size
    hidden: Size

    @property
    def formula(self) -> str:
        return f"W_u gelu_new(W_d {{x}} + b_d) + b_u from e(task, layer) ∈ ({self.projected},) (r = {self.width})"

    def build(self, place, d_in):
        tasks = place.shared("task_vectors", lambda: TaskVectors(self.embedding, place))
        stack = place.shared(f"{place.stack}_hypernetwork", lambda: HyperNetwork(self, place))
        generators = place.site.split(".")[1]
        if generators not in stack.places:
            stack.places[generators] = Generators(self, place, d_in)
        return Generated(self, place, tasks, stack)


class TaskVectors(nn.Module):
    """t: one vector of N(0, 1) a task, read by the hyper-networks of both stacks."""

    def __init__(self, width: int, build: Builder):
        super().__init__()
        self.vectors = nn.ParameterDict({task: nn.Parameter(torch.randn(width)) for task in build.tasks})
        self.context = build.context

    def forward(self) -> Tensor:
        return self.vectors[self.context.task_among(self.vectors)]


class HyperNetwork(nn.Module):
    """e = LayerNorm(U_2 relu(U_1 [t; layer_l] + c_1) + c_2), (projected,); one for a stack."""

    def __init__(self, spec: GeneratedBottleneck, place: Place):
        super().__init__()
        self.layers = place.table(place.anatomy.stacks[place.stack].layers, spec.embedding)
        self.first = _linear(place, 2 * spec.embedding, spec.hidden)
        self.second = _linear(place, spec.hidden, spec.projected)
        self.LayerNorm = nn.LayerNorm(spec.projected, eps=1e-6)  # by this name the published optimiser knows it
        self.places = nn.ModuleDict()

    def forward(self, task: Tensor, layer: int) -> Tensor:
        return self.LayerNorm(self.second(F.relu(self.first(torch.cat([task, self.layers[layer]])))))


class Generators(nn.Module):
    """weight = reshape(Q e + q), bias = K e + k, for both layers of the adapter at one place of every layer."""

    def __init__(self, spec: GeneratedBottleneck, place: Place, d_in: int):
        super().__init__()
        self.sizes = {"down": (spec.width, d_in), "up": (place.d_h, spec.width)}
        self.weight = nn.ModuleDict({k: _linear(place, spec.projected, a * b) for k, (a, b) in self.sizes.items()})
        self.bias = nn.ModuleDict({k: _linear(place, spec.projected, a) for k, (a, _) in self.sizes.items()})

    def forward(self, x: Tensor, e: Tensor, direction: str) -> Tensor:
        weight = self.weight[direction](e).view(self.sizes[direction])
        return F.linear(x, weight, self.bias[direction](e))


class Generated(nn.Module):
    """The adapter at one place of one layer. It has no parameters: those are in `pet.shared`."""

    def __init__(self, spec: GeneratedBottleneck, place: Place, tasks: TaskVectors, stack: HyperNetwork):
        super().__init__()
        self.layer, self.shared = place.layer, (tasks, stack, stack.places[place.site.split(".")[1]])

    def forward(self, x: Tensor) -> Tensor:
        """x (…, d) → (…, d)."""
        tasks, stack, generators = self.shared
        e = stack(tasks(), self.layer)
        return generators(gelu_new(generators(x, e, "down")), e, "up")


def _linear(build: Builder, d_in: int, d_out: int) -> nn.Linear:
    """N(0, 0.02²), on T5 N(0, 0.01²), bias 0."""
    linear = nn.Linear(d_in, d_out)
    nn.init.normal_(linear.weight, std=build.anatomy.among({"t5": 0.01, "*": 0.02}))
    nn.init.zeros_(linear.bias)
    return linear


@dataclass(frozen=True, kw_only=True, config=STRICT)
class HyperFormer(Method):
    """Adapters as VL-Adapter's, H' = H + W_u gelu_new(W_d H + b_d) + b_u, whose weights hyper-networks generate:

        e = LayerNorm(U_2 relu(U_1 [t; layer_l] + c_1) + c_2),   W = reshape(Q e + q),   b = K e + k

    t is the task's vector; each stack has its own U, layer embeddings, and Q, K for each place and direction.
    bottleneck: r, d/8. projected: width of e. embedding: of t and layer_l. hidden: rows of U_1. norms: layer norms of
    encoder and decoder train too. task_prompts: whether texts begin with the task's prompt ("vqa: "); None is as
    published: in the suite image-text the task's vector alone names it. On T5 there was no published run; norms stay
    frozen there, as VL-Adapter's do.
    """

    name: ClassVar = "hyperformer"
    source: ClassVar = "HyperFormer (Karimi Mahabadi et al., ACL 2021); settings of VL-PET Table 2"
    year: ClassVar = 2021
    promptless: ClassVar = ("image-text",)
    size: ClassVar = "bottleneck"
    learning_rates: ClassVar = {"bart": 1e-3, "mini-bart": 2e-3, "mini-t5": 2e-3}

    bottleneck: Size
    norms: bool
    projected: Size = 8
    embedding: Size = 512
    hidden: Size = 128
    task_prompts: bool | None = None  # pyright: ignore[reportIncompatibleVariableOverride]  an option here

    @classmethod
    def defaults(cls, anatomy):
        return {"bottleneck": anatomy.d // 8, "norms": anatomy.among({"bart": True, "*": False})}

    def skip(self, anatomy):
        uneven = [name for name in anatomy.adapted if len({*anatomy.stacks[name].widths}) > 1]
        if uneven:
            return (
                f"the backbone's layers differ in width in its {uneven[0]}, and one network makes the adapters of all"
            )
        return None

    def design(self, anatomy):
        adapter = GeneratedBottleneck(self.bottleneck, self.projected, self.embedding, self.hidden)
        return Design(
            inserts=(Insert(anatomy.sub_layers, adapter),),
            train=("visual", "norms") if self.norms else ("visual",),
        )
