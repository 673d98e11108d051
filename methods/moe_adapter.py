"""MoE-Adapters (Yu et al., CVPR 2024): adapter experts beside the feed-forward, chosen for a sample by its task's
router."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from pet_bench.pet import Builder, Delta, Design, Difference, Insert, Method, Place
from pet_bench.pet.experts import Balance, Told
from pet_bench.pet.inserted import states_of
from pet_bench.spec import STRICT, Size

Reads = Literal["mean", "first"]


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
    per_task: bool = True

    @property
    def formula(self) -> str:
        own = ", R and Q per task" if self.per_task else ""
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
        self.router = place.by_task(lambda: Router(spec, prompt.width)) if spec.per_task else Router(spec, prompt.width)
        self.tell = Told.of(place, Balance.kind)

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


class Prompt(nn.Module):
    """p (B, d): what routers read of the prompt's states (B, N, d), their mean or the first one, padding left out.

    In a stack that reads, its own X; in one that writes, the last states of the one that reads, a row for each beam; in
    one that does both, X where the prompt is, which is kept while an answer is generated. Elsewhere X of all positions.
    """

    def __init__(self, place: Place, reads: Reads, d_in: int):
        super().__init__()
        reading, writing = place.anatomy.reading, place.anatomy.writing
        self.reads: Reads = reads
        self.context = place.context if place.stack == reading else None
        self.writes = place.stack == reading == writing
        self.kept: Tensor | None = None
        self.encoded: tuple[Encoded, ...] = ()  # in a tuple: it is shared
        if place.stack == writing != reading:
            self.encoded = (place.shared(f"encoded_{reads}", lambda: Encoded(place, reads)),)
        self.width = place.anatomy.stacks[reading].width if self.encoded else d_in

    def forward(self, x: Tensor) -> Tensor:
        if self.encoded:
            pooled = self.encoded[0].pooled
            assert pooled is not None  # its stack has run
        elif self.context is None or self.context.mask is None:
            return pool(x, None, self.reads)
        else:
            pooled = self._prompt(x, self.context.mask)
        return pooled.repeat_interleave(len(x) // len(pooled), dim=0)

    def _prompt(self, x: Tensor, mask: Tensor) -> Tensor:
        if x.shape[1] < mask.shape[1] and self.kept is not None:  # a word of the answer
            return self.kept
        assert self.context is not None
        length = self.context.prompt if self.writes else None
        pooled = pool(x[:, :length], mask[:, :length], self.reads)
        if self.writes and not self.training:
            self.kept = pooled.detach()
        return pooled


class Encoded(nn.Module):
    """p of the last states of the stack that reads, where another one writes."""

    def __init__(self, build: Builder, reads: Reads):
        super().__init__()
        self.pooled: Tensor | None = None
        model, last = build.model, build.anatomy.sites[f"{build.anatomy.reading}.output"]

        def keep(module: nn.Module, args: tuple, output: Any) -> None:
            self.pooled = pool(states_of(output), model.context.mask, reads)

        model.at(last.writer).register_forward_hook(keep)


def pool(states: Tensor, mask: Tensor | None, how: Reads) -> Tensor:
    """(B, N, d) → (B, d): the mean over unmasked positions, or the first of them."""
    if mask is None:
        return states.mean(dim=1) if how == "mean" else states[:, 0]
    if how == "first":
        return states[torch.arange(len(states), device=states.device), mask.int().argmax(dim=1)]
    weight = mask[..., None].to(states.dtype)
    return (states * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MoEAdapter(Method):
    """H' = H + Σ_e g_e E_e(X),  E_e(x) = scale (U_e dropout(relu(D_e x + c_e)) + k_e) beside every feed-forward:

        l = R p + n ⊙ (softplus(Q p) + 0.01),  n ~ N(0, 1),   g = softmax over the top_k largest of l, 0 elsewhere

    The same gates hold at all positions of a sample. D_e (r, d), U_e (d, r) = 0, c, k, R, Q = 0. Noise is there in
    training alone, `noise`: at all. p: the mean of the prompt's states where a router reads them, or the `first`: X in
    an encoder; the encoder's last states in its decoder, whose own first position is the same for all; X at the prompt
    in a decoder-only model.

    experts, top_k: 2 and 2, as in the authors' class-incremental runs: all are used, and the router mixes them. Their
    task-incremental ones had 22, of which 2. width: r, d/12. per_task: every task has a router; else one is shared.
    balance: weight of Σ_layers cv²(Σ_B g) + cv²(load), cv² = variance / mean², load the samples that an expert has, in
    noisy training with top_k < experts its smooth estimate. The authors compute it with weight 0.01 and throw it away.

    Deliberate differences: this is a transfer to encoder-decoders and joint training; the reference is CLIP, whose
    router reads X at the first position (`reads: first`), and whose noise stays on in evaluation. No expert is frozen
    after a task, as tasks are trained together, and there is no selector of tasks: they are given.
    The reference has no licence: implemented from its mathematics.
    """

    name: ClassVar = "moe-adapter"
    source: ClassVar = "MoE-Adapters (Yu et al., CVPR 2024) and its code; METHODS_B section 4"
    year: ClassVar = 2024
    learning_rates: ClassVar = {"mini-bart": 1e-2, "mini-t5": 1e-2}
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
    per_task: bool = True
    balance: float = Field(default=0.0, ge=0)

    @classmethod
    def defaults(cls, anatomy):
        return {"width": max(1, round(anatomy.d / 12))}

    def skip(self, anatomy):
        flat = next((name for name in anatomy.adapted if anatomy.stacks[name].flat), None)
        return f"the backbone's {flat} has no axis of examples to route" if flat else super().skip(anatomy)

    def design(self, anatomy):
        experts = RoutedExperts(
            self.width, self.experts, self.top_k, self.scale, self.dropout, self.noise, self.reads, self.per_task
        )
        sites = tuple(site for site in anatomy.sub_layers if site.endswith("ffn"))
        return Design(
            inserts=(Insert(sites, experts, reads="input"),),
            doors=(Balance(self.balance),) if self.balance else (),
        )
