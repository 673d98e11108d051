"""MixPHM (Jiang & Zheng, CVPR 2023): hypercomplex experts at the feed-forward, one drawn a step, folded afterwards."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from pet_bench.pet import Delta, Design, Difference, Door, Insert, Method, Model
from pet_bench.pet.deltas import check_division, gelu_new
from pet_bench.pet.experts import Balance, DrawnExperts, ExpertBottleneck, GatedExperts, Inference, Told, take
from pet_bench.pet.inserted import states_of
from pet_bench.pet.linears import PHMLinear, PHMRule
from pet_bench.spec import STRICT, Size

Shared = Literal["down", "up", "both", "none"]
Tokens = Literal["first", "unmasked"]


@dataclass(frozen=True, config=STRICT)
class PHMExperts(Delta):
    """f(x) = scale · PHM_u(dropout(gelu_new(PHM_d(x)))), both layers mixtures of `PHMLinear`, or `whole` a mixture of
    such adapters; see `MixPHM`."""

    kind: ClassVar = "phm-experts"
    width: Size
    experts: Size
    n: Size = 4
    rank: Size | None = None
    shared_rule: bool = True
    shared: Shared = "down"
    whole: bool = False
    gate: bool = False
    inference: Inference = "factors"
    dropout: float = Field(default=0.0, ge=0, lt=1)
    scale: float = 1.0
    init_range: float = Field(default=0.01, gt=0)

    def count(self, layer: str) -> int:
        """The experts of the layer "down" or "up"."""
        return 1 if self.shared in (layer, "both") else self.experts

    @property
    def formula(self) -> str:
        how = "a gate takes one a token" if self.gate else "one drawn a step"
        counts = f"{self.experts} adapters" if self.whole else f"{self.count('down')} and {self.count('up')} experts"
        return (
            f"PHM_u(dropout(gelu_new(PHM_d({{x}})), {self.dropout:g})), PHM(x) = x Σ_i A_i ⊗ L_i Q_i + b "
            f"(r = {self.width}, n = {self.n}, {counts}, {how})"
        )

    def build(self, place, d_in):
        check_division(place, self.n, d_in, self.width, place.d_h)
        rule = place.shared("phm_rule", lambda: PHMRule(self.n, self.init_range)) if self.shared_rule else None

        def mixture(make: Callable[[], nn.Module], count: int, a: int) -> nn.Module:
            if self.gate and count > 1:
                return GatedExperts(place, make, count, a, residual=self.whole)
            return DrawnExperts(make, count, self.inference)

        def layer(name: str, a: int, b: int) -> nn.Module:
            def make():
                return PHMLinear(a, b, self.n, init=self.init_range, rank=self.rank, rule=rule, gain=math.sqrt(2))

            return make() if self.whole else mixture(make, self.count(name), a)

        def adapter() -> nn.Module:
            down, up = layer("down", d_in, self.width), layer("up", self.width, place.d_h)
            return ExpertBottleneck(down, up, gelu_new, dropout=self.dropout, scale=self.scale)

        module = mixture(adapter, self.experts, d_in) if self.whole else adapter()
        keep = Told.of(place, Redundancy.kind)

        def tell(module: nn.Module, read: tuple, update: Tensor) -> None:
            if module.training:
                keep((place.stack, place.layer), (read[0], update))

        module.register_forward_hook(tell)
        return module


@dataclass(frozen=True, config=STRICT)
class Redundancy(Door):
    """redundancy · mean_stacks mean_layers red + 0.2 · information · mean_stacks mean_layers mi; see `MixPHM`."""

    kind: ClassVar = "redundancy"
    redundancy: float = Field(default=0.2, ge=0)
    information: float = Field(default=0.2, ge=0)
    tokens: Tokens = "first"

    @property
    def formula(self) -> str:
        return (
            f"loss + mean_layers ({self.redundancy:g} · red(ΔH, H) + 0.2 · {self.information:g} · mi(ΔH, mean_T of the "
            f"stack's last states)), positions: {self.tokens}"
        )

    @property
    def divides(self) -> bool:
        return False

    @property
    def counts_padding(self) -> bool:
        return True

    def open(self, build):
        told, model = Told(), build.model

        def keep(stack: str):
            def last(module: nn.Module, args: tuple, output: Any) -> None:
                if module.training:
                    told.by[stack] = states_of(output)

            return last

        for stack in build.anatomy.words:
            if stack in build.anatomy.adapted:
                model.at(build.anatomy.sites[f"{stack}.output"].writer).register_forward_hook(keep(stack))
        return told

    def terms(self, model: Model) -> dict[str, Tensor]:
        """Both terms of the last training pass, weighted."""
        told, means = take(model, self.kind), []
        for stack in model.anatomy.words:
            layers = [what for who, what in told.items() if isinstance(who, tuple) and who[0] == stack]
            if layers:
                tokens, pooled = self._tokens(model, stack, told[stack]), told[stack].float().mean(dim=1)
                pairs = [(h.float(), update.float()) for h, update in layers]
                red = [redundancy(update, h, tokens) for h, update in pairs]
                mi = [mutual_information(update, pooled, tokens) for _, update in pairs]
                means.append(torch.stack([torch.stack(red).mean(), torch.stack(mi).mean()]))
        red, mi = torch.stack(means).mean(dim=0) if means else torch.zeros(2)
        return {"redundancy": self.redundancy * red, "mutual_information": 0.2 * self.information * mi}

    def _tokens(self, model: Model, stack: str, states: Tensor) -> Tensor:
        """(B, T) bool: the positions that the losses read."""
        mask = model.context.mask
        if stack != model.anatomy.reading or mask is None:
            return states.new_ones(states.shape[:2], dtype=torch.bool)
        return first(mask) if self.tokens == "first" else mask

    def penalty(self, model):
        return sum(self.terms(model).values())


def first(mask: Tensor) -> Tensor:
    """As many positions as are unmasked in each row (B, T), from the first on."""
    return torch.arange(mask.shape[1], device=mask.device) < mask.sum(dim=1, keepdim=True)


def redundancy(update: Tensor, h: Tensor, tokens: Tensor) -> Tensor:
    """0.0039/B Σ_{i≠j} C_ij², C = norm(ΔH)ᵀ norm(H) (d, d) over all `tokens` (B, T), a row of norm being x / ‖x‖."""
    z, h = (F.normalize(states[tokens], dim=-1) for states in (update, h))
    squared = (z.T @ h).square()
    return 0.0039 / len(tokens) * (squared.sum() - squared.diagonal().sum())


def mutual_information(update: Tensor, pooled: Tensor, tokens: Tensor) -> Tensor:
    """Jensen-Shannon estimate between tokens of ΔH (M, d) and samples (B, d), S = ΔH pooledᵀ (M, B):

        Σ_other (softplus(-S) + S - ln 2) / (M (B - 1)) - Σ_own (ln 2 - softplus(-S)) / M

    A batch of one has no other samples.
    """
    scores, sample = update[tokens] @ pooled.T, tokens.nonzero()[:, 0]
    own = F.one_hot(sample, len(tokens)).bool()
    below = F.softplus(-scores)
    others = (below + scores - math.log(2)).masked_fill(own, 0).sum() / (len(scores) * max(1, len(tokens) - 1))
    return others - (math.log(2) - below[own]).sum() / len(scores)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MixPHM(Method):
    """H' = H + PHM_u(dropout(gelu_new(PHM_d(H)))) after every feed-forward:

        PHM(x) = x M + b,  M = Σ_i A_i ⊗ (L_i Q_i),  A (n, n, n), L (n, d_in/n, rank), Q (n, rank, d_out/n)

    experts: of each layer, equal at the start; every training pass draws one for the whole batch, layer by layer.
    shared: which of the two layers has only one. inference: see `DrawnExperts`; published are mean factors, mean(L)
    mean(Q). bottleneck: r, d/12. rank: 8 at d = 768. shared_rule: one A for all layers. scale: of ΔH. gate: instead of
    a draw, each position takes the expert of largest probability, before the nonlinearity and behind it; balance:
    weight of that gate's loss (which one it had is not stated). whole: experts are whole adapters, with their residual,
    so that with a gate H' = p (H + ΔH); its loss is then left out, as published.

    The loss has, of the layers of each stack that words pass through, the mean of two terms on Z = ΔH and c, the mean
    of the stack's last states, over the stacks: `redundancy` · red_l + 0.2 · `information` · mi_l,

        red = 0.0039/B Σ_{i≠j} (norm(Z)ᵀ norm(H))_ij²
        mi = E_other[softplus(Z·c) - ln 2] - E_own[ln 2 - softplus(-Z·c)]

    tokens: which positions these read of the stack that reads: the unmasked ones, or, as published, as many of the
    first (not where padding comes first, in decoder-only models).

    Deliberate differences: the visual embedding trains too, as everywhere here (theirs came pre-trained). On BART and
    decoder-only models it is our transfer. Of a batch in parts each part has its own draw. Where evaluation
    differentiates, it does so through the folded layer too.
    """

    name: ClassVar = "mixphm"
    source: ClassVar = "MixPHM (Jiang & Zheng, CVPR 2023) and its code; METHODS_B section 5"
    reference: ClassVar = "jingjing12110/MixPHM 3f2f62d (MIT)"
    year: ClassVar = 2023
    size: ClassVar = "bottleneck"
    learning_rates: ClassVar = {"t5": 5e-3, "mini-bart": 1e-2, "mini-t5": 2e-2}
    differences: ClassVar = (
        Difference(
            "mixphm-tokens", "tokens", "first", "unmasked", {},
            "Both losses are meant to read the unmasked positions of [text; visual]. The code takes as many of the "
            "first ones: padding of short texts counts, and as many visual tokens are left out.",
            "METHODS_B 5.3, quirk 1; followups/parity/mixphm_train",
        ),
    )  # fmt: skip

    bottleneck: Size
    rank: Size | None
    experts: Size = 4
    n: Size = 4
    shared_rule: bool = True
    shared: Shared = "down"
    inference: Inference = "factors"
    dropout: float = Field(default=0.5, ge=0, lt=1)
    scale: float = 1.0
    init_range: float = Field(default=0.01, gt=0)
    whole: bool = False
    gate: bool = False
    balance: float = Field(default=1.0, ge=0)
    redundancy: float = Field(default=0.2, ge=0)
    information: float = Field(default=0.2, ge=0)
    tokens: Tokens

    @classmethod
    def defaults(cls, anatomy):
        tokens = "unmasked" if anatomy.reading == anatomy.writing else "first"
        return {
            "bottleneck": 4 * max(1, round(anatomy.d / 48)),
            "rank": max(1, round(anatomy.d / 96)),
            "tokens": tokens,
        }

    def skip(self, anatomy):
        for name in anatomy.adapted:
            if odd := [w for w in (*anatomy.stacks[name].widths, anatomy.stacks[name].width) if w % self.n]:
                return f"the backbone's {name} has a width of {odd[0]}, which does not divide by {self.n}"
        return super().skip(anatomy)

    def design(self, anatomy):
        experts = PHMExperts(
            self.bottleneck, self.experts, self.n, self.rank, self.shared_rule, self.shared, self.whole, self.gate,
            self.inference, self.dropout, self.scale, self.init_range,
        )  # fmt: skip
        sites = tuple(site for site in anatomy.sub_layers if site.endswith("ffn"))
        doors = (Redundancy(self.redundancy, self.information, self.tokens),)
        doors = doors if self.redundancy or self.information else ()
        return Design(
            inserts=(Insert(sites, experts),),
            doors=(*doors, *((Balance(self.balance),) if self.gate and self.balance and not self.whole else ())),
        )
