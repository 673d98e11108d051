"""The reference of the grammar: the equation, what a design may hold, and every part that is registered."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from inspect import cleandoc
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from tables import code, plain, table

from pet_bench.identity import Since
from pet_bench.pet import Delta, Design, Door, Gate, Insert, Part
from pet_bench.registry import METHODS

INTRO = """\
# Grammar

Every modification is, at a site that reads X (B, T, d) and writes H (B, T, d),

```text
H' = s · G ⊙ (b · H + a · ΔH)
ΔH = f(H) (sequential) or f(X) (parallel)
G  = g(X, Y, ΔH)
```

A method expands to a design: **inserts** of this form, **doors** for what does not fit it, and selectors for what else
trains. The method `design` takes one from a grid file ([a method without code](../plugins.md#a-method-without-code));
there a part is a mapping of its `kind` and its fields, or the kind alone where no field is needed. Sites are named in
[architecture](../architecture.md#what-a-model-is-asked). A plug-in adds parts of its own; these come with pet-bench.
"""
TYPES: dict[Any, str] = {str: "text", float: "number", int: "integer", bool: "`true`, `false`", Any: "anything"}
SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
GROUPS: dict[str, tuple[type[Part], str]] = {
    "Deltas": (Delta, "What may be added: ΔH = f(x), (…, d_in) → (…, d_h)."),
    "Gates": (Gate, "What may gate it: G, which broadcasts over (B, T, d_h); Y is what it acts on, b · H + a · ΔH."),
    "Doors": (Door, "What is no insert: edits of the input, of attentions, of biases, side networks, penalties."),
}


def page() -> str:
    parts = [INTRO]
    for cls in (Design, Insert):
        parts += [f"## {cls.__name__}\n", _about(cls), _fields(cls)]
    for title, (base, intro) in GROUPS.items():
        parts += [f"## {title}\n", f"{intro}\n"]
        for kind, cls in sorted(kinds(base).items()):
            parts += [f"### `{kind}`\n", _about(cls), _fields(cls), _home(cls)]
    return "\n".join(parts)


def kinds(base: type[Part]) -> dict[str, type[Part]]:
    """pet-bench's own parts of a kind; a method's are known once it is imported."""
    for fault in METHODS.load():
        raise fault
    return {kind: cls for kind, cls in base.kinds.items() if cls.__module__.startswith("pet_bench.")}


def _about(cls: type) -> str:
    return f"{plain(cleandoc(cls.__doc__ or ''))}\n"


def _home(cls: type) -> str:
    """The methods that it was made for, where it is defined beside them."""
    names = [name for name in METHODS.names() if METHODS.origin(name).partition(":")[0] == cls.__module__]
    links = ", ".join(f"[{name}](../methods.md#{name})" for name in names)
    return f"In `{cls.__module__}`" + (f", with {links}.\n" if links else ".\n")


def _fields(cls: type) -> str:
    hints = get_type_hints(cls, include_extras=True)
    rows = []
    for field in fields(cls):
        hint, given = hints[field.name], field.default if isinstance(field.default, FieldInfo) else None
        rows.append([code(field.name), words(hint) + _bounds(given), _default(field), _since(hint)])
    return table(["field", "takes", "default", "since schema"], rows)


def words(hint: Any) -> str:
    """A type as what is written in a grid file."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return words(inner[0]) + "".join(map(_bounds, inner[1:]))
    if origin is Literal:
        return ", ".join(map(code, inner))
    if origin in (Union, UnionType):
        return " or ".join(words(one) for one in inner if one is not NoneType) + " or nothing" * (NoneType in inner)
    if origin is tuple:
        return f"list: {words(inner[0])}"
    if origin is dict:
        return "mapping"
    return TYPES.get(hint) or hint.__name__.lower()


def _bounds(mark: Any) -> str:
    """What a field's constraints say, if it is one that has some."""
    marks = getattr(mark, "metadata", [mark])
    found = [f"{sign} {getattr(one, name):,}" for one in marks for name, sign in SIGNS.items() if hasattr(one, name)]
    return f" {', '.join(found)}" if found else ""


def _default(field: Field) -> str:
    default: Any = field.default
    if isinstance(default, FieldInfo):
        default = MISSING if default.default is PydanticUndefined else default.default
    if default is MISSING:
        return ""
    return code(to_text(default))


def to_text(value: Any) -> str:
    """A default as it is written in a grid file."""
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case tuple():
            return f"[{', '.join(map(to_text, value))}]"
        case float():
            return f"{value:g}"
    return str(value)


def _since(hint: Any) -> str:
    marks = (mark for mark in get_args(hint)[1:] if isinstance(mark, Since)) if get_origin(hint) is Annotated else ()
    return next((str(mark.schema) for mark in marks), "")
