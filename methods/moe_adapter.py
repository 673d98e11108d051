"""MoE-Adapters (Yu et al., CVPR 2024): adapter experts beside the feed-forward, chosen for a sample by its task's
router."""

from __future__ import annotations

from typing import ClassVar, Literal, cast

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from pet_bench.errors import UserError
from pet_bench.pet import Builder, Delta, Design, Difference, Door, Insert, Method, Place
from pet_bench.pet.experts import Balance, Told
from pet_bench.pet.prompt import Prompt, Reads
from pet_bench.spec import STRICT, Size


@dataclass(frozen=True, config=STRICT)
class RoutedExperts(Delta):
    """f(x) = Σ_e g_e E_e(x), E_e(x) = scale (U_e dropout(relu(D_e x + c_e)) + k_e); see `MoEAdapter`."""

    kind: ClassVar = "routed-experts"
    width: Size
    experts: Size
    top_k: Size
    scale: float = 0.1
    dropout: float = Field(default=0.0, ge=0, lt=1)
    noise: bool = True
    reads: Reads = "mean"
    routers: Literal["task", "shared"] = "task"

    @property
    def formula(self) -> str:
        own = ", R and Q per task" if self.routers == "task" else ""
        noise = " + n (softplus(Q p) + 0.01)" if self.noise else ""
        return (
            f"Σ_e g_e {self.scale:g} (U_e relu(D_e {{x}} + c_e) + k_e) (r = {self.width}), g = softmax of the "
            f"{self.top_k} largest of {self.experts} in R p{noise}, p the prompt's {self.reads}{own}"
        )

    def build(self, place, d_in):
        return RoutedModule(self, place, d_in)


class Expert(nn.Module):
    def __init__(self, spec: RoutedExperts, d_in: int, d_h: int):
        super().__init__()
        self.down, self.up = nn.Linear(d_in, spec.width), nn.Linear(spec.width, d_h)
        self.scale, self.dropout = spec.scale, spec.dropout
        for start in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(start)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.dropout(F.relu(self.down(x)), self.dropout, self.training)
        return self.scale * self.up(hidden)


class Router(nn.Module):
    """Logits R p (B, E) of pooled states p (B, d), and in training the width of their noise, softplus(Q p) + 0.01."""

    def __init__(self, spec: RoutedExperts, d: int):
        super().__init__()
        self.R = nn.Parameter(torch.zeros(d, spec.experts))
        self.noise = nn.Parameter(torch.zeros(d, spec.experts)) if spec.noise else None

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor | None]:
        width = F.softplus(pooled @ self.noise) + 0.01 if self.noise is not None and self.training else None
        return pooled @ self.R, width


