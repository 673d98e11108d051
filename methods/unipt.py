"""UniPT (Diao et al., CVPR 2024): a small network beside the frozen backbone that mixes what all of its layers say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from pet_bench.pet import Builder, Design, Door, Method
from pet_bench.pet.inserted import states_of, with_states
from pet_bench.pet.select import no_words
from pet_bench.pet.side import FrozenStack, NormedDown, Wide, grown, initialise
from pet_bench.spec import STRICT, Size


class Interaction(nn.Module):
    """What the anchor a makes of n targets t_i: u = Σ_i α_i u_i, u_i = C_i t_i + own_i,

        C_i = relu(a t_iᵀ ⊙ m) / (Σ_keys + ε),  α = softmax over i of (w_g · (ā ⊙ t̄_i) + b_g)

    m is 0 at keys that are padding; queries are never masked. ā, t̄ are means over what is no padding. own: "identity",
    t_i where the query is, or "position", t_i at one position. causal: m is 0 behind the query too, and the means are
    running ones, so that each position has an α of its own. floor: the sum's lower bound is ε, instead of adding it.
    """

    def __init__(
        self, width: int, *, eps: float = 1e-6, own: Literal["identity", "position"] = "identity",
        causal: bool = False, floor: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.eps, self.own, self.causal, self.floor = eps, own, causal, floor
        self.confidence = nn.Linear(width, 1)

    def forward(self, a: Tensor, t: Tensor, mask: Tensor, last: int, position: Tensor | None = None) -> Tensor:
        """a (B, S, w) or (B, 1, w), t (B, n, S, w), mask (B, S) → u (B, last, w) at the last positions of a.

        position (B,): the one of "position", else the first.
        """
        keys = t.shape[2]
        seen = mask[:, None, None, :].to(t.dtype)
        if self.causal:
            seen = seen * torch.ones(last, keys, dtype=t.dtype, device=t.device).tril(keys - last)
        u = scores(a[:, None, -last:], t, seen, self.eps, self.floor) @ t
        if self.own == "identity":
            u = u + t[:, :, -last:]
        else:
            position = torch.zeros(len(t), dtype=torch.long) if position is None else position
            u = u + t[torch.arange(len(t)), :, position][:, :, None]
        return (self.weights(a, t, mask, last) * u).sum(dim=1)

    def weights(self, a: Tensor, t: Tensor, mask: Tensor, last: int) -> Tensor:
        """α (B, n, last or 1, 1)."""
        a_mask = mask if a.shape[1] == mask.shape[1] else mask.new_ones(a.shape[:2])
        a_mean, t_mean = self.mean(a[:, None], a_mask), self.mean(t, mask)
        return self.confidence((a_mean * t_mean)[:, :, -last:]).softmax(dim=1)

    def mean(self, x: Tensor, mask: Tensor) -> Tensor:
        """Of x (B, n, S, w) over the positions of the mask (B, S): (B, n, 1, w); running: (B, n, S, w)."""
        seen = mask[:, None, :, None].to(x.dtype)
        total, count = x * seen, seen
        total, count = (y.cumsum(2) if self.causal else y.sum(2, keepdim=True) for y in (total, count))
        return total / count.clamp(min=1)


def scores(q: Tensor, k: Tensor, seen: Tensor | float, eps: float, floor: bool = False) -> Tensor:
    """relu(q kᵀ ⊙ seen), each row divided by its sum: q (…, T, w), k (…, S, w) → (…, T, S)."""
    c = torch.relu(q @ k.transpose(-1, -2) * seen)
    total = c.sum(-1, keepdim=True)
    return c / (total.clamp(min=eps) if floor else total + eps)


class SideStack(nn.Module):
    """The side network of one stack: D_i, P, and with `cross` X_i, which reads the other stack's side states S.

        a = D(f),  t_i = D_i(f_i),  t_i ← t_i + X_i(R_i S), R_i = relu(t_i Sᵀ ⊙ m) / (Σ + ε),  s = a + P(u)

    downs: D_i, d → w, as many as targets, and last the anchor's. project: P, w → w.
    """

    def __init__(self, downs: Sequence[nn.Module], width: int, project: nn.Module, *, cross: bool = False, **options):
        super().__init__()
        self.downs, self.project = nn.ModuleList(downs), project
        self.interaction = Interaction(width, **options)
        self.crosses = nn.ModuleList(NormedDown(width, width) for _ in downs[:-1]) if cross else None

    def read(
        self, targets: Sequence[Tensor], anchor: Tensor, memory: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Features f_i (B, T, d), the anchor's, S (B, M, w) and its mask (B, M) → t_i and last a, (B, n+1, T, w)."""
        states = [down(f) for down, f in zip(self.downs, (*targets, anchor), strict=True)]
        if self.crosses is not None and memory is not None and mask is not None:
            seen, eps = mask[:, None, :].to(memory.dtype), self.interaction.eps
            for i, cross in enumerate(self.crosses):
                states[i] = states[i] + cross(scores(states[i], memory, seen, eps) @ memory)
        return torch.stack(states, dim=1)

    def forward(self, states: Tensor, mask: Tensor, last: int) -> Tensor:
        """What `read` gives for all positions, (B, n+1, S, w), and their mask (B, S) → s (B, last, w) of the last."""
        t, a = states[:, :-1], states[:, -1]
        return a[:, -last:] + self.project(self.interaction(a, t, mask, last))


class Up(nn.Module):
    """Norm(W relu(s) + b), w → d."""

    def __init__(self, width: int, d: int, norm: Callable[[int], nn.Module]):
        super().__init__()
        self.linear, self.norm = nn.Linear(width, d), norm(d)

    def forward(self, s: Tensor) -> Tensor:
        return self.norm(self.linear(torch.relu(s)))


