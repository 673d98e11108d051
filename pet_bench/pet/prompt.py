"""What a router reads of a prompt: one vector an example, the same for every word of its answer."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from pet_bench.pet.build import Builder, Place
from pet_bench.pet.inserted import states_of

Reads = Literal["mean", "first"]


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
            if (example := self.encoded[0].context.example) is not None:
                return pooled[example]
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
        self.context = build.context
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
