"""MemVP (Jie et al., ICML 2024): visual features as further rows of every feed-forward, and none in the sequence."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pet_bench.pet import Design, Method
from pet_bench.pet.select import no_words
from pet_bench.pet.visual_memory import VisualMemory, beta_at
from pet_bench.spec import STRICT, Names, Size


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MemVP(Method):
    """FFN(x) ← FFN(x) + s · dropout(φ(x Kᵀ)) V,  K = E + P_1, V = E + P_2,  E = β · W_b silu(W_a f + b_a) + b_b.

    No visual token enters the sequence. f (B, M, width) are the image's pooled features, E (B, M, d) is made once a
    batch and kept for the decoder; P_1 ~ N(0, 0.02²) and P_2 = 0, (M, d), are shared by all layers; x is what W_in
    reads, in a pre-norm model the normed states. An image that is not there has E = 0, as rows `extra` have always.
    hidden: width of the projector, 128 with LLaMA-7B and 13B. scale: s, 0.1 in LLaMA, 1 in our transfer. beta: β, 0.01;
    as x Kᵀ grows with the width, 0.1 below d = 512. activation: φ, the feed-forward's own or silu, which in LLaMA are
    one. stacks: whose feed-forwards. extra: 64 with LLaMA, whose images have 256 rows.

    LLaMA: as the authors' code, whose rate is 1.125e-3 at batch 32. BART, T5: our own transfer, a concatenation with
    W_in and W_out; the code of the paper's runs of them is not released. Left out: the adapters inside the CLIP tower,
    since features are stored, and the modality embedding, which is never used. The minis, which were taught with images
    in their sequence, learn little by it (docs/mini-world.md).
    """

    name: ClassVar = "memvp"
    source: ClassVar = "MemVP (Jie et al., ICML 2024); METHODS_A section 3"
    reference: ClassVar = "JieShibo/MemVP 5eef19f6 (no licence): from its mathematics alone"
    year: ClassVar = 2024
    size: ClassVar = "hidden"
    learning_rates: ClassVar = {"mini-bart": 5e-3, "mini-t5": 1e-2, "mini-llama": 1e-2}
    needs: ClassVar = ("features",)

    hidden: Size = 128
    extra: int = Field(ge=0, le=1_000_000)
    scale: float
    beta: float
    activation: Literal["own", "silu"] = "own"
    stacks: Names = Field(min_length=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @classmethod
    def defaults(cls, anatomy):
        alone = anatomy.reading == anatomy.writing
        published = {"extra": 64, "scale": 0.1} if alone else {"extra": 0, "scale": 1.0}
        return {"beta": beta_at(anatomy.d), "stacks": list(anatomy.words), **published}

    def skip(self, anatomy):
        return super().skip(anatomy) or no_words(anatomy)

    def design(self, anatomy):
        memory = VisualMemory(
            hidden=self.hidden, scores=self.activation, scale=self.scale, beta=self.beta, stacks=self.stacks,
            extra=self.extra, dropout=self.dropout,
        )  # fmt: skip
        return Design(doors=(memory,))
