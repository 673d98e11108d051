"""What makes a trial the trial that it is: its id, which lasts when options are added.

A trial's id is the hash of its resolved spec. A key that comes later is declared with the value that means "as before",
its neutral value, and is left out of the spec, and so of the hash, wherever it stands at that value: the ids of all
that was measured before stay as they are, and a file that was written before reads as one that says so.

    @dataclass(frozen=True, kw_only=True, config=STRICT)
    class Gated(Method):
        rank: Size = 4                                            # there from the start: always hashed
        temperature: Annotated[float, Since(3, neutral=1.0)] = 1.0  # came later

That holds for the options of a method or a task, for the fields of a part of a design, for the recipe and for the trial
itself. The default may be another value than the neutral one, but for a task, whose protocol lists only what differs
from its defaults. A key that has results keeps its mark, and the mark its value, for good. A default that changes makes
another trial; where the old result stands for it, a row of `aliases.csv` beside the results says so
(`results.aliases`).

The plain data of a spec never holds a marked key at its neutral value. Hence an id needs no plug-in's code: it is the
hash of what the file says, also where its classes cannot be imported.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import cache
from hashlib import sha256
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from pet_bench.errors import PluginError, UserError, text_of
from pet_bench.registry import METHODS


@dataclass(frozen=True)
class Since:
    """In a field's `Annotated[...]`: it came with that version of the results' schema (`schema_version`), or, in a
    plug-in, with a version of its own; until then all trials were what `neutral`, plain data, makes of them."""

    schema: int
    neutral: Any


@cache
def types(cls: type) -> dict[str, Any]:
    """Field → type, with all that annotates it, of a dataclass of pydantic's or of the standard library's."""
    known = getattr(cls, "__pydantic_fields__", None)
    if known is None:
        hints = get_type_hints(cls, include_extras=True)
        return {field.name: hints[field.name] for field in fields(cls)}
    return {
        name: Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        for name, field in known.items()
    }


@cache
def neutral_values(cls: type) -> dict[str, Any]:
    """Marked field of a dataclass → its neutral value, as plain data.

    Raises PluginError where such a value is none that the field takes, and for a mark on a part of a field's type.
    """
    values = {}
    for name, kind in types(cls).items():
        where = f"{cls.__module__}:{cls.__qualname__}.{name}"
        inner, *marks = get_args(kind) if get_origin(kind) is Annotated else (kind,)
        if any(_marked(one) for one in get_args(inner)):
            raise PluginError(
                f"{where}: Since stands inside of the type, expected Annotated[<the whole type>, Since(…)]"
            )
        for mark in marks:
            if isinstance(mark, Since):
                values[name] = _taken(mark.neutral, kind, f"{where}: the neutral value {text_of(mark.neutral)}")
    return values


def _marked(kind: Any) -> bool:
    return isinstance(kind, Since) or any(map(_marked, get_args(kind)))


def _taken(neutral: Any, kind: Any, where: str) -> Any:
    """A neutral value as plain data, as a field of that type gives it."""
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(kind)
        return adapter.dump_python(adapter.validate_json(canonical(neutral), strict=True), mode="json")
    except ValidationError as error:
        raise PluginError(f"{where} is none that it takes: {error.errors()[0]['msg']}") from error
    except UserError as error:
        raise PluginError(f"{where}: {error}") from error


def normal(value: Any, data: Any) -> Any:
    """`data`, which is `value` as plain data, without what stands at its neutral value, in dataclasses at any depth."""
    if isinstance(value, list | tuple) and isinstance(data, list | tuple) and len(value) == len(data):
        return [normal(*pair) for pair in zip(value, data, strict=True)]
    if isinstance(value, dict) and isinstance(data, dict):
        return {key: normal(value.get(key), item) for key, item in data.items()}
    cls: type = type(value)
    if not (hasattr(cls, "__dataclass_fields__") and isinstance(data, dict)):
        return data
    neutral = neutral_values(cls)
    return {
        key: normal(getattr(value, key, None), item)
        for key, item in data.items()
        if key not in neutral or canonical(item) != canonical(neutral[key])
    }


def filled(kind: Any, data: Any) -> Any:
    """`data`, the plain data of a spec, of which an object of that type is to be made, with the neutral value of every
    marked key that is absent. A part of a design is of the class that its `kind` names."""
    if get_origin(kind) is Annotated:
        return filled(get_args(kind)[0], data)
    if get_origin(kind) in (Union, UnionType):
        for one in get_args(kind):
            data = filled(one, data)
    elif get_origin(kind) in (tuple, list) and isinstance(data, list | tuple):
        (first, *_) = get_args(kind)
        return [filled(first, item) for item in data]
    elif get_origin(kind) is dict and isinstance(data, dict):
        return {key: filled(get_args(kind)[1], item) for key, item in data.items()}
    elif isinstance(kind, type) and isinstance(data, dict):
        cls = _part(kind, str(data.get("kind"))) if hasattr(kind, "kinds") else kind
        if hasattr(cls, "__dataclass_fields__"):
            of = types(cls)
            return neutral_values(cls) | {key: filled(of.get(key), item) for key, item in data.items()}
    return data


def _part(base: Any, kind: str) -> Any:
    if kind not in base.kinds:
        METHODS.load()  # a method's parts are known once it is imported
    return base.kinds.get(kind)


def canonical(data: Any) -> str:
    """Plain data as the one text that stands for it; raises UserError for all that is no plain data."""
    for place, value in _foreign(data):
        where = f"{'.'.join(place)}: " if place else ""
        raise UserError(f"{where}only plain data can be told apart for good, found {text_of(value)}")
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _foreign(data: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """What no JSON holds as it is, and where."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _foreign(value, (*place, key)) if isinstance(key, str) else [(place, key)]
    elif isinstance(data, list | tuple):
        for index, value in enumerate(data):
            yield from _foreign(value, (*place, str(index)))
    elif not isinstance(data, str | int | float | None) or (isinstance(data, float) and not math.isfinite(data)):
        yield place, data


def but_seed(spec: Any) -> tuple[str, str]:
    """The one text that stands for a spec, a dataclass, without its `label`: what is before and after its seed.

    It is the same for trials that differ in their seeds only, so that it is made once for all of them.
    """
    content = {key: value for key, value in normal(spec, asdict(spec)).items() if key not in ("label", "seed")}
    before, after = ({key: content[key] for key in content if (key < "seed") == first} for first in (True, False))
    return f'{canonical(before)[:-1]},"seed":', f",{canonical(after)[1:]}"


def identity(text: tuple[str, str], seed: int) -> str:
    """Twelve hex digits of the SHA-256 of a spec's text with its seed."""
    return sha256(f"{text[0]}{seed}{text[1]}".encode()).hexdigest()[:12]


def faults(cls: type) -> Iterator[str]:
    """What is wrong with the marks of a plug-in's options, a line each."""
    try:
        neutral = neutral_values(cls)
    except PluginError as error:
        yield from error.faults
        return
    if getattr(cls, "plugin_kind", None) == "task":
        for name, value in neutral.items():
            default = getattr(cls, "__pydantic_fields__")[name].get_default(call_default_factory=True)  # noqa: B009
            if canonical(value) != canonical(default):
                yield f"the option {name} is {text_of(default)} by default, its neutral value {text_of(value)}"
