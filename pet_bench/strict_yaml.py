"""YAML as its version 1.2 reads it, in plain values only; ruamel.yaml parses, and what a value may be is said here.

`off`, `no` and `1:30` are text, `1e-3` is a number, 010 is ten.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import MaxDepthExceededError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.representer import SafeRepresenter
from ruamel.yaml.resolver import BaseResolver, implicit_resolvers

from pet_bench.errors import UserError, shortened
from pet_bench.strict_json import DEPTH, integer

NODES = 100_000  # of a file, every alias counted as often as it is used
TAG = "tag:yaml.org,2002:"


def parse_yaml(text: str, what: str) -> Any:
    """The value of a document; messages call it `what`.

    Raises UserError for what is no YAML, a key given twice, a key that is no text or number, tags of anything else than
    text, numbers, lists and mappings (Python's, dates, binary), aliases that lead back to themselves, more than 100,000
    values with those that aliases stand for, integers of more than 64 digits, numbers too large for a float, and
    nesting deeper than 64.
    """
    yaml = _yaml(_Resolver)
    yaml.max_depth = DEPTH
    yaml.composer.warn_double_anchors = False  # an anchor may be set anew
    try:
        document = yaml.compose(text)
        return None if document is None else _Values().of(document)
    except MarkedYAMLError as error:
        problem = _TOO_DEEP if isinstance(error, MaxDepthExceededError) else error.problem or error.context
        place = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UserError(f"{what}: {place}{problem}") from None
    except YAMLError as error:
        raise UserError(f"{what} is not valid YAML: {error}") from None


def dump_yaml(data: Any, *, width: int = 80, allow_unicode: bool = False) -> str:
    """Plain data as YAML that `parse_yaml`, and readers of version 1.1, read back as it is."""
    yaml, text = _yaml(_Cautious), io.StringIO()
    yaml.Representer = _Representer
    yaml.default_flow_style, yaml.width, yaml.allow_unicode = False, width, allow_unicode
    yaml.representer.sort_base_mapping_type_on_output = False
    yaml.dump(data, text)
    return text.getvalue()


def _yaml(resolver: type[BaseResolver]) -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.Resolver = resolver
    return yaml


# reading -------------------------------------------------------------------------------------------------------------


class _Values:
    """What the nodes of one document stand for."""

    def __init__(self):
        self.seen = 0
        self.open: dict[int, Node] = {}  # the lists and mappings around

    def of(self, node: Node) -> Any:
        self.seen += 1
        if self.seen > NODES:
            raise _fault(node, f"more than {NODES:,} values, aliases counted as often as they are used")
        if isinstance(node, ScalarNode):
            return _scalar(node)
        if id(node) in self.open:
            raise _fault(node, f"alias *{node.anchor} leads back to itself")
        if len(self.open) == DEPTH:
            raise _fault(node, _TOO_DEEP)
        self.open[id(node)] = node
        value = self._collection(node)
        del self.open[id(node)]
        return value

    def _collection(self, node: Node) -> Any:
        if isinstance(node, SequenceNode) and node.tag == f"{TAG}seq":
            return [self.of(item) for item in node.value]
        if not isinstance(node, MappingNode) or node.tag != f"{TAG}map":
            raise _strange(node)
        mapping: dict[Any, Any] = {}
        for place, item in node.value:
            key = self.of(place)
            if not isinstance(key, str | int | float | None):
                raise _fault(place, f"a key is text or a number, found {shortened(repr(key))}")
            if key in mapping:
                raise _fault(place, f'key "{shortened(str(key))}" is given twice')
            mapping[key] = self.of(item)
        return mapping


def _scalar(node: ScalarNode) -> Any:
    kind, text = str(node.tag).removeprefix(TAG), node.value
    if kind == "str":
        return text
    if kind not in PLAIN:
        raise _strange(node)
    pattern, _, build = PLAIN[kind]
    if not re.fullmatch(pattern, text):
        raise _fault(node, f"{shortened(repr(text))} is no {kind}")
    try:
        return build(text)
    except ValueError as error:
        raise _fault(node, str(error)) from None


def _fault(node: Node, problem: str) -> MarkedYAMLError:
    return MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _strange(node: Node) -> MarkedYAMLError:
    return _fault(node, f"tag {shortened(str(node.tag))!r} is none of text, number, list or mapping")


def _float(digits: str) -> float:
    text = digits.lower().removeprefix("+").replace(".nan", "nan").replace(".inf", "inf")
    if math.isinf(number := float(text)) and "inf" not in text:
        raise ValueError(f"{shortened(digits)} is too large for a float")
    return number


_TOO_DEEP = f"nested too deeply (possible: {DEPTH} levels)"

# kinds of plain values: what they look like, the characters that they begin with, and what is made of them
PLAIN: dict[str, tuple[str, list[str], Callable[[str], Any]]] = {
    "bool": ("true|True|TRUE|false|False|FALSE", [*"tTfF"], lambda text: text.lower() == "true"),
    "null": ("~|null|Null|NULL|", ["", *"~nN"], lambda text: None),
    "int": (r"[-+]?[0-9]+", [*"-+0123456789"], integer),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        [*"-+.0123456789"],
        _float,
    ),
}


class _Resolver(BaseResolver):
    """Takes a plain value for what `PLAIN` says."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, version: Any = None, loader: Any = None, loadumper: Any = None):
        super().__init__(loader or loadumper)

    @property
    def processing_version(self) -> tuple[int, int]:
        return 1, 2


# writing -------------------------------------------------------------------------------------------------------------


class _Cautious(_Resolver):
    """Takes a plain value also for what readers of versions 1.1 and 1.2 do: text that looks so is quoted."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012


for _versions, tag, looks, first in implicit_resolvers:
    _Cautious.add_implicit_resolver_base(tag, looks, first)
for kind, (pattern, first, _build) in PLAIN.items():
    for resolver in (_Resolver, _Cautious):
        resolver.add_implicit_resolver_base(f"{TAG}{kind}", re.compile(f"(?:{pattern})$"), first)


class _Representer(SafeRepresenter):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_float(self, data: float) -> ScalarNode:
        """With a point: 1e22 is text in version 1.1."""
        text = repr(data)
        if math.isfinite(data) and "." not in text:
            return self.represent_scalar(f"{TAG}float", text.replace("e", ".0e"))
        return super().represent_float(data)


_Representer.add_representer(float, _Representer.represent_float)
