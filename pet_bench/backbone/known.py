"""A backbone by its registered name, by folder or by hub name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from logging import CRITICAL, getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pet_bench.errors import Faults, UserError, foreign, shortened, text_of, unknown
from pet_bench.files import is_file, is_folder, nameable, read_json
from pet_bench.registry import BACKBONES, FAMILIES, attribute_faults, title
from pet_bench.spec import Text

if TYPE_CHECKING:
    from pet_bench.backbone.anatomy import Anatomy
    from pet_bench.backbone.family import Family

LAYERS, SIZE = 1_000, 10_000_000  # the most that a configuration can have, vocabularies included
# VL-T5's 200 extra words: 100 sentinels, then 100 object-order words of which <vis_extra_id_j> is row V-1-j.
EXTRA_WORDS = tuple(f"<{kind}_{i}>" for kind in ("extra_id", "vis_extra_id") for i in range(99, -1, -1))


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """Without a line for each time that a hub is tried again: what became of it is said."""
    log = getLogger("huggingface_hub")
    level = log.level
    log.setLevel(CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


@dataclass(frozen=True)
class Backbone:
    """A model of one of the registered families.

    source: a folder in the usual `transformers` form, or a hub name. config: the sizes, for what is built without
    weights; empty where the source is a folder that tells. rows: word-embedding rows after the vocabulary grew.
    recipe: recipe values that go with this backbone; without any, the family's published batch size. rates_of: another
    backbone whose learning rates and method options are this one's too. knows: a function without arguments, written
    `module:name`, that gives what it was pre-trained to know (`backbone.knowledge.Knowledge`).
    """

    plugin_kind: ClassVar[str] = "backbone"
    name: str
    family: str
    source: str
    config: dict[str, Any] = field(default_factory=dict)
    rows: int | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    rates_of: str = ""
    knows: str = ""

    @property
    def recipe_values(self) -> dict[str, Any]:
        return self.recipe or {"batch_size": family_of(self).batch_size}

    def read_raw(self) -> dict[str, Any]:
        """`config.json` as it is; raises UserError where the source has none, or that of another kind of model."""
        if self.config:
            return self.config
        if Path(self.source).is_dir():
            raw = read_json(Path(self.source) / "config.json", f'backbone "{self.name}": config.json')
        else:
            from transformers import PreTrainedConfig

            try:
                with _quiet_hub():
                    raw, _ = PreTrainedConfig.get_config_dict(self.source)
            except Exception as error:
                what = f'backbone "{self.name}": there is no such folder, and no configuration on the hub'
                raise UserError(f"{what} ({shortened(' '.join(str(error).split()), 300)})") from error
        if not isinstance(raw, dict):
            raise UserError(f'backbone "{self.name}": config.json is no mapping')
        if family_for(kind := raw.get("model_type")) is None:
            raise UserError(f'backbone "{self.name}" is a {kind}; possible: {", ".join(FAMILIES.names())}')
        return raw

    def read_config(self):
        """The `transformers` config, with every dropout of the published set-up left as the checkpoint has it.

        Raises UserError where the source is no readable model of the family.
        """
        family = family_of(self)
        if self.config:
            with foreign(f"{title(self)}: its config raised"):
                return family.config(**self.config)
        raw = self.read_raw()
        try:
            config = family.config.from_dict(raw)
        except Exception as error:
            raise UserError(f'backbone "{self.name}": config.json: {error}') from error
        faults = Faults()
        absent = [key for key in family.sizes if key not in raw and key not in family.optional]
        if absent:
            faults.add(f'backbone "{self.name}": config.json has no {", ".join(absent)}')
        for key in family.sizes:
            size = getattr(config, key)
            most = LAYERS if "layers" in key else SIZE
            if type(size) is not int or not 1 <= size <= most:
                wrong = f"{key} must be a positive integer up to {most:,}, found {shortened(repr(size))}"
                faults.add(f'backbone "{self.name}": config.json: {wrong}')
        faults.check()
        return config

    @property
    def anatomy(self) -> Anatomy:
        """Its stacks and sites; raises UserError as `read_config` does."""
        family = family_of(self)
        return replace(family.anatomy(self.name, self.read_config(), self.rates_of), scope=family.scope)


def family_of(backbone: Backbone) -> type[Family]:
    """The family of a backbone; raises UserError where there is none of that name."""
    return FAMILIES.get(backbone.family)


def family_for(model_type: Any) -> str | None:
    """The name of the family whose models have that `model_type` in their `config.json`.

    Most are called so but for hyphens and dots; only where none is are all of them imported.
    """

    def plain(name: str) -> str:
        return "".join(filter(str.isalnum, name))

    if not isinstance(model_type, str):
        return None
    alike = [name for name in FAMILIES.names() if plain(name) == plain(model_type)]
    named = alike or [one.name for one in FAMILIES if model_type in (one.model_type, *one.model_types)]
    return named[0] if named else None


ATTRIBUTES = {
    "family": Text,
    "source": Text,
    "config": dict[str, Any],
    "rows": int | None,
    "recipe": dict[str, Any],
    "rates_of": str,
    "knows": str,
}


def faults(plugin: Any) -> Iterator[str]:
    """What keeps an object from being a backbone, a line each."""
    if isinstance(plugin, Backbone):
        yield from attribute_faults(plugin, ATTRIBUTES)
        if isinstance(plugin.family, str) and plugin.family not in FAMILIES.names():
            yield f"family is {text_of(plugin.family)}, which is none (possible: {', '.join(FAMILIES.names())})"
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
        family = family_for(Backbone(name, "", name).read_raw()["model_type"])
        assert family is not None  # else it could not be read
        return Backbone(name, family, name)
    raise unknown(
        "backbone", name, [*BACKBONES.names(), "a folder in the form of transformers", "owner/name on the hub"]
    )


def mini(name: str, family: str, rates_of: str = "", **recipe: Any) -> Backbone:
    """One of the package's own, which were trained by `pet_bench.mini.pretrain`."""
    source = Path(__file__).parents[1] / "mini" / "backbones" / name
    knows = "pet_bench.mini.knowledge:knowledge"
    return Backbone(name, family, str(source), recipe=recipe, rates_of=rates_of, knows=knows)
