"""What a family of backbones is: a class, found by the entry-point group `pet_bench.families`, that knows its models.

Nothing else in pet-bench asks what a model's family is. A new family is one file: a subclass with the table of its
sites and a `Model` (see `pet_bench.backbone.interface`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from pet_bench.backbone.anatomy import Anatomy
from pet_bench.backbone.interface import Model
from pet_bench.backbone.reader import Reader
from pet_bench.registry import attribute_faults
from pet_bench.spec import Count, Visual


class Family(ABC):
    """One backbone family. `name` is its `model_type` in a `config.json`.

    stock, config: the classes of `transformers`. sizes: keys that its `config.json` has, the last `optional` of which
    may be left out. batch_size: of the published runs. norm, visual_eps: the norm of the visual embedding. word_std: of
    vocabulary rows added to a pre-trained table.
    """

    plugin_kind: ClassVar[str] = "family"
    name: ClassVar[str]
    stock: ClassVar[type[PreTrainedModel]]
    config: ClassVar[type[PreTrainedConfig]]
    sizes: ClassVar[tuple[str, ...]]
    optional: ClassVar[tuple[str, ...]] = ()
    batch_size: ClassVar[int]
    norm: ClassVar[type[nn.Module]]
    visual_eps: ClassVar[float]
    word_std: ClassVar[float]

    @classmethod
    @abstractmethod
    def anatomy(cls, backbone: str, config: Any, rates_of: str = "") -> Anatomy:
        """The table of a model of that configuration."""

    @classmethod
    @abstractmethod
    def model(cls, lm: PreTrainedModel, anatomy: Anatomy, visual: Visual) -> Model:
        """A stock model made vision-and-language; what is new in it is random."""

    @classmethod
    def reader(cls, tokenizer: PreTrainedTokenizerBase) -> Reader:
        """What turns examples into the model's inputs."""
        return Reader(tokenizer)

    @classmethod
    def has_own_head(cls, raw: dict[str, Any], config: Any) -> bool:
        """Whether a configuration says that the output layer is no word table. raw: `config.json` as it is."""
        return raw.get("tie_word_embeddings") is False

    @staticmethod
    @abstractmethod
    def init_linear(linear: nn.Linear) -> None:
        """The initialisation that the published runs give to a new linear layer (METHODS.md section 7)."""

    @staticmethod
    @abstractmethod
    def init_embedding(weight: Tensor) -> None:
        """Likewise for a new table: image order, prompts."""


ATTRIBUTES = {
    "sizes": tuple[str, ...],
    "optional": tuple[str, ...],
    "batch_size": Count,
    "visual_eps": float,
    "word_std": float,
}


def faults(plugin: Any) -> Iterator[str]:
    """What keeps a class from being a family, a line each."""
    if not issubclass(plugin, Family):
        yield "it does not extend pet_bench.backbone.Family"
        return
    if missing := sorted(getattr(plugin, "__abstractmethods__", ())):
        yield f"{', '.join(missing)} is missing: the class is abstract"
    for name, base in {"stock": PreTrainedModel, "config": PreTrainedConfig, "norm": nn.Module}.items():
        value = getattr(plugin, name, None)
        if not (isinstance(value, type) and issubclass(value, base)):
            yield f"{name} is no class of {base.__module__.split('.')[0]}'s {base.__name__}"
    yield from attribute_faults(plugin, ATTRIBUTES)
