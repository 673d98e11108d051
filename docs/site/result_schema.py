"""The reference of the files that trials leave, of the models that check them."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import cleandoc
from typing import Any, get_args

from tables import code, plain, table

from pet_bench.results.evaluations import Robustness, Transfer
from pet_bench.results.schema import Record, TrialResult
from pet_bench.results.soups import Soup

INTRO = """\
# Result schema

The keys of the JSON files in a folder of results ([which files there are](../results/README.md)). A key that is not
here is refused, and so is a value of another type. JSON has no numbers for what is not finite: `"NaN"`, `"Infinity"`
and `"-Infinity"` are text.
"""
FILES: dict[type[Record], str] = {
    TrialResult: "<id>.json",
    Transfer: "<id>/transfer.<task>.json",
    Robustness: "<id>/robustness.<seed>.json",
    Soup: "report/soup-<method>-….json",
}


def page() -> str:
    parts = [INTRO]
    seen: set[type[Record]] = set()
    for root, file in FILES.items():
        parts.append(f"## {root.__name__}: `{file}`\n")
        for model in _reached(root):
            if model not in seen:
                seen.add(model)
                parts += [f"### {model.__name__}\n"] * (model is not root)
                parts += [f"{plain(cleandoc(model.__doc__ or ''))}\n", table(["key", "type", "what"], _rows(model))]
    return "\n".join(parts)


def _reached(root: type[Record]) -> list[type[Record]]:
    """A model and those that its keys hold, each once, in the order in which they are met."""
    models = {root: None}
    for model in (todo := [root]):
        for field in model.model_fields.values():
            for other in _models(field.annotation):
                if other not in models:
                    models[other] = None
                    todo.append(other)
    return [*models]


def _models(kind: Any) -> Iterator[type[Record]]:
    if isinstance(kind, type) and issubclass(kind, Record):
        yield kind
    for one in get_args(kind):
        yield from _models(one)


def _rows(model: type[Record]) -> Iterator[list[str]]:
    schema = model.model_json_schema()
    for name, field in model.model_fields.items():
        key = schema["properties"][name]
        when = "" if field.is_required() else " (may be absent)" if field.exclude_if else ""
        yield [code(name), type_of(key), plain(field.description or "") + when]


def type_of(key: dict[str, Any]) -> str:
    """A JSON schema in a few words."""
    if "$ref" in key:
        name = key["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in key:
        return " or ".join(map(type_of, key["anyOf"]))
    if "const" in key or "enum" in key:
        return ", ".join(map(code, key.get("enum", [key.get("const")])))
    match key.get("type"):
        case "array":
            return f"list of {type_of(key['items'])}"
        case "object":
            values = key.get("additionalProperties")
            return f"mapping to {type_of(values)}" if isinstance(values, dict) else "mapping"
        case "integer" | "number" as kind:
            return kind + (f" ≥ {key['minimum']:g}" if "minimum" in key else "") + _above(key)
        case kind:
            return {"string": "text", None: "anything"}.get(kind, str(kind))


def _above(key: dict[str, Any]) -> str:
    return f" > {key['exclusiveMinimum']:g}" if "exclusiveMinimum" in key else ""
