"""Files: read strictly, one way for each kind, and written whole or not at all.

Readers raise `UserError` in one line that begins with `what`, the words by which a message calls the file. UTF-8 may
begin with a byte order mark. What a download left in a file's place, a Git LFS pointer or a web page, is called that.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar

import yaml

from pet_bench.errors import UserError

BOM = b"\xef\xbb\xbf"
HEAD = 1024  # bytes that tell what a file is
DEPTH = 64  # of nested lists and mappings; nothing that is read here has ten
DIGITS = 64  # of an integer
NODES = 1_000_000  # of a YAML file, every alias counted as often as it is used


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a whole file or nothing: what goes to the temporary file given, beside it, is flushed to disk and renamed.

    A process that is killed may leave `.<name>.<letters>` behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)  # mkstemp is private to its user; a result is as readable as any other file
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a whole text file or nothing."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def impostor(head: bytes) -> str | None:
    """What a file is that begins so, where it is none of what its name says: a pointer or a page in its place."""
    start = head.removeprefix(BOM).lstrip()[:256].lower()
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`"
    if start.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head", b"<!--")):
        return "is a web page saved under that name, not the file itself: download it again"
    return None


def impostor_at(path: Path) -> str | None:
    """As `impostor`, of the file that is there; None where it cannot be read, which its reader says."""
    try:
        with path.open("rb") as file:
            return impostor(file.read(HEAD))
    except (OSError, ValueError):
        return None


def read_bytes(path: Path, what: str) -> bytes:
    """The content without its byte order mark; raises UserError where it cannot be read or is an `impostor`."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{what} is missing") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{what} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if found := impostor(content[:HEAD]):
        raise UserError(f"{what} {found}")
    return content.removeprefix(BOM)


def read_text(path: Path, what: str) -> str:
    """As `read_bytes`, of text in UTF-8."""
    return _decoded(read_bytes(path, what), what)


def read_json(path: Path, what: str) -> Any:
    """As `parse_json`, of a file."""
    return parse_json(read_bytes(path, what), what)


def read_yaml(path: Path, what: str) -> Any:
    """As `parse_yaml`, of a file."""
    return parse_yaml(read_text(path, what), what)


