"""ADEM-VL (Hao et al., IJCV 2025): MemVP's rows by cross-attention without parameters, at several scales, dropping."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pet_bench.pet import Design, Method
from pet_bench.pet.select import no_words
from pet_bench.pet.visual_memory import VisualMemory, beta_at
from pet_bench.spec import STRICT, Names, Size


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ADEMVL(Method):
    """FFN(x) ← FFN(x) + s · keep ⊙ (silu(x) silu(K)ᵀ) V, K and V as MemVP's, E of an average-pooled pyramid of grids.

    No visual token enters the sequence, but for the class token's. keep: of each token's M scores all but the
    int(drop · M) lowest, with their signs, also in evaluation. grids: rows of each, the largest first; "pyramid": the
    pooled grid, and one of half its side (LLaMA: 256 and 64). token: the mean of the features, for want of CLIP's class
    token, through a projector of its own is one visual token an image; on in the authors' LLaMA runs, off in our
    transfer. hidden, scale, beta, stacks as in `memvp`, and so E of an image that is not there. No dropout: the
    authors' language model branch has one and does not apply it. BART, T5: our own transfer. On the minis as `memvp`.
    """

    name: ClassVar = "adem-vl"
    source: ClassVar = "ADEM-VL (Hao et al., IJCV 2025); METHODS_A section 4"
    reference: ClassVar = "Hao840/ADEM-VL cec09b89 (no licence): from its mathematics alone"
    year: ClassVar = 2025
    size: ClassVar = "hidden"
    learning_rates: ClassVar = {"mini-bart": 3e-3, "mini-t5": 1e-2, "mini-llama": 3e-3}
    needs: ClassVar = ("features",)

    hidden: Size = 128
    token: bool
    scale: float
    beta: float
    drop: float = Field(default=0.1, ge=0, lt=1)
    grids: Literal["pyramid"] | tuple[Size, ...] = "pyramid"
    stacks: Names = Field(min_length=1)

    @classmethod
    def defaults(cls, anatomy):
        alone = anatomy.reading == anatomy.writing
        scale = 0.1 if alone else 1.0
        return {"token": alone, "scale": scale, "beta": beta_at(anatomy.d), "stacks": list(anatomy.words)}

    def skip(self, anatomy):
        return super().skip(anatomy) or no_words(anatomy)

    def design(self, anatomy):
        memory = VisualMemory(
            hidden=self.hidden, scores="linear", scale=self.scale, beta=self.beta, stacks=self.stacks,
            grids=self.grids, drop=self.drop, token=self.token,
        )  # fmt: skip
        return Design(doors=(memory,))
