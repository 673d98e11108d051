"""MTL-LoRA (Yang et al., AAAI 2025): LoRA whose tasks share A, mix its output and weigh a bank of B; MoSLoRA and
HydraLoRA are settings of it."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from pet_bench.pet import Delta, Design, Insert, Method, Place
from pet_bench.pet.linears import uniform
from pet_bench.spec import STRICT, Names, Size


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MixedLowRank(Delta):
    """f(x) = (alpha/r) Σ_k ω_k B_k Λ A dropout(x), A (r, d_in), Λ (r, r), B_k (d_out, r), k = 1 … ups.

    mixer: Λ "full", its "diagonal" alone, or "none" (Λ = 1). mixers: a Λ for each "task", or one that is "shared".
    mixer_start: of a full Λ, "identity", or "orthogonal". router: ω = softmax(w_τ / temperature) of the batch's task τ,
    w (tasks, ups), or of each "token", ω = softmax(W x / temperature), W (ups, d_in). Of one B there is no ω.

    A ~ U(-1/√d_in, 1/√d_in), B = 0, w ~ U(-1/√ups, 1/√ups), W as A. The softmax is in float32.
    """

    kind: ClassVar = "mixed-low-rank"
    rank: Size
    alpha: float = Field(gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    ups: Size = 1
    temperature: float = Field(default=1.0, gt=0)
    mixer: Literal["full", "diagonal", "none"] = "full"
    mixers: Literal["task", "shared"] = "task"
    mixer_start: Literal["identity", "orthogonal"] = "identity"
    router: Literal["task", "token"] = "task"

    @property
    def formula(self) -> str:
        tau = "_τ" if self.mixers == "task" else ""
        mixed = {"full": f"Λ{tau} ", "diagonal": f"diag(λ{tau}) ", "none": ""}[self.mixer]
        by = "w_τ" if self.router == "task" else "W {x}"
        bank = f"Σ_k softmax({by} / {self.temperature:g})_k B_k" if self.ups > 1 else "B"
        return f"({self.alpha:g}/{self.rank}) {bank} {mixed}A dropout({{x}}, {self.dropout:g})"

    def build(self, place, d_in):
        return (TaskRouted if self.router == "task" or self.ups == 1 else TokenRouted)(self, place, d_in)


class Mixed(nn.Module):
    """What both routers have in common; the subclass says with `weights(x)` how the B are weighed."""

    def __init__(self, spec: MixedLowRank, place: Place, d_in: int):
        super().__init__()
        self.spec, self.context = spec, place.context
        self.by_task = (spec.mixer != "none" and spec.mixers == "task") or (spec.router == "task" and spec.ups > 1)
        self.tasks = {task: i for i, task in enumerate(place.named_tasks() if self.by_task else place.tasks)}
        r = spec.rank
        self.A = nn.Parameter(uniform(torch.empty(r, d_in), d_in))
        self.B = nn.Parameter(torch.zeros(spec.ups, place.d_h, r))
        rows = (len(self.tasks),) if spec.mixers == "task" else ()
        if spec.mixer == "full":
            start = nn.init.orthogonal_(torch.empty(r, r)) if spec.mixer_start == "orthogonal" else torch.eye(r)
            self.mixer = nn.Parameter(start.expand(*rows, r, r).clone())
        elif spec.mixer == "diagonal":
            self.mixer = nn.Parameter(torch.ones(*rows, r))

    def task(self) -> int:
        return self.tasks[self.context.task_among(self.tasks)]

    def mix(self, t: Tensor) -> Tensor:
        """Λ t of t (…, r)."""
        if self.spec.mixer == "none":
            return t
        mixer = self.mixer[self.task()] if self.spec.mixers == "task" else self.mixer
        return F.linear(t, mixer) if self.spec.mixer == "full" else t * mixer

    @property
    def scale(self) -> float:
        return self.spec.alpha / self.spec.rank


class TaskRouted(Mixed):
    """ω of the batch's task: at a fixed task it is a plain LoRA, and can be merged for that task."""

    def __init__(self, spec: MixedLowRank, place: Place, d_in: int):
        super().__init__(spec, place, d_in)
        if spec.ups > 1:
            self.w = nn.Parameter(uniform(torch.empty(len(self.tasks), spec.ups), spec.ups))

    def up(self) -> Tensor:
        """Σ_k ω_k B_k, (d_out, r)."""
        if self.spec.ups == 1:
            return self.B[0]
        omega = (self.w[self.task()].float() / self.spec.temperature).softmax(-1).to(self.B.dtype)
        return (omega[:, None, None] * self.B).sum(0)

    def weight(self) -> Tensor:
        """(d_out, d_in) of the context's task."""
        return self.up() @ self.mix(self.A.T).T * self.scale

    def forward(self, x: Tensor) -> Tensor:
        """x (…, d_in) → (…, d_out)."""
        t = self.mix(F.linear(F.dropout(x, self.spec.dropout, self.training), self.A))
        return F.linear(t, self.up()) * self.scale


