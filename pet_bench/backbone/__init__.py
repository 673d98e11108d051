"""Stock `transformers` models made vision-and-language, one file a family, and the sites where PET attaches."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pet_bench.backbone.anatomy import Anatomy, Site, Stack
    from pet_bench.backbone.encoder_decoder import Encoded, EncoderDecoder, EncoderDecoderFamily
    from pet_bench.backbone.family import Family
    from pet_bench.backbone.interface import Context, Inputs, Model
    from pet_bench.backbone.known import Backbone, find_backbone
    from pet_bench.backbone.loading import build, load
    from pet_bench.backbone.reader import Reader

HOMES = {
    "anatomy": ("Anatomy", "Site", "Stack"),
    "encoder_decoder": ("Encoded", "EncoderDecoder", "EncoderDecoderFamily"),
    "family": ("Family",),
    "interface": ("Context", "Inputs", "Model"),
    "known": ("Backbone", "find_backbone"),
    "loading": ("build", "load"),
    "reader": ("Reader",),
}
__all__ = [
    "Anatomy", "Backbone", "Context", "Encoded", "EncoderDecoder", "EncoderDecoderFamily", "Family", "Inputs", "Model",
    "Reader", "Site", "Stack", "build", "find_backbone", "load",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """torch and transformers are imported when something that needs them is asked for: backbones are listed without."""
    for module, names in HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
