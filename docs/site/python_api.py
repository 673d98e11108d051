"""The reference of what is imported: every name that a package offers by `__all__`, of its docstring."""

from __future__ import annotations

from importlib import import_module
from inspect import cleandoc, isclass, isfunction
from typing import Annotated, Any, get_args, get_origin

from tables import plain

INTRO = """\
# Python

What pet-bench's packages offer. Whatever a user can get wrong raises `pet_bench.errors.UserError`, whose text is the
line that the command would print.
"""
PACKAGES = (
    "pet_bench",
    "pet_bench.report.tables",
    "pet_bench.report.figures",
    "pet_bench.report.statistics",
    "pet_bench.report.page",
    "pet_bench.pet",
    "pet_bench.backbone",
)


def page() -> str:
    parts, seen = [INTRO], set()
    for name in PACKAGES:
        package = import_module(name)
        parts += [f"## {name}\n", f"{plain(cleandoc(package.__doc__ or ''))}\n"]
        for offered in package.__all__:
            parts.append(_entry(offered, getattr(package, offered), seen))
    return "\n".join(parts)


def _entry(name: str, thing: Any, seen: set[str]) -> str:
    """A class or function by where it is defined, once; of anything else its value."""
    if not (isclass(thing) or isfunction(thing)):
        return f"### {name}\n\n`{_value(thing)}`\n"
    home = f"{thing.__module__}.{thing.__qualname__}"
    if home in seen:
        return f"### {name}\n\nThe same as [above][{home}].\n"
    seen.add(home)
    return f"::: {home}\n    options:\n      heading: {name}\n"


def _value(thing: Any) -> str:
    """As it is written; of a type with a check, the type."""
    return get_args(thing)[0].__name__ if get_origin(thing) is Annotated else repr(thing)
