"""FishMask (Sung et al., NeurIPS 2021): train the entries of largest Fisher information."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pet_bench.pet import Design, Method
from pet_bench.pet.masked import Masked
from pet_bench.pet.select import no_layers
from pet_bench.spec import STRICT, Size


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FishMask(Method):
    """W' = W + ΔW in every linear layer of the language model, ΔW zero but where Σ_n (∂ loss_n / ∂W)² is largest.

    density: share of the entries that train; the paper's 0.005. samples: training examples n, 1024 in the paper.
    across: of the whole "model", or of each "matrix". The empirical Fisher information, of the examples' own labels, as
    the paper's default. Deliberate differences: words, norms and biases stay as they are. The settings could not be
    read at their source.
    """

    name: ClassVar = "fishmask"
    source: ClassVar = "FishMask (Sung et al., NeurIPS 2021), section 3"
    reference: ClassVar = "none was read: from the paper"
    year: ClassVar = 2021
    size: ClassVar = "density"
    learning_rates: ClassVar = {"mini-bart": 1e-2, "mini-t5": 1e-2, "mini-llama": 5e-3}
    identity_at_start: ClassVar = True

    density: float = Field(default=0.005, gt=0, le=1)
    samples: Size = 1024
    across: Literal["matrix", "model"] = "model"

    def skip(self, anatomy):
        return super().skip(anatomy) or no_layers(anatomy)

    def design(self, anatomy):
        return Design(doors=(Masked(density=self.density, score="fisher", across=self.across, samples=self.samples),))