def parse_json(content: str | bytes, what: str) -> Any:
    """As `decode_json`; raises UserError."""
    text = _decoded(content.removeprefix(BOM), what) if isinstance(content, bytes) else content
    try:
        return decode_json(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{what} cannot be read (half-written?): {error}") from None
    except ValueError as error:
        raise UserError(f"{what} is not valid JSON: {error}") from None


def decode_json(text: str) -> Any:
    """JSON to the letter of its standard.

    Raises ValueError for a key given twice, NaN and infinities, integers of more than 64 digits, half a surrogate pair
    and nesting deeper than 64; its kind JSONDecodeError for what is no JSON at all.
    """
    value, end = json_value(text, _SPACE.match(text).end())
    if (rest := _SPACE.match(text, end).end()) < len(text):
        raise json.JSONDecodeError("Extra data", text, rest)
    return value


def json_value(text: str, at: int) -> tuple[Any, int]:
    """The value that begins at this place of a text, and where it ends; raises as `decode_json`."""
    try:
        value, end = _DECODER.raw_decode(text, at)
    except RecursionError:
        raise ValueError(f"nested too deeply (possible: {DEPTH} levels)") from None
    _check(value)
    return value, end


def parse_yaml(text: str, what: str) -> Any:
    """YAML as its version 1.2 reads it: `off`, `no` and `1:30` are text, `1e-3` is a number, 010 is ten.

    Raises UserError for a key given twice, a key that is no text or number, tags of Python's, dates, aliases that lead
    back to themselves or stand for more than a million nodes, integers of more than 64 digits, and nesting deeper
    than 64.
    """
    try:
        _bounded(text)
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        place = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UserError(f"{what}: {place}{error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{what} is not valid YAML: {error}") from None


def _decoded(content: bytes, what: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{what} is not UTF-8 text: byte {error.start} is {content[error.start]:#04x}") from None


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise ValueError(f"key {next(key for key, count in counts.items() if count > 1)!r} is given twice")
    return found


def _integer(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits (possible: {DIGITS})")
    return int(digits)


_DECODER = json.JSONDecoder(object_pairs_hook=_mapping, parse_int=_integer)
_SPACE = re.compile(r"[ \t\n\r]*")


def _check(data: Any) -> None:
    """Depth, NaN, numbers that overflow (1e999) and halves of surrogate pairs; without recursion."""
    level, depth = [data], 0
    while level:
        depth += 1
        if depth > DEPTH:
            raise ValueError(f"nested too deeply (possible: {DEPTH} levels)")
        below = []
        for value in level:
            if isinstance(value, dict):
                below += [*value, *value.values()]
            elif isinstance(value, list):
                below += value
            elif (isinstance(value, float) or (isinstance(value, str) and not value.isascii())) and _fault(value):
                raise ValueError(f"{_place_of_fault(data)}{_fault(value)}")
        level = below


def _fault(value: Any) -> str | None:
    """What is wrong with a number or a text."""
    if isinstance(value, float) and not isfinite(value):
        return f"no number, found {value}"
    if isinstance(value, str) and _HALF.search(value):
        return f"half of a surrogate pair in {value[:40]!a}"
    return None


def _place_of_fault(data: Any) -> str:
    """Where the first fault is: `row 3.label.yes: `."""
    left = [("", data)]
    while left:
        place, value = left.pop()
        if isinstance(value, dict):
            left += [(f"{place}{key}.", item) for key, item in reversed(value.items())]
            left += [(place, key) for key in value]
        elif isinstance(value, list):
            left += [(f"{place}row {number}.", item) for number, item in reversed([*enumerate(value)])]
        elif _fault(value):
            return f"{place.removesuffix('.')}: " if place else ""
    return ""


_HALF = re.compile("[\ud800-\udfff]")


def _bounded(text: str) -> None:
    """Nesting and aliases, seen before anything is built from them; raises ValueError."""
    open_, sizes, anchors = [], {}, []
    total = 0

    def close(size: int) -> None:
        if open_:
            open_[-1] += size

    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append(1)
            anchors.append(event.anchor)
            if len(open_) > DEPTH:
                raise ValueError(f"nested too deeply (possible: {DEPTH} levels)")
        elif isinstance(event, yaml.CollectionEndEvent):
            size, anchor = open_.pop(), anchors.pop()
            sizes[anchor] = size
            close(size)
            total = size
        elif isinstance(event, yaml.ScalarEvent):
            sizes[event.anchor] = 1
            close(1)
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in anchors:
                raise ValueError(f"alias *{event.anchor} leads back to itself")
            close(sizes.get(event.anchor, 1))
        if max(total, *open_, 0) > NODES:
            raise ValueError(f"its aliases stand for more than {NODES:,} values")


class _Loader(yaml.SafeLoader):
    """Safe YAML with version 1.2's plain values, which refuses a key given twice."""

    yaml_implicit_resolvers: ClassVar[dict] = {}  # none of version 1.1

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key, (place, _) in zip(keys, node.value, strict=True):
            if not isinstance(key, str | int | float | None):
                problem = f"a key is text or a number, found {key!r}"
                raise yaml.constructor.ConstructorError(None, None, problem, place.start_mark)
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f'key "{key}" is given twice', place.start_mark)
        return super().construct_mapping(node, deep)


def _plain(tag: str, pattern: str, first: str, build: Callable[[str], Any]) -> None:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"(?:{pattern})$"), list(first))
    _Loader.add_constructor(f"tag:yaml.org,2002:{tag}", lambda loader, node: build(loader.construct_scalar(node)))


_plain("bool", "true|True|TRUE|false|False|FALSE", "tTfF", lambda text: text.lower() == "true")
_plain("null", "~|null|Null|NULL|", "~nN", lambda text: None)
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("$"), [""])
_plain("int", r"[-+]?[0-9]+", "-+0123456789", _integer)
_plain(
    "float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    "-+.0123456789", lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
)  # fmt: skip