class RoutedModule(nn.Module):
    def __init__(self, spec: RoutedExperts, place: Place, d_in: int):
        super().__init__()
        self.top_k = min(spec.top_k, spec.experts)
        self.prompt = prompt = Prompt(place, spec.reads, d_in)
        self.experts = nn.ModuleList(Expert(spec, d_in, place.d_h) for _ in range(spec.experts))
        self.router = (
            place.by_task(lambda: Router(spec, prompt.width)) if spec.routers == "task" else Router(spec, prompt.width)
        )
        self.tell = Told.of(place, Balance.kind)
        self.usage = tuple(module for module in place.model.pet.values() if isinstance(module, Usage))

    def route(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Gates (B, E), of which top_k are not 0, and how many samples each expert has, (E,)."""
        clean, width = self.router(pooled)
        logits = clean if width is None else clean + torch.randn_like(clean) * width
        best = logits.topk(min(self.top_k + 1, logits.shape[-1]), dim=-1)
        taken = best.indices[:, : self.top_k]
        gates = torch.zeros_like(logits).scatter(1, taken, best.values[:, : self.top_k].softmax(dim=-1))
        if width is None or self.top_k == logits.shape[-1]:
            return gates, (gates > 0).sum(dim=0).to(gates.dtype)
        last, next_one = best.values[:, self.top_k - 1, None], best.values[:, self.top_k, None]
        threshold = torch.where(logits > next_one, next_one, last)
        return gates, torch.special.ndtr((clean - threshold) / width).sum(dim=0)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, d) → (B, T, d)."""
        gates, load = self.route(self.prompt(x))
        if self.training:
            self.tell(self, uneven(gates.sum(dim=0)) + uneven(load))
            for usage in self.usage:
                usage(self, gates)
        if self.top_k == len(self.experts):
            outputs = torch.stack([expert(x) for expert in self.experts], dim=1)
            return (gates[:, :, None, None] * outputs).sum(dim=1).to(x.dtype)
        total = gates.new_zeros(x.shape)
        for e, expert in enumerate(self.experts):
            if len(rows := gates[:, e].nonzero()[:, 0]):  # what nobody has chosen gets no gradient
                total = total.index_add(0, rows, (gates[rows, e, None, None] * expert(x[rows])).to(total.dtype))
        return total.to(x.dtype)


def uneven(amounts: Tensor) -> Tensor:
    """cv²: variance / mean² of (E,); 0 of a single one."""
    return amounts.var(correction=min(1, len(amounts) - 1)) / (amounts.mean().square() + 1e-10)


class Usage(nn.Module):
    """How many samples each expert has had since the task began, and the tasks so far."""

    def __init__(self, spec: ActivateFreeze, build: Builder):
        super().__init__()
        self.count, self.model = spec.count, (build.model,)
        self.used: dict[int, Tensor] = {}
        self.tasks: list[str] = []

    def __call__(self, mixture: RoutedModule, gates: Tensor) -> None:
        """Count what a training pass chooses; the first of another task freezes what the last one used most."""
        task = self.model[0].context.task or ""
        if task not in self.tasks[-1:]:
            if task in self.tasks:
                raise UserError(f'"{task}" is back: experts freeze after a task, so recipe.task_order must be sequence')
            self.freeze()
            self.tasks.append(task)
        which = self.mixtures().index(mixture)
        self.used[which] = self.used.get(which, 0) + (gates > 0).sum(dim=0)

    def mixtures(self) -> list[RoutedModule]:
        return [module for module in self.model[0].modules() if isinstance(module, RoutedModule)]

    def freeze(self) -> None:
        for which, mixture in enumerate(self.mixtures()):
            if which in self.used:
                for e in self.used.pop(which).topk(self.count).indices.tolist():
                    mixture.experts[e].requires_grad_(False)


@dataclass(frozen=True, config=STRICT)
class ActivateFreeze(Door):
    """After a task each layer freezes the `count` experts that most samples of the task had; see `MoEAdapter`."""

    kind: ClassVar = "activate-freeze"
    count: Size

    @property
    def formula(self) -> str:
        return f"after each task the {self.count} experts used most in each layer train no more"

    @property
    def divides(self) -> bool:
        return False

    def open(self, build):
        return Usage(self, build)

    def state(self, model):
        usage = cast(Usage, model.pet[self.kind])
        trains = [[next(expert.parameters()).requires_grad for expert in m.experts] for m in usage.mixtures()]
        return {"tasks": usage.tasks, "used": {str(which): n for which, n in usage.used.items()}, "trains": trains}

    def restore(self, model, state):
        usage = cast(Usage, model.pet[self.kind])
        usage.tasks = [*state["tasks"]]
        usage.used = {int(which): n.to(model.device) for which, n in state["used"].items()}
        for mixture, trains in zip(usage.mixtures(), state["trains"], strict=True):
            for expert, train in zip(mixture.experts, trains, strict=True):
                expert.requires_grad_(train)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MoEAdapter(Method):
    """H' = H + Σ_e g_e E_e(X),  E_e(x) = scale (U_e dropout(relu(D_e x + c_e)) + k_e) beside every feed-forward:

        l = R p + n ⊙ (softplus(Q p) + 0.01),  n ~ N(0, 1),   g = softmax over the top_k largest of l, 0 elsewhere

    The same gates hold at all positions of a sample. D_e (r, d), U_e (d, r) = 0, c, k, R, Q = 0. Noise is there in
    training alone, `noise`: at all. p: the mean of the prompt's states where a router reads them, or the `first`: X in
    an encoder; the encoder's last states in its decoder, whose own first position is the same for all; X at the prompt
    in a decoder-only model.

    experts, top_k: 2 and 2, as in the authors' class-incremental runs: all are used, and the router mixes them. Their
    task-incremental ones had 22, of which 2. width: r, d/12. routers: one for each task, or one that is shared.
    balance: weight of Σ_layers cv²(Σ_B g) + cv²(load), cv² = variance / mean², load the samples that an expert has, in
    noisy training with top_k < experts its smooth estimate. The authors compute it with weight 0.01 and throw it away.
    freeze: where tasks are trained one after the other (`recipe.task_order`), so many experts of each layer that the
    last task used most train no more; published: 2. Where they take turns, nothing is frozen.

    Deliberate differences: this is a transfer to encoder-decoders and joint training; the reference is CLIP, whose
    router reads X at the first position (`reads: first`), and whose noise stays on in evaluation. There is no selector
    of tasks: they are given.
    """

    name: ClassVar = "moe-adapter"
    source: ClassVar = "MoE-Adapters (Yu et al., CVPR 2024) and its code; METHODS_B section 4"
    reference: ClassVar = "JiazuoYu/MoE-Adapters4CL 4572d97 (no licence): from its mathematics alone"
    year: ClassVar = 2024
    size: ClassVar = "width"
    learning_rates: ClassVar = {"mini-bart": 2e-2, "mini-t5": 2e-2}
    identity_at_start: ClassVar = True
    differences: ClassVar = (
        Difference(
            "moe-adapter-balance", "balance", 0.0, 0.01, {},
            "The code computes a loss that keeps the experts' use even, with weight 0.01, and adds it to nothing.",
            "METHODS_B 4.1, 4.4; followups/parity/moe_adapters_task2_noise",
        ),
    )  # fmt: skip

    width: Size
    experts: Size = 2
    top_k: Size = 2
    scale: float = 0.1
    dropout: float = Field(default=0.1, ge=0, lt=1)
    noise: bool = True
    reads: Reads = "mean"
    routers: Literal["task", "shared"] = "task"
    balance: float = Field(default=0.0, ge=0)
    freeze: int = Field(default=0, ge=0)

    @classmethod
    def defaults(cls, anatomy):
        return {"width": max(1, round(anatomy.d / 12))}

    def skip(self, anatomy):
        flat = next((name for name in anatomy.adapted if anatomy.stacks[name].flat), None)
        return f"the backbone's {flat} has no axis of examples to route" if flat else super().skip(anatomy)

    def design(self, anatomy):
        experts = RoutedExperts(
            self.width, self.experts, self.top_k, self.scale, self.dropout, self.noise, self.reads, self.routers
        )
        sites = tuple(site for site in anatomy.sub_layers if site.endswith("ffn"))
        return Design(
            inserts=(Insert(sites, experts, reads="input"),),
            doors=(
                *((Balance(self.balance),) if self.balance else ()),
                *((ActivateFreeze(self.freeze),) if self.freeze else ()),
            ),
        )
