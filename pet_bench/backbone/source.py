"""Where a backbone comes from: its files, whether they are what their names say, and what they tell before any weight
is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from safetensors import safe_open
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from pet_bench.backbone.known import EXTRA_WORDS, Backbone, family_of
from pet_bench.errors import Faults, UserError
from pet_bench.files import impostor, read_json

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
TOKENIZERS = ("tokenizer.json", "spiece.model", "vocab.json", "merges.txt")
PROCESSORS = ("processor_config.json", "preprocessor_config.json")
FILES = (
    "config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "chat_template.json", *TOKENIZERS, *PROCESSORS, *WEIGHTS,
)  # fmt: skip
HEAD = "lm_head.weight"
FLOATS = ("F64", "F32", "F16", "BF16")
SPECIAL = ("pad_token_id", "eos_token_id", "bos_token_id")
PADDED = 256  # rows of a word table are padded to multiples of 64, 128 or 256; more without a word are another's

Stored = Mapping[str, Callable[[], Tensor]]


def check_files(backbone: Backbone) -> None:
    """Raises UserError for files of the backbone's folder that are pointers, pages or no JSON."""
    faults = Faults()
    for name in FILES:
        path, what = Path(backbone.source) / name, f'backbone "{backbone.name}": {name}'
        with faults:
            if not path.is_file():
                continue
            if path.suffix == ".json":
                read_json(path, what)
            else:
                with path.open("rb") as file:
                    odd = impostor(file.read(1024))
                if odd:
                    raise UserError(f"{what} {odd}")
    faults.check()


def stored_tensors(backbone: Backbone) -> Stored | None:
    """Name → what reads that tensor, for all of the checkpoint; None where its weights are not on this machine.

    Raises UserError where a file of them cannot be read.
    """
    source, what = backbone.source, f'backbone "{backbone.name}"'
    for name in WEIGHTS:
        path = _file(source, name)
        if path is None:
            continue
        parts = [path]
        if name.endswith(".index.json"):
            index = read_json(path, f"{what}: {name}")
            try:
                parts = [_file(source, part) or Path(part) for part in sorted(set(index["weight_map"].values()))]
            except (TypeError, KeyError, AttributeError):
                raise UserError(f'{what}: {name} has no "weight_map" of tensors to files') from None
        tensors: dict[str, Callable[[], Tensor]] = {}
        for part in parts:
            try:
                tensors |= _opened(part)
            except Exception as error:
                raise UserError(f"{what}: {part.name} cannot be read: {said(error)}") from error
        return tensors
    return None


def lacking_parts(source: str) -> list[str]:
    """What a folder of a model that sees pictures has no file of; of a hub name this is not known."""
    parts = {"processor": PROCESSORS, "tokenizer": (*TOKENIZERS, "tokenizer.model")}
    return [
        f"no {part} (possible: {', '.join(names)})"
        for part, names in parts.items()
        if Path(source).is_dir() and not any(_file(source, name) for name in names)
    ]


def _file(source: str, name: str) -> Path | None:
    """A file of a folder, or of a hub name as far as it lies in the cache."""
    if Path(source).is_dir():
        path = Path(source) / name
        return path if path.is_file() else None
    try:
        cached = try_to_load_from_cache(source, name)
    except HFValidationError:
        return None
    return Path(cached) if isinstance(cached, str) else None


def _opened(path: Path) -> Stored:
    if path.suffix == ".safetensors":
        file = safe_open(path, "pt")
        strange = {kind for name in file.keys() if (kind := file.get_slice(name).get_dtype()) not in FLOATS}  # noqa: SIM118
        if strange:
            raise UserError(f"its tensors are {', '.join(sorted(strange))} (possible: {', '.join(FLOATS)})")
        return {name: partial(file.get_tensor, name) for name in file.keys()}  # noqa: SIM118  not a mapping
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return {name: partial(state.__getitem__, name) for name in state}


def own_tensors(backbone: Backbone, tied: Mapping[str, str]) -> frozenset[str]:
    """Names among those that the stock class ties, further name → first, for which the checkpoint has another tensor.

    A name that it lacks is tied. Where there are no weights to look at, the configuration says whether the output
    layer is such a name.
    """
    if backbone.config or not tied:
        return _own_by_flag(backbone)
    return _own_tensors(backbone.name, backbone.family, backbone.source, tuple(tied.items()), _stamp(backbone.source))


