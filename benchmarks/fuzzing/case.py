"""What a case is: a command, its files, one change to them, and what has to come of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

WORK = "WORK"  # in arguments: the folder of the case
Expect = Literal["refuse", "accept", "either"]
Change = Callable[[Path], object]


def nothing(path: Path) -> None:
    """The change of a case whose input is sound."""


@dataclass(frozen=True)
class Reader:
    """A command that reads a kind of input.

    codes: exit statuses of a refusal. said: words that, printed on its own standard output, tell of a fault as well as
    a refusal does. writes: what it may write, below the case's folder. cost: in units of the cheapest command, by which
    it is tried more seldom. understood: from the case's folder and its standard output, what it took the input to be.
    sound: whether it accepts the input as it is; one that does not (a grid's report before its run) can only crash.
    lenient: whether it may leave a fault to the commands that need what is at fault.
    """

    name: str
    args: tuple[str, ...]
    codes: frozenset[int] = frozenset({2})
    said: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    cost: float = 1.0
    understood: Callable[[Path, str], str] = lambda work, out: out
    sound: bool = True
    lenient: bool = False
    env: dict[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Mutation:
    """A change to the file or folder it is given, known to break its meaning (refuse), to keep it (accept) or not known
    to do either."""

    name: str
    change: Change
    expect: Expect = "refuse"


@dataclass(frozen=True)
class Case:
    """One try. base: folders and files of the sound inputs that are copied to its folder. target: what is changed.

    check: looks at the output and the exit status afterwards and returns what is wrong with them, "" for nothing.
    """

    kind: str
    name: str
    reader: Reader
    base: tuple[str, ...] = ()
    target: str = "."
    change: Change = nothing
    expect: Expect = "accept"
    check: Callable[[str, int], str] = lambda output, exit: ""

    @property
    def sound(self) -> str:
        """Name of the case with the same reader and no change."""
        return f"{self.kind}/sound/{self.reader.name}"


def product(
    kind: str,
    base: Iterable[str],
    target: str,
    mutations: Iterable[Mutation],
    readers: Iterable[Reader],
    place: str = "",
) -> Iterator[Case]:
    """A case for each mutation of a target and each reader."""
    place = place or target
    for mutation in mutations:
        for reader in readers:
            expect = mutation.expect
            if not reader.sound or (reader.lenient and expect == "refuse"):
                expect = "either"
            name = f"{kind}/{place}/{mutation.name}/{reader.name}"
            yield Case(kind, name, reader, tuple(base), target, mutation.change, expect)


def sound(kind: str, base: Iterable[str], readers: Iterable[Reader]) -> Iterator[Case]:
    """The cases without a change, which must be accepted: without them a refusal would show nothing."""
    for reader in readers:
        case = Case(kind, "", reader, tuple(base), expect="accept" if reader.sound else "either")
        yield replace(case, name=case.sound)


def sample(cases: list[Case], n: int, draw: random.Random) -> list[Case]:
    """n of the cases, the costly less often, spread evenly over what is changed, in how it is changed."""
    rank = {}
    for case in sorted(cases, key=lambda case: case.name):
        rank[case] = draw.random() ** case.reader.cost  # of equal costs any n are as likely as any other
    return sorted(cases, key=rank.__getitem__, reverse=True)[:n]
