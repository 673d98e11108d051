"""Train a few entries of the backbone's own matrices: sparse fine-tuning, by a mask that stays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from pet_bench.backbone.interface import Model
from pet_bench.errors import UserError
from pet_bench.pet.build import Builder
from pet_bench.pet.parts import Door
from pet_bench.spec import STRICT, Size


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Masked(Door):
    """W' = W + ΔW, ΔW zero but for a share `density` of all entries, in every linear layer of the adapted stacks.

    score: the entries of "smallest" or "largest" |W| are chosen, or those of largest "fisher" information, the squared
    gradient of the loss of single examples, summed over `samples` of the training's. across: the share is taken of each
    "matrix", or of the whole "model". Values (k,) start at 0, k = density · entries; their places are no parameters.
    Until training begins, where there are no examples yet, "fisher" stands at the largest |W|.
    """

    kind: ClassVar = "masked"
    density: float = Field(gt=0, le=1)
    score: Literal["smallest", "largest", "fisher"]
    across: Literal["matrix", "model"]
    samples: Size = 1024

    @property
    def formula(self) -> str:
        of = {"smallest": "of smallest |W|", "largest": "of largest |W|", "fisher": "of largest Fisher information"}
        return f"W' = W + ΔW, ΔW zero but for {self.density:g} of each {self.across}'s entries, those {of[self.score]}"

    @property
    def reads_weights(self) -> bool:
        return True

    def open(self, build):
        entries = Entries(self, build)
        sign = -1 if self.score == "smallest" else 1
        entries.choose([sign * linear.weight.abs() for linear in entries.linears])
        return entries

    def before_training(self, model, batches):
        if self.score == "fisher":
            entries = cast(Entries, model.pet[self.kind])
            weights = [linear.weight for linear in entries.linears]
            entries.choose(squared_gradients(model, weights, islice(losses(model, batches), self.samples)))

    def state(self, model):
        return {"index": cast(Entries, model.pet[self.kind]).index}

    def restore(self, model, state):
        cast(Entries, model.pet[self.kind]).index.copy_(state["index"])


class Entries(nn.Module):
    """values (k,) at the places `index` (k,), ascending, in all matrices end to end."""

    index: Tensor

    def __init__(self, spec: Masked, build: Builder):
        super().__init__()
        model = build.model
        self.across = spec.across
        self.linears = tuple(linears(model))  # in a tuple: they are the backbone's
        if not self.linears:
            raise UserError(f"{build.anatomy.backbone} has no linear layer in the scope")
        self.sizes = [linear.weight.numel() for linear in self.linears]
        shares = [max(1, round(spec.density * size)) for size in self.sizes]
        total = sum(shares) if spec.across == "matrix" else max(1, round(spec.density * sum(self.sizes)))
        self.shares = shares
        self.values = nn.Parameter(torch.zeros(total))
        self.register_buffer("index", torch.zeros(total, dtype=torch.long))
        self.is_merged = False
        self._parts: tuple[int, list[tuple[Tensor, Tensor]]] = -1, []
        for i, linear in enumerate(self.linears):
            linear.register_forward_hook(self._added(i))

    @torch.no_grad()
    def choose(self, scores: list[Tensor]) -> None:
        """Take the places of the largest scores, a matrix of them for each layer."""
        flat = [score.detach().flatten() for score in scores]
        if self.across == "matrix":
            starts = accumulate(self.sizes[:-1], initial=0)
            chosen = [s.topk(k).indices + start for s, k, start in zip(flat, self.shares, starts, strict=True)]
            places = torch.cat(chosen)
        else:
            places = torch.cat(flat).topk(len(self.values)).indices
        self.index.copy_(places.sort().values)

    def parts(self) -> list[tuple[Tensor, Tensor]]:
        """Of each matrix, the places in it (flat) and the positions of their values, found once for an index."""
        version = self.index._version
        if self._parts[0] != version or (self._parts[1] and self._parts[1][0][0].device != self.index.device):
            ends = torch.tensor(self.sizes, device=self.index.device).cumsum(0)
            cuts = torch.searchsorted(self.index, ends).tolist()
            parts, first, start = [], 0, 0
            for cut, size in zip(cuts, self.sizes, strict=True):
                parts.append((self.index[first:cut] - start, torch.arange(first, cut, device=self.index.device)))
                first, start = cut, start + size
            self._parts = version, parts
        return self._parts[1]

    def update(self, i: int) -> Tensor:
        """ΔW of a layer, of the shape of its weight."""
        places, positions = self.parts()[i]
        flat = self.values.new_zeros(self.sizes[i]).index_put((places,), self.values[positions])
        return flat.view_as(self.linears[i].weight)

    def _added(self, i: int) -> Any:
        def add(linear: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor | None:
            return None if self.is_merged else output + F.linear(args[0], self.update(i))

        return add

    def merged(self) -> dict[nn.Linear, Tensor]:
        """ΔW by layer."""
        return {linear: self.update(i).detach() for i, linear in enumerate(self.linears)}


def linears(model: Model) -> Iterator[nn.Linear]:
    """The linear layers of the adapted stacks, in their order."""
    for path, module in model.named_modules():
        if type(module) is nn.Linear and model.anatomy.stack_of(f"{path}.weight") in model.anatomy.adapted:
            yield module


def losses(model: Model, batches: Iterable[Any]) -> Iterator[Tensor]:
    """Of single examples, the mean cross-entropy of their tokens."""
    for batch in batches:
        for one in batch.split(len(batch)):
            logits = model.logits(one.inputs, one.targets)
            yield F.cross_entropy(logits.float().transpose(1, 2), one.targets, ignore_index=-100)


def squared_gradients(model: nn.Module, weights: Sequence[Tensor], each: Iterator[Tensor]) -> list[Tensor]:
    """Σ_n (∂ loss_n / ∂W)² of every weight over the losses of single examples, the empirical Fisher information.

    The losses are asked for one by one, while the model is in evaluation mode and the weights have gradients.
    """
    squared = [torch.zeros_like(weight, dtype=torch.float32) for weight in weights]
    trained, training = [weight.requires_grad for weight in weights], model.training
    model.eval()
    for weight in weights:
        weight.requires_grad_(True)
    for loss in each:
        for total, gradient in zip(squared, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
            if gradient is not None:
                total += gradient.float() ** 2
    for weight, was in zip(weights, trained, strict=True):
        weight.requires_grad_(was)
    model.train(training)
    return squared
