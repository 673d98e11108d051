"""Changes to files: of values in JSON and YAML trees, of text, and of bytes."""

from __future__ import annotations

import copy
import gzip
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from fuzzing.case import Expect, Mutation

BOM = b"\xef\xbb\xbf"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 57671\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>404</title></head><body>Not found</body></html>\n"


class Raw(str):
    """Text that stands in a document as it is."""


def emit(value: Any) -> str:
    """JSON (and YAML in its flow style) of a tree that may hold `Raw` parts."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{emit(key)}: {emit(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(emit, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


# trees ---------------------------------------------------------------------------------------------------------------

NUMBERS = {
    "bool": True, "text": "x", "numeral": "3", "list": [1], "mapping": {}, "null": None, "nan": Raw("NaN"),
    "infinite": Raw("-Infinity"), "overflow": Raw("1e999"), "digits": Raw("9" * 400), "negative": -1,
}  # fmt: skip
TEXTS = {
    "number": 5, "bool": False, "null": None, "list": ["x"], "mapping": {"x": 1}, "surrogate": Raw('"\\ud83d"'),
    "empty": "", "long": "x" * 10_000, "lines": "a\nb", "slash": "../../x",
}  # fmt: skip
BOOLS = {"number": 1, "text": "yes", "null": None, "list": [], "off": Raw('"off"')}
LISTS = {"mapping": {}, "text": "x", "number": 5, "null": None, "empty": [], "bool": True}
MAPPINGS = {"list": [], "text": "x", "number": 5, "null": None, "empty": {}, "deep": Raw("[" * 5000 + "]" * 5000)}
NULLS = {"list": [], "mapping": {}, "nan": Raw("NaN")}


class Rule(NamedTuple):
    """What is expected of changes named `change` at `place`, both as patterns; the first that fits decides."""

    place: str
    change: str
    expect: Expect


def expected(rules: Iterable[Rule], place: str, change: str) -> Expect:
    fits = (rule.expect for rule in rules if fnmatchcase(place, rule.place) and fnmatchcase(change, rule.change))
    return next(fits, "refuse")


def places(tree: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """Every node of a tree with its path; of a list the first and the last item stand for all."""
    yield path, tree
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from places(value, (*path, key))
    elif isinstance(tree, list):
        for index in sorted({0, len(tree) - 1} & set(range(len(tree)))):
            yield from places(tree[index], (*path, index))


def values_for(value: Any) -> dict[str, Any]:
    if value is None:
        return NULLS
    kinds = ((bool, BOOLS), (int | float, NUMBERS), (str, TEXTS), (list, LISTS), (dict, MAPPINGS))
    return next(values for kind, values in kinds if isinstance(value, kind))


def replaced(tree: Any, path: tuple, change: Callable[[Any, Any], None]) -> Any:
    """A copy in which `change(parent, key)` has been made at the path."""
    tree = copy.deepcopy(tree)
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    change(parent, path[-1])
    return tree


def _rename(parent: dict, key: Any) -> None:
    items = [(f"{name}s" if name == key else name, value) for name, value in parent.items()]
    parent.clear()
    parent.update(items)


def _double(parent: dict, key: Any) -> None:
    parent[key] = Raw(f"{emit(parent[key])}, {json.dumps(key)}: {emit(parent[key])}")


def _again(parent: Any, key: Any) -> None:
    parent[key] = [*parent[key], parent[key][-1]]


def tree_changes(
    tree: Any, rules: Iterable[Rule], values: dict[str, dict] | None = None
) -> Iterator[tuple[str, Callable[[], Any], Expect]]:
    """(name, what makes the changed tree, what to expect of it) of every change of one value or key.

    values: more to put in place of what is there, by the pattern of its place.
    """
    rules, more = list(rules), values or {}
    for path, value in places(tree):
        if not path:
            continue
        place = ".".join(map(str, path))
        found: dict[str, Callable[[Any, Any], None]] = {}
        bad = values_for(value) | {
            k: v for pattern, them in more.items() if fnmatchcase(place, pattern) for k, v in them.items()
        }
        for name, new in bad.items():
            if isinstance(new, Raw) or new != value or type(new) is not type(value):
                found[name] = lambda parent, key, new=new: parent.__setitem__(key, new)
        if isinstance(path[-1], str):
            found |= {"dropped": lambda parent, key: parent.pop(key), "renamed": _rename, "doubled": _double}
        if isinstance(value, dict):
            found["junk"] = lambda parent, key: parent[key].update(junk=1)
        if isinstance(value, list) and value:
            found["again"] = _again
            found["odd"] = lambda parent, key: parent[key].append({"x": None})
        for name, change in found.items():
            yield f"{place}={name}", partial(replaced, tree, path, change), expected(rules, place, name)


def written(text: str | Callable[[], str]) -> Callable[[Path], object]:
    """The change that makes a file this text (zipped where its name says so)."""

    def change(path: Path) -> None:
        content = (text if isinstance(text, str) else text()).encode("utf-8", "surrogatepass")
        path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)

    return change


def tree(content: Any, rules: Iterable[Rule] = (), values: dict[str, dict] | None = None) -> Iterator[Mutation]:
    """Mutations of a file that holds one document."""
    for name, changed, expect in tree_changes(content, rules, values):
        yield Mutation(name, written(lambda changed=changed: emit(changed())), expect)


def rows(content: list, index: int, rules: Iterable[Rule] = ()) -> Iterator[Mutation]:
    """Mutations of one row of a file that holds a document a line, and of the rows as such."""

    def around(row: Any) -> str:
        return "".join(emit(row) + "\n" for row in (*content[:index], row, *content[index + 1 :]))

    for name, changed, expect in tree_changes(content[index], rules):
        yield Mutation(name, written(lambda changed=changed: around(changed())), expect)
    for name, row in {"null": None, "number": 5, "list": [], "text": "x", "half": Raw('{"a": ')}.items():
        yield Mutation(f"row={name}", written(partial(around, row)))
    again = Raw(f"{emit(content[index])}\n{emit(content[index])}")
    yield Mutation("row=again", written(partial(around, again)), expected(rules, "row", "again"))


# files ---------------------------------------------------------------------------------------------------------------


def on_bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(change(path.read_bytes()))


def _inside(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """A change of what is zipped in a file whose name says that it is."""

    def made(path: Path) -> None:
        content = path.read_bytes()
        if path.suffix == ".gz":
            path.write_bytes(gzip.compress(change(gzip.decompress(content)), mtime=0))
        else:
            path.write_bytes(change(content))

    return made


def _removed(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _link(target: str) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        path.unlink()
        path.symlink_to(target)

    return change


def missing(expect: Expect = "refuse") -> Mutation:
    return Mutation("missing", _removed, expect)


def whole(expect: Expect = "refuse") -> list[Mutation]:
    """What can lie in the place of any file at all, a binary one too."""
    return [
        Mutation("vacant", on_bytes(lambda content: b""), expect),
        Mutation("cut", on_bytes(lambda content: content[: len(content) // 2]), expect),
        Mutation("pointer", on_bytes(lambda content: POINTER), expect),
        Mutation("page", on_bytes(lambda content: PAGE), expect),
        Mutation("noise", on_bytes(lambda content: bytes(range(256)) * 8), expect),
        Mutation("folder", _folder, expect),
        Mutation("dangling", _link("nowhere"), expect),
        Mutation("circular", lambda path: _link(path.name)(path), expect),
        Mutation("head", on_bytes(lambda content: bytes(64) + content[64:]), expect),
    ]


def text(expect: Expect = "refuse") -> list[Mutation]:
    """What can lie in the place of a JSON file, or of one with a document a line, and what must not matter."""
    return [
        *whole(expect),
        Mutation("mark", _inside(lambda content: BOM + content), "accept"),
        Mutation("space", _inside(lambda content: b" \n\n "), expect),
        Mutation("utf-16", _inside(lambda content: content.decode().encode("utf-16")), expect),
        Mutation("latin-1", _inside(lambda content: content.replace(b'"', b'"\xe9', 1)), expect),
        Mutation("null byte", _inside(lambda content: content + b"\0"), expect),
        Mutation("tail", _inside(lambda content: content + b"}"), expect),
        Mutation("deep", _inside(lambda content: b"[" * 100_000 + b"]" * 100_000), expect),
        Mutation("deep mapping", _inside(lambda content: b'{"a":' * 5000 + b"1" + b"}" * 5000), expect),
        Mutation("number", _inside(lambda content: b"5"), expect),
        Mutation("null", _inside(lambda content: b"null"), expect),
        Mutation("words", _inside(lambda content: b'"x"'), expect),
        Mutation("list", _inside(lambda content: b"[[1]]"), expect),
        Mutation("mapping", _inside(lambda content: b'{"x": [1]}'), expect),
    ]


def flipped(expect: Expect = "either", at: Iterable[float] = (0.02, 0.3, 0.5, 0.7, 0.98)) -> list[Mutation]:
    """One byte turned over, at fractions of a file's length."""

    def change(fraction: float) -> Callable[[bytes], bytes]:
        def flip(content: bytes) -> bytes:
            place = int(fraction * len(content))
            return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]

        return flip

    return [Mutation(f"flip {fraction}", on_bytes(change(fraction)), expect) for fraction in at]
