"""Multi-granularity prompts: coarse prompts from a pool that all tasks share, fine prefixes of every task's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, ClassVar, Literal, cast

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from pet_bench.errors import UserError
from pet_bench.pet import Attend, Builder, Call, Design, Door, Method, Model, edit_attention
from pet_bench.spec import STRICT, Distinct, Size

Layers = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Distinct, Field(min_length=1)]
Stages = Annotated[int, Field(ge=1, le=2)]


class Pool(nn.Module):
    """S entries of any shape, all of them a parameter, with keys κ (S, d) of which a query chooses; U(-1, 1).

    axis: that of the S entries. After `choose`, `chosen` are the ids (B, k) and `pull` the term
    -Σ_{b,k} cos(q_b, κ_chosen) / B.
    """

    def __init__(self, *shape: int, d: int, axis: int = 0):
        super().__init__()
        self.axis = axis
        self.entries = nn.Parameter(torch.empty(shape).uniform_(-1, 1))
        self.keys = nn.Parameter(torch.empty(shape[axis], d).uniform_(-1, 1))
        self.similarity = self.chosen = self.pull = torch.empty(0)

    def choose(self, query: Tensor, top_k: int, batchwise: bool, given: Tensor | None = None) -> Tensor:
        """Ids (B, k) for queries (B, d): each its nearest keys', or those that most of the batch have; or the given."""
        query, keys = _unit(query), _unit(self.keys)
        self.similarity = query @ keys.T
        ids = self.similarity.topk(top_k).indices if given is None else given
        if batchwise and given is None:
            votes = ids.flatten().bincount(minlength=len(keys))
            ids = votes.topk(top_k).indices.expand(len(query), -1)
        self.pull = -(query[:, None] * keys[ids]).sum() / len(query)
        self.chosen = ids
        return ids

    def forward(self, ids: Tensor) -> Tensor:
        """The entries of ids (B, k): their axis becomes two, B and k."""
        return self.entries.index_select(self.axis, ids.flatten()).unflatten(self.axis, tuple(ids.shape))


def _unit(x: Tensor) -> Tensor:
    return x * x.square().sum(-1, keepdim=True).clamp(min=1e-12).rsqrt()


def before(words: Tensor, entries: Tensor) -> Tensor:
    """words (B, T, d) behind the chosen prompts (B, k, L, d)."""
    return torch.cat([entries.flatten(1, 2), words], dim=1)


def as_prefix(entries: Tensor) -> Tensor:
    """(layers, 2, B, k, L, heads, width) → (layers, B, 2, k·L, heads, width): keys and values of every layer."""
    return entries.flatten(3, 4).transpose(1, 2)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Prompts(Door):
    """The coarse and fine prompts of `PromptPool`, whose docstring has the formulas and the options."""

    kind: ClassVar = "prompt-pool"
    length: Size
    pool: Size
    top_k: Size
    batchwise: bool
    query: Literal["text", "visual"]
    pull: float
    fine: Literal["task", "key", "none"]
    fine_length: Size
    layers: Layers
    stages: Stages

    @property
    def formula(self) -> str:
        chosen = f"{self.top_k} of {self.pool} by cos(q, κ)" if self.pool > self.top_k else str(self.pool)
        where = f"layers {', '.join(map(str, self.layers))}, P ({self.fine_length}, d) by {self.fine}"
        fine = "" if self.fine == "none" else f";  Attn(Q, [P_k; K], [P_v; V]) in {where}"
        return f"input = [P; text], P ({self.length}, d), {chosen}, loss - {self.pull:g} cos(q, κ){fine}"

    @property
    def divides(self) -> bool:
        return not self.batchwise or self.pool <= self.top_k

    def open(self, build):
        if self.top_k > self.pool:
            raise UserError(f"top_k: {self.top_k} of {self.pool} prompts (possible: 1 to {self.pool})")
        pools = PoolsModule(self, build)
        build.model.text_edits.append(pools)
        return pools

    def penalty(self, model):
        pools = cast(PoolsModule, model.pet[self.kind])
        return self.pull * sum(pool.pull for pool in pools.keyed())

    def before_training(self, model, batches):
        self._enter(model, 1 if self.stages == 2 else 0)

    def after_step(self, model, step, total):
        if self.stages == 2 and step == (total + 1) // 2:
            self._enter(model, 2)

    def state(self, model):
        return {"stage": cast(PoolsModule, model.pet[self.kind]).stage}

    def restore(self, model, state):
        self._enter(model, state["stage"])

    def _enter(self, model: Model, stage: int) -> None:
        """0: all trains; 1: coarse prompts alone are there; 2: fine ones train, coarse ones stay."""
        pools = cast(PoolsModule, model.pet[self.kind])
        pools.stage = stage
        for part, frozen in ((pools.coarse, stage == 2), (pools.fine, stage == 1)):
            for parameter in part.parameters() if part is not None else ():
                parameter.requires_grad_(not frozen)


