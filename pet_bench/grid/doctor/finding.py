"""What is found out about a place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pet_bench.grid.doctor.facts import Facts, Node

Wrong = Literal["caution", "fault"]
Level = Literal["ok", "caution", "fault"]
GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """A line. fault: trials would fail or be lost. caution: they would not, but it is hardly meant."""

    level: Level
    check: str
    text: str


@dataclass(frozen=True)
class Problem:
    """Of one node, or of none alone (""): what was found, and what is to be done."""

    level: Wrong
    text: str
    node: str = ""


def grouped(check: str, problems: Iterable[Problem], alone: str = "") -> Iterator[Finding]:
    """A finding for each problem, faults first, with the nodes that have it. alone: a name that needs not be said."""
    nodes: dict[tuple[Wrong, str], list[str]] = {}
    for problem in problems:
        nodes.setdefault((problem.level, problem.text), []).append(problem.node)
    for (level, text), names in sorted(nodes.items(), key=lambda item: item[0][0] != "fault"):
        where = ", ".join(dict.fromkeys(name for name in names if name and name != alone))
        yield Finding(level, check, f"{where}: {text}" if where else text)


def silence(facts: Facts, *asked: str) -> Iterator[Problem]:
    """What nodes did not answer of all that."""
    for node in [*facts.nodes, *([facts.here] if facts.cluster else [])]:
        for what, reason in node.silent.items():
            if what in asked:
                yield Problem("fault", f"says nothing of its {what}: {reason}", node.name)


def shown(names: Sequence[str], most: int = 3) -> str:
    """`a, b, c, … (12)`"""
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[:most])}, … ({len(names)})"


def gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"


def fitting(facts: Facts, cpus: float, gpus: float) -> Mapping[str, int]:
    """How many trials fit each node."""
    fit = {}
    for node in facts.nodes:
        needs = zip((cpus, gpus), hands_out(facts, node), strict=True)
        fit[node.name] = min((int(there / need) for need, there in needs if need), default=0)
    return fit


def hands_out(facts: Facts, node: Node) -> tuple[float, float]:
    """The cpus and gpus of a node: as Ray was told, or as Ray will find them."""
    if facts.cluster or node.machine is None:
        return node.cpus, node.gpus
    return float(node.machine.cores), float(len(node.machine.gpus))
