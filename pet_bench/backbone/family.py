"""What a family of backbones is: a class, found by the entry-point group `pet_bench.families`, that knows its models.

Nothing else in pet-bench asks what a model's family is. A new family is one file: a subclass with the table of its
sites and a `Model` (see `pet_bench.backbone.interface`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from pet_bench.backbone.anatomy import Anatomy
from pet_bench.backbone.interface import Model
from pet_bench.backbone.reader import Reader, Tokenizer
from pet_bench.backbone.source import read_tokenizer
from pet_bench.registry import attribute_faults, hook_faults
from pet_bench.spec import Count, Fed, Scope, ScopePart, Visual

if TYPE_CHECKING:
    from pet_bench.backbone.known import Backbone


class Family(ABC):
    """One backbone family.

    model_type: of its `config.json`, by default the family's name; model_types: further ones that are read as that.
    fed: with stored features, or with pixels through the checkpoint's own processor. stock, config: the classes of
    `transformers`. sizes: keys that its `config.json` has, the last `optional` of which may be left out. batch_size: of
    the published runs. norm, visual_eps: the norm of the visual embedding. word_std: of vocabulary rows added to a
    pre-trained table. ids_alike: keys that `config.json` and `generation_config.json` must not have different values
    for. scope: what methods touch where none is given, as the family's published practice has it. language: the family
    that the language model of one fed with pixels would be of by itself, where that is one of these.
    """

    plugin_kind: ClassVar[str] = "family"
    name: ClassVar[str]
    model_type: ClassVar[str] = ""
    model_types: ClassVar[tuple[str, ...]] = ()
    fed: ClassVar[Fed] = "features"
    stock: ClassVar[type[PreTrainedModel]]
    config: ClassVar[type[PreTrainedConfig]]
    sizes: ClassVar[tuple[str, ...]]
    optional: ClassVar[tuple[str, ...]] = ()
    batch_size: ClassVar[int]
    norm: ClassVar[type[nn.Module]]
    visual_eps: ClassVar[float]
    word_std: ClassVar[float]
    ids_alike: ClassVar[tuple[str, ...]] = ("pad_token_id", "eos_token_id", "decoder_start_token_id")
    scope: ClassVar[tuple[ScopePart, ...]] = ("language", "projector")
    language: ClassVar[str] = ""

    @classmethod
    @abstractmethod
    def anatomy(cls, backbone: str, config: Any, rates_of: str = "") -> Anatomy:
        """The table of a model of that configuration."""

    @classmethod
    @abstractmethod
    def model(cls, lm: PreTrainedModel, anatomy: Anatomy, visual: Visual) -> Model:
        """A stock model made vision-and-language; what is new in it is random."""

    @classmethod
    def reader(cls, tokenizer: Tokenizer) -> Reader:
        """What turns examples into the model's inputs."""
        assert isinstance(tokenizer, PreTrainedTokenizerBase)  # of models fed with features
        return Reader(tokenizer)

    @classmethod
    def read_tokenizer(cls, backbone: Backbone, config: Any) -> Tokenizer:
        """The tokenizer, or the processor, as it comes; raises UserError where there is none, or another model's."""
        return read_tokenizer(backbone, config)

    @classmethod  # noqa: B027  most have nothing to settle
    def settle(cls, lm: Any, tokenizer: Tokenizer) -> None:
        """Let a pre-trained stock model know what its tokenizer, or processor, alone says of it."""

    @staticmethod
    def tie_all(config: Any) -> None:
        """Let a stock model of that configuration tie all that it can, so that a checkpoint can say what it does."""
        config.tie_word_embeddings = True

    @classmethod
    def has_own_head(cls, raw: dict[str, Any], config: Any) -> bool:
        """Whether a configuration says that the output layer is no word table. raw: `config.json` as it is."""
        return raw.get("tie_word_embeddings") is False

    @staticmethod
    def init_linear(linear: nn.Linear) -> None:
        """The initialisation that the published runs give to a new linear layer (METHODS.md section 7): BART's."""
        nn.init.normal_(linear.weight, std=0.02)
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)

    @staticmethod
    def init_embedding(weight: Tensor) -> None:
        """Likewise for a new table: image order, prompts."""
        nn.init.normal_(weight, std=0.02)


ATTRIBUTES = {
    "sizes": tuple[str, ...],
    "optional": tuple[str, ...],
    "batch_size": Count,
    "visual_eps": float,
    "word_std": float,
    "scope": Scope,
}


def faults(plugin: Any) -> Iterator[str]:
    """What keeps a class from being a family, a line each."""
    if not issubclass(plugin, Family):
        yield "it does not extend pet_bench.backbone.Family"
        return
    yield from hook_faults(plugin)
    for name, base in {"stock": PreTrainedModel, "config": PreTrainedConfig, "norm": nn.Module}.items():
        value = getattr(plugin, name, None)
        if not (isinstance(value, type) and issubclass(value, base)):
            yield f"{name} is no class of {base.__module__.split('.')[0]}'s {base.__name__}"
    yield from attribute_faults(plugin, ATTRIBUTES)
