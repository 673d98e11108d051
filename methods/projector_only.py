"""The floor: only the visual embedding trains."""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from pet_bench.pet import Design, Method
from pet_bench.spec import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ProjectorOnly(Method):
    """The visual embedding alone trains, the backbone is untouched: the floor every PET method must beat.

    Every other method trains the visual embedding too, so the distance to this row is what its modules earn.
    """

    name: ClassVar = "projector-only"
    source: ClassVar = "Frozen (Tsimpoukelli et al., NeurIPS 2021) trains a visual prefix before a frozen model"
    year: ClassVar = 2021
    learning_rates: ClassVar = {"bart": 1e-3, "t5": 3e-4, "mini-bart": 5e-3, "mini-t5": 5e-3} | {
        "mini-llama": 1e-2, "mini-llava": 5e-3,
    }  # fmt: skip
    identity_at_start: ClassVar = True

    def design(self, anatomy):
        return Design(train=("visual",))
