"""Mixtures: layers of one form, of which one is drawn or a gate takes one, and what their losses read of a pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from pet_bench.backbone.interface import Model
from pet_bench.pet.build import Builder
from pet_bench.pet.parts import Door
from pet_bench.spec import STRICT

Inference = Literal["factors", "outputs", "sample", "token"]


def draw(count: int) -> int:
    """One of so many, uniformly, from torch's own generator: a trial seeds it, and its checkpoint keeps it."""
    return int(torch.randint(count, ()))


def alike(make: Callable[[], nn.Module], count: int) -> nn.ModuleList:
    """So many layers that start equal."""
    experts = nn.ModuleList(make() for _ in range(count))
    for expert in experts[1:]:
        expert.load_state_dict(experts[0].state_dict())
    return experts


class DrawnExperts(nn.Module):
    """Each training pass runs one expert, drawn for the whole batch; the others get no gradient. (…, d_in) → (…, d_out)

    inference: evaluation runs one layer, every tensor of which is the mean of theirs ("factors"), gives the mean of
    what they give ("outputs"), or draws one for each sample ("sample") or position ("token").
    """

    def __init__(self, make: Callable[[], nn.Module], count: int, inference: Inference = "factors"):
        super().__init__()
        self.experts, self.inference = alike(make, count), inference

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self.experts[draw(len(self.experts))](x)
        if self.inference == "factors":
            return functional_call(self.experts[0], self.folded(), x)
        outputs = torch.stack([expert(x) for expert in self.experts], dim=-2)
        if self.inference == "outputs":
            return outputs.mean(dim=-2)
        each = x.shape[:-1] if self.inference == "token" else (x.shape[0], *(1 for _ in x.shape[1:-1]))
        return chosen(outputs, torch.randint(len(self.experts), each, device=x.device).expand(x.shape[:-1]))

    def folded(self) -> dict[str, Tensor]:
        """The mean of each tensor over the experts, by its name in one."""
        tensors = [dict(expert.named_parameters()) for expert in self.experts]
        return {name: torch.stack([each[name] for each in tensors]).mean(dim=0) for name in tensors[0]}


class GatedExperts(nn.Module):
    """y = p_e E_e(x), p = softmax(G x), e the largest of p at each position; G (count, d_in). (…, d_in) → (…, d_out)

    residual: it gives p_e (x + E_e(x)) - x. It tells `expert-balance` count · Σ_e P_e f_e, P the mean of p over
    positions, f the share of those that took e.
    """

    def __init__(self, build: Builder, make: Callable[[], nn.Module], count: int, d_in: int, *, residual: bool = False):
        super().__init__()
        self.residual = residual
        self.experts, self.gate = alike(make, count), nn.Linear(d_in, count, bias=False)
        self.heard_by = Told.of(build, Balance.kind)

    def forward(self, x: Tensor) -> Tensor:
        p = F.softmax(self.gate(x), dim=-1)
        most, which = p.max(dim=-1)
        if self.training:
            share = F.one_hot(which, p.shape[-1]).to(p.dtype)
            self.heard_by(self, p.shape[-1] * (p.flatten(0, -2).mean(0) * share.flatten(0, -2).mean(0)).sum())
        most = most[..., None]
        y = most * chosen(torch.stack([expert(x) for expert in self.experts], dim=-2), which)
        return y + (most - 1) * x if self.residual else y


def chosen(outputs: Tensor, which: Tensor) -> Tensor:
    """Of outputs (…, count, d) those of index `which` (…): (…, d)."""
    return outputs.gather(-2, which[..., None, None].expand(*which.shape, 1, outputs.shape[-1])).squeeze(-2)


class ExpertBottleneck(nn.Module):
    """ΔH = scale · up(dropout(act(down(H)))), (B, T, d) → (B, T, d)."""

    def __init__(
        self,
        down: nn.Module,
        up: nn.Module,
        activation: Callable[[Tensor], Tensor],
        *,
        dropout: float = 0.0,
        scale: float = 1.0,
    ):
        super().__init__()
        self.down, self.up, self.activation = down, up, activation
        self.dropout, self.scale = dropout, scale

    def forward(self, h: Tensor) -> Tensor:
        update = self.up(F.dropout(self.activation(self.down(h)), self.dropout, self.training))
        return update if self.scale == 1 else self.scale * update


class Told(nn.Module):
    """What the modules of a model tell a door of a training pass, one thing each, until its penalty takes it."""

    def __init__(self):
        super().__init__()
        self.by: dict[Any, Any] = {}

    @staticmethod
    def of(build: Builder, door: str) -> Callable[[Any, Any], None]:
        """Takes (who, what) for the door of that kind; where none is open, nothing is kept."""
        told = dict(build.model.pet.items()).get(door)
        return told.by.__setitem__ if isinstance(told, Told) else lambda who, what: None


def take(model: Model, door: str) -> dict[Any, Any]:
    """What the door of that kind has been told, which is then forgotten."""
    told = cast(Told, model.pet[door])
    taken = dict(told.by)
    told.by.clear()
    return taken


@dataclass(frozen=True, config=STRICT)
class Balance(Door):
    """weight · the sum of what the layers with experts tell of how unevenly they are used."""

    kind: ClassVar = "expert-balance"
    weight: float = Field(gt=0)

    @property
    def formula(self) -> str:
        return f"loss + {self.weight:g} · Σ_layers (imbalance of the experts)"

    @property
    def divides(self) -> bool:
        return False

    @property
    def counts_padding(self) -> bool:
        return True

    def open(self, build):
        return Told()

    def penalty(self, model):
        return self.weight * sum(take(model, self.kind).values())
