"""The reference of the command line, of the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from tables import code, plain, table
from typer.main import get_command

from pet_bench.cli import app

INTRO = """\
# Command line

What `pet-bench COMMAND --help` says of every command. Exit codes: 0, done; 1, trials have failed; 2, the command is
wrong, each fault on a line of its own, before anything expensive; 130, interrupted. Every command takes
`--traceback`, which shows where a plug-in failed, and `-h` or `--help`.
"""
SHARED = {"--traceback"}
NAMES = {"str": "TEXT", "int": "INTEGER", "float": "NUMBER", "Path": "PATH", "bool": ""}


def page() -> str:
    return "\n".join([INTRO, *map("\n".join, map(_command, commands()))])


def commands() -> Iterator[tuple[str, Any]]:
    """Every command by what is typed, `pet-bench data check`, in the order of the help."""
    yield from _below("pet-bench", get_command(app))


def _below(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield path, command
    for name in getattr(command, "commands", {}):
        yield from _below(f"{path} {name}", command.get_command(None, name))


def _command(named: tuple[str, Any]) -> list[str]:
    path, command = named
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param not in arguments and not SHARED & {*param.opts}]
    usage = " ".join([path, *map(_usage, arguments), "[OPTIONS]"])
    parts = [f"## {path}\n", f"```text\n{usage}\n```\n", f"{plain(command.help or '')}\n"]
    if arguments:
        rows = ([code(_name(param)), _takes(param, words=True), _help(param)] for param in arguments)
        parts.append(table(["argument", "one of", "what"], rows))
    if options:
        rows = ([_spelled(param), _takes(param), _default(param), _help(param)] for param in options)
        parts.append(table(["option", "takes", "default", "what"], rows))
    return [*parts, *_examples(command.epilog)]


def _usage(argument: Any) -> str:
    name = _name(argument).removesuffix("...") + "..." * (argument.nargs == -1)
    return name if argument.required else f"[{name}]"


def _name(param: Any) -> str:
    return param.metavar or param.name.strip("_").upper()


def _spelled(param: Any) -> str:
    return ", ".join(map(code, [*param.opts, *param.secondary_opts]))


def _takes(param: Any, *, words: bool = False) -> str:
    """What stands behind an option: its own word, one of some words, or a kind of value; nothing behind a switch.

    words: nothing but words among which to choose.
    """
    if param.metavar and not words:
        return code(param.metavar)
    kind = _bare(param.type_descriptor.annotation)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(code(member.value) for member in kind)
    if get_origin(kind) is Literal:
        return ", ".join(map(code, get_args(kind)))
    if words:
        return ""
    least, most = param.min, param.max
    bounds = f" from {least}" * (least is not None) + f" to {most}" * (most is not None)
    return code(NAMES[kind.__name__]) + bounds


def _bare(kind: Any) -> Any:
    """Of `list[int] | None` the int."""
    while get_origin(kind) in (list, tuple, Union, UnionType):
        kind = next(one for one in get_args(kind) if one is not NoneType)
    return kind


def _default(param: Any) -> str:
    value = param.default
    if isinstance(value, Enum):
        value = value.value
    return "" if value is None or value is False or value == () else code(value)


def _help(param: Any) -> str:
    repeated = param.param_type_name == "option" and param.multiple and "repeatable" not in (param.help or "")
    needed = param.param_type_name == "option" and param.required
    return plain(param.help or "") + " Repeatable." * repeated + " Required." * needed


def _examples(epilog: str | None) -> Iterator[str]:
    lines = [line.strip("`") for line in (epilog or "").split("\n\n") if line.startswith("`")]
    if lines:
        yield "```text\n" + "\n".join(lines) + "\n```\n"
