"""Command lines: every option of every command with every value that its kind cannot have, and options that contradict
each other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

from fuzzing.case import Case, Reader, sound

KIND = "option"
LONG = "x" * 10_000
BAD = {  # by what the command line says it takes
    "number": (
        "",
        "x",
        "nan",
        "inf",
        "-inf",
        "1e400",
        "9" * 400,
        "True",
        "1:30",
        "-1",
        "½",
        "0x10",
        "1,5",
        str(10**30),
    ),
    "choice": ("", "x", "RAY", LONG, "a\nb"),
    "file": ("", "nowhere", LONG, "/dev/null", "\udcff", "a\nb", "plain.txt/x", "[/bold]"),
    "name": ("", "x", LONG, "a\nb", "../../x", "\udcff", "[/bold]", "x" * 300, "é"),
    "set": (
        "",
        "x",
        "=1",
        "recipe.lr",
        "recipe.lr=",
        "recipe.lr=[1",
        "recipe.lr=true",
        "recipe.lr=nan",
        "recipe.lr=.nan",
        "recipe.lr=1e999",
        "recipe.lr=!!python/object/apply:os.system [ls]",
        "recipe.nope=1",
        ".=1",
        "recipe.=1",
        "lora.nope=1",
        "nope.x=1",
        "recipe.lr=&a [*a]",
        "recipe.lr=" + "[" * 5000,
        "recipe.epochs=1.5",
        "recipe.epochs=0",
        "recipe.epochs=true",
        "recipe.epochs=" + "9" * 400,
        "recipe.decay_norms=off",
        "recipe.decay_norms=1",
        "lora.rank=true",
        "lora.rank=0",
        "lora.rank=-1",
        "lora.rank=1e400",
        "vqa.scorer=2017",
        "recipe.precision=float16",
        "recipe.lr=a: b: c",
        "recipe.lr='",
        "recipe.lr=*a",
        "recipe.lr=1\n",
        "recipe={lr: 1}",
        "recipe.lr=1:30",
        f"recipe.{LONG}=1",
        "\udcff=1",
    ),
}
RUN = ("run", "--method", "lora", "--backbone", "mini-bart", "--dry-run", "--estimate", "earlier", "--out", "WORK/out")
NLVR = ("--suite", "mini-image-text/nlvr2", "--data", "WORK/data")
GRID = ("run", "WORK/grid.yaml", "--dry-run", "--estimate", "earlier", "--out", "WORK/out")
FREE = {  # (command, option, value) that is well enough, or that only the machine can tell
    ("run", "--out"),
    ("score", "--set"),
    ("export", "--out"),
    ("gates", "--out"),
    ("merge", "--out"),
    ("report", "--out"),
    ("data pack", "--out"),
    ("compare", "--out"),
    ("run", "--checkpoint-every"),
    ("report", "--to"),
    ("show", "--out"),
    ("doctor", "--out"),
    ("doctor", "--data"),
    ("doctor", "--plugin"),
    ("import", "--out"),
    ("push", "--message"),
    ("push", "--out"),  # of a trial's id alone
}
LINES = {  # contradictions, slips, and what is not there
    "nothing": (),
    "unknown command": ("rum",),
    "run nothing": ("run",),
    "run nothing there": ("run", "nowhere.yaml"),
    "run a long name": ("run", LONG),
    "run an empty name": ("run", ""),
    "run a folder": ("run", "WORK"),
    "run a file of no YAML": ("run", "WORK/plain.txt"),
    "inline and an address": (*GRID, "--executor", "inline", "--ray-address", "auto"),
    "inline and a dashboard": (*GRID, "--executor", "inline", "--dashboard"),
    "inline and a tracker": (*GRID, "--executor", "inline", "--log", "tensorboard"),
    "a method not in the grid": (*GRID, "--method", "full"),
    "a seed not in the grid": (*GRID, "--seed", "77"),
    "a device of no kind": (*GRID, "--device", "xpu9"),
    "no device": (*GRID, "--device", ""),
    "device meta": (*GRID, "--device", "meta"),
    "device with a number": (*GRID, "--device", "cpu:x"),
    "a device that is not there": (*GRID, "--device", "cuda:77"),
    "a method twice": (*RUN, "--method", "lora"),
    "a seed twice": (*RUN, "--seed", "1", "--seed", "1"),
    "a data folder that is not there": (*RUN, "--data", "nowhere"),
    "a data folder that is a file": (*RUN, "--data", "WORK/plain.txt"),
    "a set twice": (*RUN, "--set", "recipe.lr=1", "--set", "recipe.lr=2"),
    "out is a file": (
        "run",
        "--method",
        "lora",
        "--executor",
        "inline",
        "--out",
        "WORK/plain.txt",
        "--set",
        "recipe.max_steps=1",
    ),
    "out below a file": (
        "run",
        "--method",
        "lora",
        "--executor",
        "inline",
        "--out",
        "WORK/plain.txt/x",
        "--set",
        "recipe.max_steps=1",
    ),
    "rerun nothing": ("rerun", "WORK/grid.yaml", "--executor", "inline"),
    "rerun a trial of none": ("rerun", "WORK/grid.yaml", "--executor", "inline", "--trial", "0123"),
    "rerun a trial of no digits": ("rerun", "WORK/grid.yaml", "--executor", "inline", "--trial", ""),
    "compare one with itself": ("compare", "lora", "lora", "--out", "WORK/results"),
    "compare nobody": ("compare", "lora", "nobody", "--out", "WORK/results"),
    "compare nothing": ("compare", "", "", "--out", "WORK/results"),
    "compare elsewhere": ("compare", "lora", "vl-pet-large", "--out", "WORK"),
    "compare an unknown task": ("compare", "lora", "vl-pet-large", "--out", "WORK/results", "--task", "gqa"),
    "merge nothing": ("merge", "WORK/empty", "--out", "WORK/merged"),
    "merge nowhere": ("merge", "WORK/nowhere", "--out", "WORK/merged"),
    "merge into itself": ("merge", "WORK/results", "--out", "WORK/results"),
    "merge a file": ("merge", "WORK/plain.txt", "--out", "WORK/merged"),
    "merge into a file": ("merge", "WORK/results", "--out", "WORK/plain.txt"),
    "export into a file": ("export", "WORK/results", "--format", "peft", "--out", "WORK/plain.txt"),
    "export into the void": ("export", "WORK/results", "--format", "peft", "--out", "/dev/null"),
    "export nothing": ("export", "WORK/empty", "--format", "peft"),
    "export nowhere": ("export", "nowhere", "--format", "peft"),
    "export an index into a folder": ("export", "WORK/results", "--format", "model-index", "--out", "WORK/empty"),
    "report nothing": ("report", "WORK/empty"),
    "report nowhere": ("report", "nowhere"),
    "report a file": ("report", "WORK/plain.txt"),
    "report an unknown style": ("report", "WORK/results", "--style", "nope"),
    "report another suite's style": ("report", "WORK/results", "--style", "vlpet-video"),
    "status nowhere": ("status", "nowhere"),
    "status of a folder": ("status", "WORK/empty"),
    "show nobody": ("show", "nobody"),
    "show the empty name": ("show", ""),
    "show a trial of none": ("show", "0123", "--out", "WORK/results"),
    "show a file of no result": ("show", "WORK/plain.txt"),
    "show a folder": ("show", "WORK/results/"),
    "show a long name": ("show", LONG),
    "check nowhere": ("results", "check", "nowhere"),
    "check a file": ("results", "check", "WORK/plain.txt"),
    "gates of none": ("gates", "0123"),
    "gates beyond the last example": ("gates", "WORK/FILE", "--index", "99999", "--data", "WORK/data"),
    "gates of two examples": ("gates", "WORK/FILE", "--index", "1", "--example", "1"),
    "gates of an unknown site": ("gates", "WORK/FILE", "--site", "nose", "--data", "WORK/data"),
    "gates of an unknown task": ("gates", "WORK/FILE", "--task", "nope", "--data", "WORK/data"),
    "gates into a text": ("gates", "WORK/FILE", "--out", "x.txt"),
    "score nothing": ("score", "nowhere.json"),
    "score by nothing": ("score", "--metric", "nope", "WORK/plain.txt"),
    "score of no answers": ("score", "--metric", "vqa-accuracy", "WORK/plain.txt"),
    "score with too many": ("score", "WORK/FILE", "--annotations", "WORK/plain.txt"),
    "score with data": ("score", "--metric", "cider", "WORK/plain.txt", "--data", "WORK"),
    "best of a grid": ("best", "WORK/grid.yaml"),
    "best of nothing": ("best", "nowhere"),
    "a plug-in that is not there": ("list", "--plugin", "nowhere.py"),
    "a plug-in of no name": ("list", "--plugin", ""),
    "a plug-in that is a folder": ("list", "--plugin", "WORK"),
    "a plug-in that is a long name": ("list", "--plugin", LONG),
    "doctor of nothing": ("doctor", "nowhere.yaml"),
    "doctor of a file of no YAML": ("doctor", "WORK/plain.txt"),
    "import nowhere": ("import", "WORK/nowhere", *NLVR),
    "import a file": ("import", "WORK/plain.txt", *NLVR),
    "import nothing": ("import", "WORK/empty", *NLVR),
    "import a trial": ("import", "WORK/results", *NLVR),
    "import without a suite": ("import", "WORK/adapter"),
    "import into a file": ("import", "WORK/adapter", *NLVR, "--out", "WORK/plain.txt"),
    "push nowhere": ("push", "WORK/nowhere", "owner/name", "--dry-run"),
    "push nothing": ("push", "WORK/empty", "owner/name", "--dry-run"),
    "push a file": ("push", "WORK/plain.txt", "owner/name", "--dry-run"),
    "push to no owner": ("push", "WORK/adapter", "name", "--dry-run"),
    "push to a path": ("push", "WORK/adapter", "../x/y", "--dry-run"),
    "push to a long name": ("push", "WORK/adapter", f"owner/{LONG}", "--dry-run"),
    "data check nowhere": ("data", "check", "nowhere"),
    "data check a file": ("data", "check", "WORK/plain.txt"),
    "data check nothing": ("data", "check", "WORK/empty"),
    "data check an unknown suite": ("data", "check", "WORK/data", "--suite", "nope"),
    "data check an unknown task": ("data", "check", "WORK/data", "--suite", "mini-image-text", "--task", "nope"),
    "data convert nothing": ("data", "convert", "WORK/empty", "WORK/root"),
    "data convert nowhere": ("data", "convert", "nowhere", "WORK/root"),
    "data convert into a file": ("data", "convert", "WORK/empty", "WORK/plain.txt"),
    "data pack into a file": ("data", "pack", "WORK/data", "--suite", "mini-image-text", "--out", "WORK/plain.txt"),
    "data mini where something is": ("data", "mini", "WORK/data"),
    "data mini into a file": ("data", "mini", "WORK/plain.txt"),
    "pretrain nothing": ("pretrain", "nope", "--out", "WORK/new"),
    "pretrain an unknown course": ("pretrain", "mini-bart", "--out", "WORK/new", "--course", "x", "--steps", "1"),
    "pretrain with a negative seed": ("pretrain", "mini-bart", "--out", "WORK/new", "--seed", "-1", "--steps", "1"),
    "pretrain from nowhere": (
        "pretrain",
        "mini-bart",
        "--out",
        "WORK/new",
        "--course",
        "clips",
        "--start",
        "nowhere",
        "--steps",
        "1",
    ),
    "params of an unknown suite": ("params", "--suite", "mini-image-text/"),
    "params of an unknown method": ("params", "--method", "peft:"),
    "params of a method with a colon": ("params", "--method", "peft:nope", "--backbone", "mini-bart"),
    "params of no backbone": ("params", "--method", "lora", "--backbone", ""),
    "params of a folder": ("params", "--method", "lora", "--backbone", "WORK/empty"),
    "params of a long backbone": ("params", "--method", "lora", "--backbone", LONG),
    "params of a slash": ("params", "--method", "lora", "--backbone", "/"),
}
BASES = {  # a sound command line of each command, whose options are then changed
    "run": RUN,
    "status": ("status", "WORK/grid.yaml", "--out", "WORK/out"),
    "report": ("report", "WORK/results"),
    "compare": ("compare", "lora", "vl-pet-large", "--out", "WORK/results"),
    "export": ("export", "WORK/results", "--format", "model-index"),
    "gates": ("gates", "WORK/FILE", "--data", "WORK/data"),
    "show": ("show", "lora", "--backbone", "mini-bart", "--suite", "mini-image-text"),
    "params": ("params", "--method", "lora", "--backbone", "mini-bart"),
    "score": ("score", "WORK/FILE", "--data", "WORK/data"),
    "doctor": ("doctor", "WORK/grid.yaml", "--out", "WORK/out"),
    "import": ("import", "WORK/adapter", *NLVR, "--out", "WORK/out"),
    "push": ("push", "WORK/adapter", "owner/name", "--dry-run"),
    "data check": ("data", "check", "WORK/data", "--suite", "mini-image-text"),
    "data pack": ("data", "pack", "WORK/data", "--suite", "mini-image-text", "--out", "WORK/packed"),
}
WRITES = {
    "report": ("results/report",),
    "gates": ("results/report",),
    "data pack": ("packed",),
    "export": ("results/report",),
    "import": ("out",),
}
SAID = {"doctor": ("fault  ",)}  # which is what it is asked for
COSTS = {"report": 20.0, "gates": 5.0, "run": 2.0, "import": 2.0, "doctor": 2.0}


def cases(base: Path) -> Iterator[Case]:
    file = _file(base)
    bases = ("results", "data", "adapter", "grid.yaml", "empty", "plain.txt")
    readers = []
    for name, args in BASES.items():
        codes = frozenset({1, 2}) if name.startswith("data") else frozenset({2})
        arguments = tuple(one.replace("FILE", file) for one in args)
        reader = Reader(
            name.replace(" ", "-"),
            arguments,
            codes,
            said=SAID.get(name, ()),
            writes=WRITES.get(name, ()),
            cost=COSTS.get(name, 1.0),
        )
        readers.append((name, reader))
    yield from sound(KIND, bases, [reader for _, reader in readers])
    for name, reader in readers:
        for option, kind in _options(name):
            for number, value in enumerate(BAD[kind]):
                expect = "either" if _free(name, option, kind, value) else "refuse"
                args = (*_without(reader.args, option), option, value)
                changed = Reader(
                    reader.name,
                    args,
                    reader.codes,
                    reader.said,
                    writes=("",) if expect == "either" else reader.writes,
                    cost=reader.cost,
                )
                yield Case(KIND, f"{KIND}/{reader.name}/{option}={number}", changed, bases, expect=expect)
    for name, args in LINES.items():
        codes = frozenset({1, 2}) if args[:1] == ("data",) else frozenset({2})
        reader = Reader(name, tuple(one.replace("FILE", file) for one in args), codes)
        yield Case(KIND, f"{KIND}/line/{name}", reader, bases, expect="refuse")


def _file(base: Path) -> str:
    """A result whose gates can be drawn."""
    for path in sorted((base / "results").glob("*.json")):
        if json.loads(path.read_text())["spec"]["method"]["name"] == "vl-pet-large":
            return f"results/{path.name}"
    raise LookupError("no result with gates")


def _options(command: str) -> Iterator[tuple[str, str]]:
    """(option, kind of its values) of a command, as the command itself declares them."""
    import typer

    from pet_bench.cli import app

    found = typer.main.get_command(app)
    for word in command.split():
        found = found.commands[word]
    hints = get_type_hints(found.callback)
    for option in found.params:
        name = next((name for name in option.opts if name.startswith("--")), None)
        if name is None or option.name not in hints or getattr(option, "is_flag", False):
            continue
        types = set(_types(hints[option.name]))
        if name == "--set":
            kind = "set"
        elif types & {int, float}:
            kind = "number"
        elif any(isinstance(one, type) and issubclass(one, Enum) for one in types):
            kind = "choice"
        else:
            kind = "file" if Path in types else "name"
        yield name, kind


def _types(hint: Any) -> Iterator[Any]:
    """The types in `list[int] | None`."""
    for part in get_args(hint):
        yield from _types(part)
    yield hint


def _without(args: tuple[str, ...], option: str) -> tuple[str, ...]:
    """The arguments without an option that is about to be given anew."""
    if option in args:
        place = args.index(option)
        return args[:place] + args[place + 2 :]
    return args


def _free(command: str, option: str, kind: str, value: str) -> bool:
    """Whether a value may be well enough for an option."""
    if (command, option) in FREE or option in ("--ray-address", "--example", "--to"):
        return True
    if (option, value) == ("--index", "-1"):  # counted from the end
        return True
    return option == "--images" or (command == "show" and kind == "set")
