"""The backbones known by name, and any other BART or T5 by folder or hub name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pet_bench.errors import Faults, UserError, foreign, shortened, unknown
from pet_bench.files import is_file, is_folder, nameable, read_json
from pet_bench.registry import BACKBONES, attribute_faults, title
from pet_bench.spec import Text

FAMILIES = ("bart", "t5")
SIZES = {
    "bart": (
        "vocab_size", "d_model", "encoder_layers", "decoder_layers", "encoder_attention_heads",
        "decoder_attention_heads", "encoder_ffn_dim", "decoder_ffn_dim", "max_position_embeddings",
    ),
    "t5": ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads"),
}  # fmt: skip
LAYERS, SIZE = 1_000, 10_000_000  # the most that a configuration can have, vocabularies included
PUBLISHED_BATCH = {"bart": 500, "t5": 300}
# VL-T5's 200 extra words: 100 sentinels, then 100 object-order words of which <vis_extra_id_j> is row V-1-j.
EXTRA_WORDS = tuple(f"<{kind}_{i}>" for kind in ("extra_id", "vis_extra_id") for i in range(99, -1, -1))


@dataclass(frozen=True)
class Shape:
    """The sizes a method may scale with. d: model width; layers: encoder and decoder.

    rates_of: the backbone, if not this one, whose learning rates apply.
    """

    backbone: str
    family: str
    d: int
    encoder_layers: int
    decoder_layers: int
    heads: int
    rates_of: str = ""


@dataclass(frozen=True)
class Backbone:
    """A BART or T5.

    source: a folder in the usual `transformers` form, or a hub name. config: the sizes, for what is built without
    weights; empty where the source is a folder that tells. rows: word-embedding rows after the vocabulary grew.
    recipe: recipe values that go with this backbone; without any, the family's published batch size. rates_of: another
    backbone whose learning rates and method options are this one's too.
    """

    plugin_kind: ClassVar[str] = "backbone"
    name: str
    family: str
    source: str
    config: dict[str, Any] = field(default_factory=dict)
    rows: int | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    rates_of: str = ""

    @property
    def recipe_values(self) -> dict[str, Any]:
        return self.recipe or {"batch_size": PUBLISHED_BATCH[self.family]}

    def read_raw(self) -> dict[str, Any]:
        """`config.json` as it is; raises UserError where the source has none, or that of another kind of model."""
        if self.config:
            return self.config
        if Path(self.source).is_dir():
            raw = read_json(Path(self.source) / "config.json", f'backbone "{self.name}": config.json')
        else:
            from transformers import PreTrainedConfig

            try:
                raw, _ = PreTrainedConfig.get_config_dict(self.source)
            except Exception as error:
                raise UserError(f'backbone "{self.name}": no configuration in {self.source} ({error})') from error
        if not isinstance(raw, dict):
            raise UserError(f'backbone "{self.name}": config.json is no mapping')
        if (kind := raw.get("model_type")) not in FAMILIES:
            raise UserError(f'backbone "{self.name}" is a {kind}; possible: {", ".join(FAMILIES)}')
        return raw

    def read_config(self):
        """The `transformers` config, with every dropout of the published set-up left as the checkpoint has it.

        Raises UserError where the source is no readable BART or T5.
        """
        from transformers import BartConfig, T5Config

        if self.config:
            with foreign(f"{title(self)}: its config raised"):
                return {"bart": BartConfig, "t5": T5Config}[self.family](**self.config)
        raw = self.read_raw()
        try:
            config = {"bart": BartConfig, "t5": T5Config}[self.family].from_dict(raw)
        except Exception as error:
            raise UserError(f'backbone "{self.name}": config.json: {error}') from error
        faults = Faults()
        absent = [
            key for key in SIZES[self.family] if key not in raw and key != "num_decoder_layers"
        ]  # as the encoder's
        if absent:
            faults.add(f'backbone "{self.name}": config.json has no {", ".join(absent)}')
        for key in SIZES[self.family]:
            size = getattr(config, key)
            most = LAYERS if "layers" in key else SIZE
            if type(size) is not int or not 1 <= size <= most:
                wrong = f"{key} must be a positive integer up to {most:,}, found {shortened(repr(size))}"
                faults.add(f'backbone "{self.name}": config.json: {wrong}')
        faults.check()
        return config

    @property
    def shape(self) -> Shape:
        config = self.read_config()
        bart = self.family == "bart"
        return Shape(
            backbone=self.name,
            family=self.family,
            d=config.d_model,
            encoder_layers=config.encoder_layers if bart else config.num_layers,
            decoder_layers=config.decoder_layers if bart else config.num_decoder_layers,
            heads=config.encoder_attention_heads if bart else config.num_heads,
            rates_of=self.rates_of or self.name,
        )


ATTRIBUTES = {
    "family": Literal[FAMILIES],
    "source": Text,
    "config": dict[str, Any],
    "rows": int | None,
    "recipe": dict[str, Any],
    "rates_of": str,
}


def faults(plugin: Any) -> Iterator[str]:
    """What keeps an object from being a backbone, a line each."""
    if isinstance(plugin, Backbone):
        yield from attribute_faults(plugin, ATTRIBUTES)
    else:
        yield "it is no pet_bench.backbone.known.Backbone"


def find_backbone(name: str) -> Backbone:
    """A registered backbone, a folder with a `config.json`, or a hub name (`owner/model`).

    Raises UserError for anything else.
    """
    if name in BACKBONES:
        return BACKBONES.get(name)
    if is_folder(name) and not is_file(Path(name) / "config.json"):
        raise UserError(f'backbone "{name}": the folder has no config.json')
    if is_folder(name) or (name.count("/") == 1 and nameable(name) and not name.startswith((".", "/", "~"))):
        return Backbone(name, Backbone(name, "", name).read_raw()["model_type"], name)
    raise unknown(
        "backbone", name, [*BACKBONES.names(), "a folder in the form of transformers", "owner/name on the hub"]
    )


def _mini(name: str, family: str, rates_of: str = "", **recipe: Any) -> Backbone:
    source = Path(__file__).parents[1] / "mini" / "backbones" / name
    return Backbone(name, family, str(source), recipe=recipe, rates_of=rates_of)


# Sizes as published (METHODS.md section 1), so that counting needs no download.
BART_BASE = Backbone(
    "bart-base",
    "bart",
    "facebook/bart-base",
    {
        "vocab_size": 50265, "d_model": 768, "encoder_layers": 6, "decoder_layers": 6,
        "encoder_attention_heads": 12, "decoder_attention_heads": 12, "encoder_ffn_dim": 3072,
        "decoder_ffn_dim": 3072, "max_position_embeddings": 1024, "dropout": 0.1, "attention_dropout": 0.1,
        "activation_dropout": 0.1,
    },
    rows=50265 + 200,
)  # fmt: skip
T5_BASE = Backbone(
    "t5-base",
    "t5",
    "google-t5/t5-base",
    {
        "vocab_size": 32128, "d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12,
        "num_decoder_layers": 12, "num_heads": 12, "dropout_rate": 0.1, "decoder_start_token_id": 0,
    },
    rows=32000 + 200,
)  # fmt: skip
MINI_BART = _mini("mini-bart", "bart", epochs=2, batch_size=32)
MINI_BART_CLIPS = _mini("mini-bart-clips", "bart", rates_of="mini-bart", epochs=2, batch_size=32)
MINI_T5 = _mini("mini-t5", "t5", epochs=3, batch_size=16)