class PoolsModule(nn.Module):
    """Edits the text (coarse) and some layers' attention (fine); stage as in `Prompts`."""

    def __init__(self, spec: Prompts, build: Builder):
        super().__init__()
        self.spec, self.context, self.stage = spec, build.context, 0
        model, d, reading = build.model, build.anatomy.stacks[build.anatomy.reading].width, build.anatomy.reading
        self.coarse = Pool(spec.pool, spec.length, d, d=d)
        self.fine: nn.Module | None = None
        if spec.fine == "none":
            return
        stack, site = build.anatomy.stacks[reading], build.anatomy.sites[f"{reading}.self_attn"]
        if odd := [layer for layer in spec.layers if layer >= stack.layers]:
            raise UserError(f"layers: {reading} has no layer {odd[0]} (possible: 0 to {stack.layers - 1})")
        attentions = [model.at(site.writer, stack.name_of(layer)) for layer in spec.layers]
        key = build.anatomy.sites[f"{reading}.self_attn.key"]
        width = cast(nn.Linear, model.at(key.writer, stack.name_of(0))).out_features // (key.part[1] if key.part else 1)
        sizes = len(spec.layers), 2, spec.pool, spec.fine_length, 1, width

        def make() -> nn.Module:
            if spec.fine == "key":
                return Pool(*sizes, d=d, axis=2)
            return Prefixes(*sizes[:2], *sizes[3:])

        self.fine = build.by_task(make) if spec.fine == "task" else make()
        for i, attention in enumerate(attentions):
            edit_attention(model, attention, self._behind(i))

    def keyed(self) -> list[Pool]:
        """The pools whose keys were asked."""
        fine = [self.fine] if isinstance(self.fine, Pool) and self.stage != 1 else []
        return [*([self.coarse] if self.stage != 2 else []), *fine]

    def forward(self, words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """words (B, L, d), mask (B, L) → both behind the coarse prompts."""
        spec = self.spec
        if spec.query == "visual":
            query = self.context.summary
        else:
            there = mask[..., None].to(words.dtype)
            query = (words * there).sum(1) / there.sum(1).clamp(min=1)
        query = query.detach()
        prompts = self.coarse(self.coarse.choose(query, spec.top_k, spec.batchwise))
        if isinstance(self.fine, Pool):
            self.fine.choose(query, spec.top_k, spec.batchwise)
        longer = before(words, prompts)
        return longer, torch.cat([mask.new_ones(len(mask), longer.shape[1] - mask.shape[1]), mask], dim=1)

    def _behind(self, i: int) -> Callable[..., Tensor]:
        def edit(call: Call, *, attend: Attend) -> Tensor:
            if self.stage == 1 or self.fine is None:
                return attend(call)
            rows, heads, _, width = call.key.shape
            if isinstance(self.fine, Pool):
                ids = self.fine.chosen.repeat_interleave(rows // len(self.fine.chosen), 0)
                pair = as_prefix(self.fine(ids))[i]
            else:
                pair = cast(Tensor, self.fine())[i].expand(rows, -1, -1, -1, -1)
            # (B, 2, M, 1, heads · width) → keys and values (B, heads, M, width)
            key, value = pair.squeeze(3).unflatten(-1, (heads, width)).permute(1, 0, 3, 2, 4).to(call.key.dtype)
            return attend(call.before(key, value))

        return edit


class Prefixes(nn.Module):
    """Keys and values (layers, 2, L, 1, width), U(-1, 1)."""

    def __init__(self, *shape: int):
        super().__init__()
        self.entries = nn.Parameter(torch.empty(shape).uniform_(-1, 1))

    def forward(self) -> Tensor:
        return self.entries


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PromptPool(Method):
    """The stack reads [P; text], P the chosen of `pool` coarse prompts (length, d) that all tasks share; in some layers
    Attn(Q, [P_k; K], [P_v; V]) with fine prefixes of every task's own.

    Coarse prompts have keys κ: of each example, top_k by cos(q, κ) are taken, or those that most of its batch take
    (batchwise, as published). query: q, the mean of the embedded "text", or of the "visual" tokens, no gradient. The
    loss gets -pull · Σ cos(q, κ_chosen) / B, through which alone keys learn. By default the pool is of one prompt, as
    published: there is nothing to choose, and its key has no effect.

    fine: prefixes by "task", from a pool by "key" as the coarse ones, or "none". fine_length: M. layers: those of the
    self-attention of the stack that reads; 2, 3, 4 of 12, in proportion elsewhere. stages: 1, all trains together, or
    2, coarse prompts in the first half of the updates, without fine ones, then fine ones behind them, as published.
    Everything starts as U(-1, 1).

    What is hosted is the code's prompts, on encoder-decoders (our transfer); clients, a server that distils and a
    prompt for each class are out of scope. There keys and values are mixed up by a reshape for more than one example.
    """

    name: ClassVar = "prompt-pool"
    source: ClassVar = "Multi-granularity prompts (FedMGP, arXiv 2407.00113); METHODS_B section 7"
    reference: ClassVar = "SkyOfBeginning/FedMGP fca3643 (no licence): from its mathematics alone"
    year: ClassVar = 2024
    needs: ClassVar = ("prompts",)
    size: ClassVar = "length"
    learning_rates: ClassVar = {"mini-bart": 1e-2, "mini-t5": 1e-2, "mini-llama": 1e-2}

    length: Size = 15
    pool: Size = 1
    top_k: Size = 1
    batchwise: bool = False
    query: Literal["text", "visual"] = "text"
    pull: float = Field(default=0.1, ge=0)
    fine: Literal["task", "key", "none"] = "task"
    fine_length: Size = 15
    layers: Layers
    stages: Stages = 1

    @property
    def batch_invariant(self):  # pyright: ignore[reportIncompatibleVariableOverride]  options decide
        return not self.batchwise or self.pool <= self.top_k

    @classmethod
    def defaults(cls, anatomy):
        layers = anatomy.stacks[anatomy.reading].layers
        return {"layers": sorted({layer * layers // 12 for layer in (2, 3, 4)})}

    def design(self, anatomy):
        return Design(doors=(Prompts(**asdict(self)),))
