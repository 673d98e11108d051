"""Files: read strictly, one way for each kind, and written whole or not at all.

Readers raise `UserError` in one line that begins with `what`, the words by which a message calls the file. UTF-8 may
begin with a byte order mark. What a download left in a file's place, a Git LFS pointer or a web page, is called that.
"""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import yaml

from pet_bench.errors import UserError, shortened

BOM = b"\xef\xbb\xbf"
HEAD = 1024  # bytes that tell what a file is
DEPTH = 64  # of nested lists and mappings; nothing that is read here has ten
DIGITS = 64  # of an integer
NODES = 100_000  # of a YAML file, every alias counted as often as it is used
NAME_BYTES, PATH_BYTES = 255, 4096  # of a file or folder and of a path, in any file system


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


def is_file(path: Path | str) -> bool:
    """Whether there is such a file; of a name that no file can have, no."""
    return nameable(path) and Path(path).is_file()


def is_folder(path: Path | str) -> bool:
    """As `is_file`, of a folder."""
    return nameable(path) and Path(path).is_dir()


def nameable(path: Path | str) -> bool:
    """Whether a file can be called that: no part is too long for a file system, and none has a null byte."""
    text = os.fsencode(path)
    return b"\0" not in text and len(text) < PATH_BYTES and all(len(part) <= NAME_BYTES for part in text.split(b"/"))


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

    Raises UserError for a key given twice, a key that is no text or number, tags of anything else than text, numbers,
    lists and mappings (Python's, dates, binary), aliases that lead back to themselves, more than 100,000 values with
    those that aliases stand for, integers of more than 64 digits, numbers too large for a float, and nesting deeper
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


def dump_yaml(data: Any, **style: Any) -> str:
    """Plain data as YAML that `parse_yaml`, and readers of version 1.1, read back as it is."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, **style)


def _decoded(content: bytes, what: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{what} is not UTF-8 text: byte {error.start} is {content[error.start]:#04x}") from None


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {shortened(repr(key))} is given twice")
        found[key] = value
    return found


def _integer(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits (possible: {DIGITS})")
    return int(digits)


def _float(digits: str) -> float:
    text = digits.lower().removeprefix("+").replace(".nan", "nan").replace(".inf", "inf")
    if math.isinf(number := float(text)) and "inf" not in text:
        raise ValueError(f"{shortened(digits)} is too large for a float")
    return number


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
    if isinstance(value, float) and not math.isfinite(value):
        return f"no number, found {value}"
    if isinstance(value, str) and _HALF.search(value):
        return f"half of a surrogate pair in {shortened(ascii(value))}"
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


_Events = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where it is, reads several times as fast


def _bounded(text: str) -> None:
    """Nesting and aliases, seen before anything is built from them; raises ValueError."""
    open_, sizes, anchors = [], {}, []
    total = 0

    def close(size: int) -> None:
        if open_:
            open_[-1] += size

    for event in yaml.parse(text, Loader=_Events):
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
            raise ValueError(f"more than {NODES:,} values, aliases counted as often as they are used")


class _Loader(yaml.SafeLoader):
    """YAML's plain values as version 1.2 has them, in lists and in mappings whose keys are given once."""

    yaml_implicit_resolvers: ClassVar[dict] = {}  # none of version 1.1
    yaml_constructors: ClassVar[dict] = {
        f"tag:yaml.org,2002:{kind}": getattr(yaml.SafeLoader, f"construct_yaml_{kind}")
        for kind in ("str", "seq", "map")
    } | {None: yaml.SafeLoader.construct_undefined}

    def construct_mapping(self, node, deep=False):
        found = set()
        for place, _ in node.value:
            key = self.construct_object(place, deep=True)
            if not isinstance(key, str | int | float | None):
                problem = f"a key is text or a number, found {shortened(repr(key))}"
                raise yaml.constructor.ConstructorError(None, None, problem, place.start_mark)
            if key in found:
                problem = f'key "{shortened(str(key))}" is given twice'
                raise yaml.constructor.ConstructorError(None, None, problem, place.start_mark)
            found.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes what a reader of version 1.1 or of version 1.2 would take for something else than text."""

    yaml_implicit_resolvers: ClassVar[dict] = {
        key: [*kinds] for key, kinds in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }

    def ignore_aliases(self, data):
        return True


def _plain(kind: str, pattern: str, first: str, build: Callable[[str], Any]) -> None:
    """A kind of plain value: what it looks like, the characters that it begins with, and what it is made into."""
    tag, whole = f"tag:yaml.org,2002:{kind}", re.compile(f"(?:{pattern})$")

    def construct(loader: _Loader, node: yaml.Node) -> Any:
        text = loader.construct_scalar(node)
        try:
            if whole.match(text):
                return build(text)
            problem = f"{shortened(repr(text))} is no {kind}"
        except ValueError as error:
            problem = str(error)
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)

    _Loader.add_constructor(tag, construct)
    for reader in (_Loader, _Dumper):
        reader.add_implicit_resolver(tag, whole, [*first, *([""] if whole.match("") else [])])


_plain("bool", "true|True|TRUE|false|False|FALSE", "tTfF", lambda text: text.lower() == "true")
_plain("null", "~|null|Null|NULL|", "~nN", lambda text: None)
_plain("int", r"[-+]?[0-9]+", "-+0123456789", _integer)
_plain(
    "float",
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    "-+.0123456789",
    _float,
)