@lru_cache
def _own_tensors(name: str, family: str, source: str, tied: tuple[tuple[str, str], ...], stamp: Any) -> frozenset[str]:
    stored = stored_tensors(backbone := Backbone(name, family, source))
    if stored is None:
        return _own_by_flag(backbone)

    prefix = family_of(backbone).stock.base_model_prefix

    def find(name: str) -> Callable[[], Tensor] | None:
        return stored.get(name, stored.get(name.removeprefix(f"{prefix}.")))  # saved without its output layer

    pairs = {further: (find(further), find(first)) for further, first in tied}
    return frozenset(name for name, (own, first) in pairs.items() if own and first and not torch.equal(own(), first()))


def _own_by_flag(backbone: Backbone) -> frozenset[str]:
    return frozenset({HEAD} if has_own_head(backbone) else ())


def has_own_head(backbone: Backbone) -> bool:
    """Whether the configuration says that the output layer is no word table."""
    return family_of(backbone).has_own_head(backbone.read_raw(), backbone.read_config())


def read_tokenizer(backbone: Backbone, config: PreTrainedConfig) -> PreTrainedTokenizerBase:
    """The tokenizer as it comes; raises UserError where there is none, or one of another model.

    `transformers` makes one up for a folder without: it knows the special words, and any other is <unk>.
    """
    what = f'backbone "{backbone.name}"'
    there = {name for name in TOKENIZERS if _file(backbone.source, name)}
    none = UserError(
        f"{what} cannot be loaded from {backbone.source}: it has no tokenizer "
        "(possible: tokenizer.json, vocab.json with merges.txt, spiece.model)"
    )
    try:
        tokenizer = AutoTokenizer.from_pretrained(backbone.source)
    except Exception as error:
        if not there:
            raise none from error
        raise UserError(f"{what} cannot be loaded from {backbone.source}: its tokenizer: {said(error)}") from error
    # a tokenizer of bytes needs no file
    if type(tokenizer).vocab_files_names and not there & {"tokenizer.json", "spiece.model"} and len(there) < 2:
        raise none
    words = tokenizer.get_vocab()
    faults, rows, last = Faults(), config.vocab_size, max(words.values(), default=-1)
    if not words.keys() - set(tokenizer.all_special_tokens) - set(EXTRA_WORDS):
        faults.add(f"{what}: its tokenizer knows no word")
    elif last >= rows:
        faults.add(f"{what}: its tokenizer has ids up to {last}, the model has {rows} words (0 to {rows - 1})")
    elif last + PADDED < rows:
        faults.add(f"{what}: its tokenizer has {last + 1} words, the model {rows}: it is another model's")
    for key in SPECIAL:
        ours, theirs = getattr(tokenizer, key, None), getattr(config, key, None)
        if None not in (ours, theirs) and ours not in (theirs if isinstance(theirs, list) else [theirs]):
            faults.add(f"{what}: {key} is {ours} in its tokenizer and {theirs} in its config.json")
    needed = ("pad_token_id", "eos_token_id", *(("decoder_start_token_id",) if config.is_encoder_decoder else ()))
    for key in needed:
        value = getattr(config, key, None)
        for one in value if isinstance(value, list) and value else [value]:
            if type(one) is not int or not 0 <= one < rows:
                faults.add(f"{what}: {key} in its config.json must be one of 0 to {rows - 1}, found {value}")
    faults.check()
    return tokenizer


def add_extra_words(tokenizer: PreTrainedTokenizerBase) -> int:
    """Give a tokenizer those of VL-T5's 200 extra words that it lacks; returns how many words it then has."""
    known = tokenizer.get_vocab()
    tokenizer.add_tokens([word for word in EXTRA_WORDS if word not in known], special_tokens=True)
    return len(tokenizer)


def grown_rows(backbone: Backbone, config: PreTrainedConfig) -> int:
    """Rows of the word table once the vocabulary has grown; raises UserError as `read_tokenizer` does."""
    if backbone.rows or backbone.config:
        return backbone.rows or config.vocab_size
    return _grown_rows(backbone.name, backbone.family, backbone.source, _stamp(backbone.source))


@lru_cache
def _grown_rows(name: str, family: str, source: str, stamp: Any) -> int:
    backbone = Backbone(name, family, source)
    return add_extra_words(read_tokenizer(backbone, backbone.read_config()))


def _stamp(source: str) -> tuple[tuple[int, int, int], ...]:
    """What tells that files of a folder have changed."""
    there = [path.stat() for path in sorted(Path(source).iterdir())] if Path(source).is_dir() else []
    return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in there)


def said(error: Exception) -> str:
    """What another library raised, in a few words of one line."""
    line = " ".join(str(error).split())[:300]
    return line if " " in line else f"{type(error).__name__} {line}".strip()
