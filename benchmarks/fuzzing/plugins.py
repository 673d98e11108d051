"""Plug-ins whose author has not read the documentation: every hook raises, ends, recurses or returns something else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fuzzing.case import Case, Mutation, Reader, product, sound
from fuzzing.models import metrics
from fuzzing.mutations import missing, whole, written

KIND = "plug-in"
HEAD = """from dataclasses import dataclass as plain
from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import nn

from pet_bench.pet import Bottleneck, Delta, Design, Insert, Method
from pet_bench.spec import STRICT
"""
METHOD = {
    "kind": 'kind: ClassVar = "fuzzed"',
    "formula": 'formula: ClassVar = "W x"',
    "build": "def build(self, place, d_in):\n        return nn.Linear(d_in, place.d_h)",
    "name": 'name: ClassVar = "fzm"',
    "source": 'source: ClassVar = "nowhere"',
    "year": "year: ClassVar = 2024",
    "rates": 'learning_rates: ClassVar = {"mini-bart": 1e-3}',
    "defaults": "",
    "options": "r: int = 4",
    "design": 'def design(self, shape):\n        return Design((Insert(("encoder.ffn",), D()),))',
    "more": "",
}
BODIES = {
    "raises": "raise ValueError('boom')",
    "raises in lines": "raise RuntimeError('a\\nb\\nc')",
    "exits": "raise SystemExit(0)",
    "exits with text": "raise SystemExit('bye')",
    "interrupts": "raise KeyboardInterrupt",
    "recurs": "return {again}",
    "divides": "return 1 / 0",
    "none": "return None",
    "text": "return 'x'",
    "list": "return [1]",
    "number": "return 5",
    "class": "return int",
    "tensor": "return torch.zeros(3)",
    "function": "return lambda x: x",
    "memory": "raise MemoryError()",
    "asserts": "assert False",
    "stops": "raise StopIteration",
    "generates": "yield 1",
    "system": "raise OSError(2, 'No space left on device')",
    "base": "raise BaseException('boom')",
}


def source(**parts: str) -> str:
    """The plug-in with some of its parts replaced."""
    lines = METHOD | parts
    delta = "".join(f"    {lines[key]}\n" for key in ("kind", "formula", "build") if lines[key])
    keys = ("name", "source", "year", "rates", "options", "defaults", "design", "more")
    method = "".join(f"    {lines[key]}\n" for key in keys if lines[key])
    return (
        f"{HEAD}\n\n@dataclass(frozen=True, config=STRICT)\nclass D(Delta):\n{delta}\n\n"
        f'@dataclass(frozen=True, kw_only=True, config=STRICT)\nclass M(Method):\n    """fuzzed."""\n{method}'
    )


def hook(head: str, body: str, again: str, indent: int = 8) -> str:
    return f"{head}\n{' ' * indent}{body.format(again=again)}"


def loading() -> dict[str, str]:
    """What must not be loaded at all, whatever is asked for."""
    found = {
        f"module {name}": f"{body.replace('return', 'x =').format(again='1')}\n"
        for name, body in BODIES.items()
        if "return" not in body
    }
    found |= {
        "syntax": "def (:\n",
        "option is an object": source(options="r: object = object()"),
        "default of another type": source(options="r: int = 'x'"),
        "exit at once": "import sys; sys.exit(0)\n",
        "exit with text": "import sys; sys.exit('bye')\n",
        "imports nothing": "import no_such_module_anywhere\n",
        "defines nothing": "x = 1\n",
        "null byte": "x = 1\0\n",
        "name is a number": source(name="name: ClassVar = 5"),
        "name is empty": source(name='name: ClassVar = ""'),
        "name is a list": source(name='name: ClassVar = ["fzm"]'),
        "no name": source(name=""),
        "name has a slash": source(name='name: ClassVar = "../../x"'),
        "name has a line break": source(name='name: ClassVar = "a\\nb"'),
        "name of a family": source(name='name: ClassVar = "peft:lora"'),
        "name is a family": source(name='name: ClassVar = "peft:"'),
        "name is taken": source(name='name: ClassVar = "lora"'),
        "name is a property": source(name="@property\n    def name(self):\n        return 'fzm'"),
        "no source": source(source=""),
        "source is a number": source(source="source: ClassVar = 5"),
        "year is text": source(year='year: ClassVar = "soon"'),
        "year is true": source(year="year: ClassVar = True"),
        "no design": source(design="pass"),
        "design is a number": source(design="design = 5"),
        "rates are a list": source(rates="learning_rates: ClassVar = [1]"),
        "rates are null": source(rates="learning_rates: ClassVar = None"),
        "rate is text": source(rates='learning_rates: ClassVar = {"mini-bart": "x"}'),
        "rate is negative": source(rates='learning_rates: ClassVar = {"mini-bart": -1.0}'),
        "rate is no number": source(rates='learning_rates: ClassVar = {"mini-bart": float("nan")}'),
        "rate is true": source(rates='learning_rates: ClassVar = {"mini-bart": True}'),
        "a flag is text": source(more='identity_at_start: ClassVar = "yes"'),
        "a plain class": "class M:\n    plugin_kind = 'method'\n    name = 'fzm'\n",
        "an instance": "class M:\n    plugin_kind = 'method'\n    name = 'fzm'\nm = M()\n",
        "a suite of nothing": "class S:\n    plugin_kind = 'suite'\n    name = 'fzs'\ns = S()\n",
        "a backbone of nothing": "class B:\n    plugin_kind = 'backbone'\n    name = 'fzb'\nb = B()\n",
        "a task of nothing": "class T:\n    plugin_kind = 'task'\n    name = 'fzt'\n",
        "a kind of no registry": "class T:\n    plugin_kind = 'thing'\n    name = 'fzt'\n",
        "a kind of no text": "class T:\n    plugin_kind = ['method']\n    name = 'fzt'\n",
    }
    return found


def working() -> dict[str, str]:
    """What can only be seen when the method is built."""
    found = {}
    for name, body in BODIES.items():
        found[f"design {name}"] = source(design=hook("def design(self, shape):", body, "self.design(shape)"))
        found[f"build {name}"] = source(build=hook("def build(self, place, d_in):", body, "self.build(place, d_in)"))
        found[f"defaults {name}"] = source(
            defaults=hook("@classmethod\n    def defaults(cls, shape):", body, "cls.defaults(shape)")
        )
        found[f"formula {name}"] = source(formula=hook("@property\n    def formula(self):", body, "self.formula"))
    found.pop("build function")  # of what is called, nothing is known before it runs
    found.pop("formula text"), found.pop("defaults none"), found.pop("formula class")
    inserts = {
        "no sites": "Insert((), D())",
        "unknown site": 'Insert(("encoder.nose",), D())',
        "not a delta": 'Insert(("encoder.ffn",), nn.Linear(2, 2))',
        "site twice": 'Insert(("encoder.ffn", "encoder.ffn"), D())',
        "negative width": 'Insert(("encoder.ffn",), Bottleneck(-4))',
        "sites are text": 'Insert("encoder.ffn", D())',
        "gate is text": 'Insert(("encoder.ffn",), D(), gate="x")',
        "scale is no number": 'Insert(("encoder.ffn",), D(), scale=float("nan"))',
    }
    found |= {
        name: source(design=f"def design(self, shape):\n        return Design(({text},))")
        for name, text in inserts.items()
    }
    layers = {
        "negative layer": "nn.Linear(-1, 3)",
        "nothing": "None",
        "a value": "nn.Linear(d_in, int(nn.Linear(2, 2).weight.sum().item()))",
    }
    found |= {f"build {name}": source(build=_layer(text)) for name, text in layers.items()}
    found |= {
        "no formula": source(formula=""),
        "formula of unknown words": source(formula='formula: ClassVar = "{nope} x"'),
        "trains nothing known": source(design='def design(self, shape):\n        return Design((), train=("nose",))'),
        "one is null": source(design="def design(self, shape):\n        return Design((None,))"),
    }
    return found


def running() -> dict[str, str]:
    """What can only be seen when the model runs."""
    layers = {
        "wrong width": "nn.Linear(d_in, place.d_h + 1)",
        "wrong input": "nn.Linear(d_in + 1, place.d_h)",
        "no layer": "nn.Module()",
        "a function": "lambda x: x",
    }
    return {f"run {name}": source(build=_layer(text)) for name, text in layers.items()}


def _layer(text: str) -> str:
    return f"def build(self, place, d_in):\n        return {text}"


def going_on(output: str, exit: int) -> str:
    """The other method has its row all the same, and a line says what is wrong with this one."""
    if "projector-only" not in output:
        return "the sound method is not shown for the fault of the other"
    return (
        ""
        if "pet-bench: error:" in output or any(f" {how} " in output for how in ("failed", "oom"))
        else "no line says what is wrong"
    )


def cases(base: Path) -> Iterator[Case]:
    plugin = ("--plugin", "WORK/plugin.py")
    dry = ("--backbone", "mini-bart", *plugin, "--dry-run", "--estimate", "earlier", "--out", "WORK/out")
    run = (
        "--backbone",
        "mini-bart",
        "--suite",
        "mini-image-text/nlvr2",
        "--data",
        "WORK/data",
        *plugin,
        "--out",
        "WORK/out",
    )
    steps = ("--set", "recipe.max_steps=2", "--set", "recipe.batch_size=8", "--executor", "inline", "--device", "cpu")
    listing = Reader("list", ("list", "methods", *plugin), cost=6)
    own = [
        Reader("show", ("show", "fzm", "--backbone", "mini-bart", "--suite", "mini-image-text", *plugin)),
        Reader("dry-run", ("run", "--method", "fzm", *dry), codes=frozenset({1, 2}), cost=2),
        Reader("params", ("params", "--method", "fzm", "--backbone", "mini-bart", *plugin), codes=frozenset({1, 2})),
    ]
    beside = [
        Reader(
            "params-beside",
            ("params", "--method", "fzm", "--method", "projector-only", "--backbone", "mini-bart", *plugin),
            codes=frozenset({1, 2}),
        ),
        Reader(
            "dry-run-beside",
            ("run", "--method", "fzm", "--method", "projector-only", *dry),
            codes=frozenset({1, 2}),
            cost=2,
        ),
        Reader(
            "run-beside",
            ("run", "--method", "fzm", "--method", "projector-only", *run, *steps),
            codes=frozenset({1, 2}),
            writes=("out",),
            cost=4,
            said=(" failed ", " oom "),
            understood=metrics,
        ),
    ]
    plain = Reader("list-all", ("list", *plugin))

    def made(cases: Iterator[Case]) -> Iterator[Case]:
        """The file itself is the change; a sound one is a change too."""
        for case in cases:
            change = written(source()) if case.name == case.sound else _first(case.change)
            yield replace(
                case, base=("data",) if case.reader.name == "run-beside" else (), target="plugin.py", change=change
            )

    yield from made(sound(KIND, [], [plain, *own, *beside, listing]))
    bad = [Mutation(name, written(text)) for name, text in loading().items()]
    yield from made(product(KIND, [], "loading", [*bad, *whole(), missing()], [plain, own[0], own[1]]))
    bad = [Mutation(name, written(text)) for name, text in working().items()]
    late = [Mutation(name, written(text)) for name, text in running().items()]
    yield from made(product(KIND, [], "working", bad, own))
    yield from (replace(case, expect="either") for case in made(product(KIND, [], "working", late, own)))
    for case in made(product(KIND, [], "working", [*bad, *late], beside)):
        counted = "run-beside" not in case.name and case.name.split("/")[2] in running()
        yield replace(case, expect="either", check=case.check if counted else going_on)


def _first(change):
    """The change of a sound plug-in, written first."""

    def both(path: Path) -> None:
        written(source())(path)
        change(path)

    return both
