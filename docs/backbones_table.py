"""The page about families of backbones, and which method works on which: written by `build.py`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from inspect import cleandoc

from pet_bench.backbone import Anatomy
from pet_bench.pet import build_method, why_skipped
from pet_bench.registry import FAMILIES, METHODS
from pet_bench.spec import MethodSpec, Scope

INTRO = """\
<!-- written by docs/build.py: do not edit -->

# Backbones

`--backbone` takes a registered name (`pet-bench list backbones`), a folder in the form of `transformers` or, where it
can be downloaded, `owner/name` of the hub, of any size. Its `config.json` says of which family it is: those below are
all that pet-bench knows, and one more is [one file](plugins.md#a-backbone-or-a-family-of-them).

Families fed with **stored features** are language models that read features of images through a visual embedding of
their own, the projector, new in each trial: `[text; image]` in an encoder, `[begin; image; text; answer]` in a decoder.
Families fed with **pixels** are stock vision-language models. Their checkpoint's own processor makes what they read,
a task's text is the user's turn behind its images, and nothing is added but what a method adds.

A method touches the parts in its **scope**: inserts go to the layers of the language model and of the vision tower
where these are in it, the projector trains where it is in it, and all else stays frozen. Without `scope` it is the
family's.
"""


@cache
def anatomy(family: str) -> Anatomy:
    """That of the configuration which `transformers` has for the family by default."""
    cls = FAMILIES.get(family)
    return replace(cls.anatomy(family, cls.config()), scope=cls.scope)


@cache
def families() -> list[str]:
    """Those of pet-bench itself, those fed with features first."""
    ours = [name for name in FAMILIES.names() if FAMILIES.origin(name).startswith("pet_bench.")]
    return sorted(ours, key=lambda name: (FAMILIES.get(name).fed, name))


@cache
def methods() -> list[str]:
    return [name for name in METHODS.names() if METHODS.origin(name).startswith("pet_bench.")]


def reason(method: str, family: str, scope: Scope | None = None) -> str | None:
    """Why a method with its default options is left out there."""
    scoped = anatomy(family).scoped(scope)
    return why_skipped(build_method(MethodSpec(method), scoped), scoped)


def page() -> str:
    parts = [INTRO, _families(), "## Sites\n", SITES, _sites(), "## Methods\n", _matrix(), _elsewhere()]
    return "\n".join(parts)


def _families() -> str:
    rows = [["family", "models", "`model_type`", "fed with", "comes with", "reads → writes", "parts", "scope"]]
    rows.append([":--"] * len(rows[0]))
    for name in families():
        cls, about = FAMILIES.get(name), anatomy(name)
        needs = "a tokenizer"
        if cls.fed == "pixels":
            needs = "a processor with a chat template" if cls.turns else "a processor"
        kinds = ", ".join(f"`{kind}`" for kind in (cls.config.model_type, *cls.model_types))
        rows.append([
            f"`{name}`", " ".join(cleandoc(cls.__doc__).split("\n\n")[0].split()), kinds,
            {"features": "stored features", "pixels": "pixels"}[cls.fed], needs,
            f"{about.reading} → {about.writing}", ", ".join(about.parts), ", ".join(about.scope),
        ])  # fmt: skip
    return table(rows)


MATRIX = """\
With default options, in the family's own scope. *works*: attached, it starts, trains, generates, is saved and merged as
it should, which `tests/vlms/test_integrity.py`, `tests/pet/test_methods.py` and `tests/methods/` see to; – with a
number: it is left out, a grid says so and runs the rest. Types of peft: [peft.md](peft.md).
"""
SITES = """\
Where inserts go, `{stack}.{sub-layer}[.{projection}]`, by the same names everywhere; each also has `{stack}.layer` and
what the [architecture](architecture.md#what-a-model-is-asked) lists. `hidden` are the units that a feed-forward's `out`
reads, `memory` the encoder's states as cross-attention reads them.
"""


def _sites() -> str:
    rows = [["family", "stack", "layers at", "sub-layers and projections"], [":--"] * 4]
    for name in families():
        about = anatomy(name)
        for stack, place in about.stacks.items():
            if place.blocks:
                rows.append([f"`{name}`", stack, f"`{place.blocks.removeprefix('lm.')}`", _places(about, stack)])
    return table(rows)


def _places(about: Anatomy, stack: str) -> str:
    """`self_attn` (query, key) · `ffn` (in, out)."""
    inside: dict[str, list[str]] = {}
    for site in about.sites:
        first, _, rest = site.partition(".")
        sub_layer, _, projection = rest.partition(".")
        if first == stack and sub_layer in ("self_attn", "cross_attn", "ffn"):
            inside.setdefault(sub_layer, []).extend([projection] if projection else [])
    return " · ".join(f"`{name}` ({', '.join(places)})" if places else f"`{name}`" for name, places in inside.items())


def _matrix() -> str:
    """Method × family in each family's own scope; a number says which reason."""
    reasons: dict[str, int] = {}
    rows = [["method", *(f"`{name}`" for name in families())], [":--", *[":-:"] * len(families())]]
    for method in methods():
        row = [f"`{method}`"]
        for family in families():
            why = reason(method, family)
            row.append("works" if why is None else f"– {reasons.setdefault(why, len(reasons) + 1)}")
        rows.append(row)
    notes = "\n".join(f"{number}. {why}" for why, number in reasons.items())
    return f"{MATRIX}\n{table(rows)}\nLeft out because\n\n{notes}\n"


def _elsewhere() -> str:
    """What else is left out in scopes that are not a family's own, on families that have those parts."""
    lines = ["### In other scopes\n", "Left out besides, on every family that has these parts unless some are named:\n"]
    scopes: tuple[Scope, ...] = (("vision",), ("language", "vision"), ("projector",))
    for scope in scopes:
        able = [name for name in families() if set(scope) <= {"language", *anatomy(name).stacks}]
        left: dict[tuple[str, str], list[str]] = {}
        for method in methods():
            for family in able:
                if (why := reason(method, family, scope)) and reason(method, family) is None:
                    left.setdefault((why, method), []).append(family)
        by_reason: dict[tuple[str, str], list[str]] = {}
        for (why, method), where in left.items():
            here = [name for name in able if reason(method, name) is None]
            by_reason.setdefault((why, "" if where == here else ticked(where)), []).append(method)
        for (why, where), names in by_reason.items():
            lines.append(f"* `{', '.join(scope)}`: {ticked(names)}{f', on {where}' if where else ''}: {why}")
    return "\n".join(lines) + "\n"


def ticked(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def table(rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"
