"""PaFi (Liao et al., ACL 2023): train the entries of smallest magnitude, which no task has a say in."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pet_bench.pet import Design, Method
from pet_bench.pet.masked import Masked
from pet_bench.pet.select import no_layers
from pet_bench.spec import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PaFi(Method):
    """W' = W + ΔW in every linear layer of the language model, ΔW zero but where |W| is among the smallest of its
    matrix.

    density: share of the entries that train; the paper's 0.005. across: of each "matrix", or of the whole "model".
    Deliberate differences: words, norms and biases, which the paper's mask reaches too, stay as they are. The settings
    could not be read at their source.
    """

    name: ClassVar = "pafi"
    source: ClassVar = "PaFi (Liao et al., ACL 2023), section 3.1"
    reference: ClassVar = "none was read: from the paper"
    year: ClassVar = 2023
    size: ClassVar = "density"
    learning_rates: ClassVar = {"mini-bart": 2e-2, "mini-t5": 5e-3, "mini-llama": 5e-3}
    identity_at_start: ClassVar = True

    density: float = Field(default=0.005, gt=0, le=1)
    across: Literal["matrix", "model"] = "matrix"

    def skip(self, anatomy):
        return super().skip(anatomy) or no_layers(anatomy)

    def design(self, anatomy):
        return Design(doors=(Masked(density=self.density, score="smallest", across=self.across),))