class TokenRouted(Mixed):
    """ω of each token."""

    def __init__(self, spec: MixedLowRank, place: Place, d_in: int):
        super().__init__(spec, place, d_in)
        self.W = nn.Parameter(uniform(torch.empty(spec.ups, d_in), d_in))

    def forward(self, x: Tensor) -> Tensor:
        """x (…, d_in) → (…, d_out)."""
        omega = (F.linear(x, self.W).float() / self.spec.temperature).softmax(-1).to(x.dtype)
        t = self.mix(F.linear(F.dropout(x, self.spec.dropout, self.training), self.A))
        weighed = (omega[..., None] * t[..., None, :]).flatten(-2)  # (…, ups · r)
        return F.linear(weighed, self.B.transpose(0, 1).flatten(1)) * self.scale


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MTLLoRA(Method):
    """y = W x + b + (alpha/r) B_τ Λ_τ A x,  B_τ = Σ_k softmax(w_τ / temperature)_k B_k, τ the batch's task.

    A (r, d) is shared, Λ_τ (r, r) starts at 1, B_k (d, r) at 0, w (tasks, ups) at random. rank: 64 at d = 768. biases,
    norms: every bias, every layer norm's weight of the backbone trains too, as in the published runs, which are on
    BART; on T5 and elsewhere (our transfer) the visual embedding alone does. mixer: "diagonal" for the paper's lighter
    form. projections: of every attention; in cross-attention the values' x are the encoder's states. The released
    stand-alone module's scaler σ(s) never trains there: it is alpha · σ(0) here.

    MoSLoRA (Wu et al., EMNLP 2024) is `{ups: 1, mixers: shared, mixer_start: orthogonal}`; HydraLoRA (Tian et al.,
    NeurIPS 2024) is `{ups: 3, mixer: none, router: token, temperature: 1}`: a bank of B weighed by each token.
    """

    name: ClassVar = "mtl-lora"
    source: ClassVar = "MTL-LoRA (Yang et al., AAAI 2025); its VL-BART code; METHODS_B section 2"
    reference: ClassVar = "pUmpKin-Co/MTL-LoRA 7848a70 (MIT)"
    year: ClassVar = 2025
    size: ClassVar = "rank"
    learning_rates: ClassVar = {"bart": 1e-3, "mini-bart": 5e-3, "mini-t5": 5e-3, "mini-llama": 5e-3}
    identity_at_start: ClassVar = True

    rank: Size
    biases: bool
    norms: bool
    alpha: float = Field(default=16.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    ups: Size = 2
    temperature: float = Field(default=0.8, gt=0)
    mixer: Literal["full", "diagonal", "none"] = "full"
    mixers: Literal["task", "shared"] = "task"
    mixer_start: Literal["identity", "orthogonal"] = "identity"
    router: Literal["task", "token"] = "task"
    projections: Names = ("query", "value")

    @classmethod
    def defaults(cls, anatomy):
        published = anatomy.among({"bart": True, "*": False})
        return {"rank": max(1, round(anatomy.d * 64 / 768)), "biases": published, "norms": published}

    def design(self, anatomy):
        update = MixedLowRank(
            rank=self.rank, alpha=self.alpha, dropout=self.dropout, ups=self.ups, temperature=self.temperature,
            mixer=self.mixer, mixers=self.mixers, mixer_start=self.mixer_start, router=self.router,
        )  # fmt: skip
        trains = ("visual", *(("biases",) if self.biases else ()), *(("norms",) if self.norms else ()))
        return Design((Insert(anatomy.projections(self.projections), update, reads="input"),), trains)
