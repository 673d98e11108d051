"""The reference of the grammar: the equation, what a design may hold, and every part that is registered."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from inspect import cleandoc
from typing import Annotated, Any, get_args, get_origin, get_type_hints

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
H' = s · G ⊙ (b · H + a · ΔH)        ΔH = f(H) (sequential) or f(X) (parallel),  G = g(X, Y, ΔH)
```

A method expands to a design: **inserts** of this form, **doors** for what does not fit it, and selectors for what else
trains. The method `design` takes one from a grid file ([a method without code](../plugins.md#a-method-without-code));
there a part is a mapping of its `kind` and its fields, or the kind alone where no field is needed. Sites are named in
[architecture](../architecture.md#what-a-model-is-asked). A plug-in adds parts of its own; these come with pet-bench.
"""
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
            parts += [f"### `{kind}`\n", _about(cls), _fields(cls), f"Defined in `{_file(cls)}`.\n"]
    return "\n".join(parts)


def kinds(base: type[Part]) -> dict[str, type[Part]]:
    """pet-bench's own parts of a kind; a method's are known once it is imported."""
    for fault in METHODS.load():
        raise fault
    return {kind: cls for kind, cls in base.kinds.items() if cls.__module__.startswith("pet_bench.")}


def _about(cls: type) -> str:
    return f"{plain(cleandoc(cls.__doc__ or ''))}\n"


def _fields(cls: type) -> str:
    hints = get_type_hints(cls, include_extras=True)
    rows = [[code(field.name), _type(cls, field), _default(field), _since(hints[field.name])] for field in fields(cls)]
    if not any(since for *_, since in rows):
        return table(["field", "type", "default"], (row[:3] for row in rows)) if rows else "It has no fields.\n"
    return table(["field", "type", "default", "since version"], rows)


def _type(cls: type, field: Field) -> str:
    """As it stands in the source, without marks."""
    text = str(field.type)
    if bare := re.fullmatch(r"Annotated\[(.*), Since\(.*\)\]", text):
        text = bare[1]
    return code(text) + _bounds(field)


def _bounds(field: Field) -> str:
    if not isinstance(field.default, FieldInfo):
        return ""
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤", "min_length": "length ≥"}
    found = ((sign, getattr(mark, name, None)) for mark in field.default.metadata for name, sign in signs.items())
    return "".join(f", {sign} {value:g}" for sign, value in found if value is not None)


def _default(field: Field) -> str:
    default: Any = field.default
    if isinstance(default, FieldInfo):
        default = MISSING if default.default is PydanticUndefined else default.default
    return "" if default is MISSING else code(default if default != "" else '""')


def _since(hint: Any) -> str:
    marks: Iterator[Since] = (mark for mark in get_args(hint)[1:] if isinstance(mark, Since))
    return next((str(mark.schema) for mark in marks), "") if get_origin(hint) is Annotated else ""


def _file(cls: type) -> str:
    path = cls.__module__.replace(".", "/")
    return f"{path.removeprefix('pet_bench/') if '/methods/' in path else path}.py"