class SideNetwork(nn.Module):
    """A `SideStack` for each stack of words, hooked to it."""

    def __init__(self, spec: Side, build: Builder):
        super().__init__()
        anatomy, model = build.anatomy, build.model
        self.context, self.reading, self.writing = build.context, anatomy.reading, anatomy.writing
        self.two = self.reading != self.writing
        self.frozen = {stack: FrozenStack(model, stack, cut=spec.cut) for stack in anatomy.words}
        self.stacks, width = nn.ModuleDict(), max(1, anatomy.d // spec.reduction)
        for stack in anatomy.words:
            place, writes = anatomy.stacks[stack], stack == self.writing
            downs = [NormedDown(place.width, width) for _ in range(place.layers + 1)]
            self.stacks[stack] = SideStack(
                downs, width, Wide(place.width, width), cross=writes and self.two, causal=writes, eps=spec.eps
            )
            end = model.at(anatomy.sites[f"{stack}.output"].writer)
            end.register_forward_hook(self._write if writes else self._remember)
        self.up = Up(width, anatomy.d, model.family.norm)
        initialise(self.modules(), std=0.02)

    def _remember(self, module: nn.Module, args: tuple, output: Any) -> None:
        """S, of the stack that reads."""
        side, mask = cast(SideStack, self.stacks[self.reading]), cast(Tensor, self.context.mask)
        features, _ = self.frozen[self.reading].take()
        self.context.side = side(side.read(features[:-1], states_of(output)), mask, mask.shape[1])

    def _write(self, module: nn.Module, args: tuple, output: Any) -> Any:
        """Up(s) in the place of the states that the output layer reads."""
        side, anchor = cast(SideStack, self.stacks[self.writing]), states_of(output)
        features, cache = self.frozen[self.writing].take()
        memory = (self.context.side, self.context.mask) if self.two else ()
        states, seen = grown(cache, side.read(features[:-1], anchor, *memory), self._seen(anchor))
        return with_states(output, self.up(side(states, seen, anchor.shape[1])))

    def _seen(self, states: Tensor) -> Tensor:
        """Where these positions (B, T, d) of the stack that writes are no padding: the prompt's may be."""
        mask = self.context.mask
        if not self.two and mask is not None and mask.shape == states.shape[:2]:
            return mask
        return states.new_ones(states.shape[:2], dtype=torch.bool)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Side(Door):
    """The side network of `UniPT`, whose docstring has the formulas and the options."""

    kind: ClassVar = "unipt"
    reduction: Size
    eps: float = Field(default=1e-6, gt=0)
    cut: bool = True

    @property
    def formula(self) -> str:
        return (
            "t_i = D_i(f_i), a = D(f_L); u = Σ_i α_i (C_i + I) t_i, C_i = relu(a t_iᵀ)/Σ, α = softmax(w · ā ⊙ t̄_i); "
            f"head reads Norm(U relu(a + P(u)))  (width d/{self.reduction})"
        )

    def open(self, build):
        return SideNetwork(self, build)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class UniPT(Method):
    """Beside the frozen encoder and decoder, whose features are f_0 (what enters the first layer), f_1, …, f_L:

        t_i = D_i(f_i) for i < L,  a = D(f), f the stack's last states,  D = LN(Linear d → w),  w = d/reduction
        u = Σ_i α_i (C_i + I) t_i,  C_i = relu(a t_iᵀ ⊙ m) / (Σ_keys + eps),  α = softmax_i(w_g · (ā ⊙ t̄_i) + b_g)
        s = a + P(u),  P = LN(W_2 relu(W_1 u)), w → d → w

    m (B, 1, N) hides padding, ā, t̄ are means over what is none. The encoder's s, (B, N, w), is the side memory S: in
    the decoder t_i ← t_i + LN(X_i R S), R = relu(t_i Sᵀ ⊙ m) / (Σ + eps), before they meet a. The output layer reads
    Norm(U relu(s) + u), d wide, in place of the decoder's states. The frozen decoder reads the frozen encoder.

    The released code has the forms for VSE, CLIP4Clip, CLIP-ViL (the encoder here) and MDETR (the decoder here), none
    for BART, T5 or decoder-only models: these are our own transfers. Ours are that the decoder is causal (m hides later
    positions too, the means are running ones, so that every position has an α; a decoder-only stack is one such decoder
    without S), that all layers count in both stacks, and the `cut`: the layers read copies without a graph, so that no
    gradient runs through them and nothing of theirs is kept for it, and the visual embedding, frozen there, trains
    through f_0 alone. b_g has no gradient but rounding. The published learning rates are CLIP-ViL's: 5e-4 on VQA, 1e-4
    on GQA. On the mini world it learns what text alone gives: no backbone there has seen a picture, and the cut keeps
    the visual embedding from being fitted to what is frozen (docs/mini-world.md).
    """

    name: ClassVar = "unipt"
    source: ClassVar = "UniPT (Diao et al., CVPR 2024), and its code; METHODS_A section 1"
    reference: ClassVar = "Paranioar/UniPT 3fa457d9 (Apache-2.0)"
    year: ClassVar = 2024
    size: ClassVar = "reduction"
    learning_rates: ClassVar = {"mini-bart": 3e-3, "mini-t5": 3e-3, "mini-llama": 3e-3}

    reduction: Size = 2
    eps: float = Field(default=1e-6, gt=0)
    cut: bool = True

    def skip(self, anatomy):
        return no_words(anatomy) or super().skip(anatomy)

    def design(self, anatomy):
        return Design(doors=(Side(reduction=self.reduction, eps=self.eps, cut=self.cut),))
