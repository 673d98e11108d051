"""One colour, marker and line style for each method: in every figure and on the page, whatever else is shown there.

They follow from the name alone. Methods that the literature knows have a pair each (`results/published/methods.yaml`);
any other name (a plug-in's, `lora(rank=8)`) falls on one of the pairs that are left, where two of them can meet, so
that figures name what they draw as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, reduce
from typing import Literal, get_args

from pet_bench.report.published import methods

# Okabe and Ito's colours but yellow, and two dark ones of Paul Tol's, from dark to light: told apart when colour-blind
PALETTE = {
    "black": "#000000", "indigo": "#332288", "wine": "#882255", "blue": "#0072B2", "vermillion": "#D55E00",
    "green": "#009E73", "purple": "#CC79A7", "sky": "#56B4E9", "orange": "#E69F00",
}  # fmt: skip
COLORS = tuple(PALETTE.values())
# instead, where the paper is dark
ON_DARK = {PALETTE["black"]: "#f4f4f4", PALETTE["indigo"]: "#9b8cf2", PALETTE["wine"]: "#d8588c"}
MARKERS = "^vXPoD<*s>phd"
Dash = Literal["-", "--", ":", "-."]
DASHES: tuple[Dash, ...] = get_args(Dash)
# numbers of colours and of markers have no common divisor: every pair is here once, and neighbours differ in both
PAIRS = [(COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]) for i in range(len(COLORS) * len(MARKERS))]
Pair = tuple[str, str]  # a colour, of the palette or as `#rrggbb`, and a marker


@dataclass(frozen=True)
class Mark:
    """How a method is drawn: a colour as `#rrggbb`, a marker and a line style of matplotlib's."""

    color: str
    marker: str

    @property
    def dash(self) -> Dash:
        return DASHES[MARKERS.index(self.marker) % len(DASHES)]

    @property
    def size(self) -> float:
        """How much larger it must be drawn to look as large as the others."""
        return {"*": 1.6}.get(self.marker, 1.15 if self.marker in "^v<>XPd" else 1.0)


OTHERS = Mark("#b5b5b5", "o")  # those that only surround what is meant


@cache
def known() -> dict[str, Pair]:
    """The pairs of the methods that the literature knows."""
    return {method: _pair(about["mark"]) for method, about in methods().items()}


@cache
def free() -> list[Pair]:
    """The pairs that no method of the literature has, but for a few, so that their number is a prime."""
    pairs = [pair for pair in PAIRS if pair not in known().values()]
    prime = next(n for n in range(len(pairs), 1, -1) if all(n % i for i in range(2, n)))
    return pairs[:prime]


def mark_of(name: str, given: Mapping[str, Pair] = {}) -> Mark:
    """The mark of a method, by its name in tables. given: marks that go before, as a style has them."""
    if name in given:
        return Mark(*_pair(given[name]))
    return Mark(*(known().get(name) or free()[_place(name)]))


def marks_apart(names: Iterable[str]) -> list[Mark]:
    """A mark for each of some lines that are no methods and stand in one panel alone: no two the same."""
    marks: list[Mark] = []
    for name in names:
        others = (Mark(*free()[(_place(name) + step) % len(free())]) for step in range(len(free())))
        marks.append(next(mark for mark in (mark_of(name), *others) if mark not in marks))
    return marks


def _pair(pair: Iterable[str]) -> Pair:
    color, marker = pair
    return PALETTE.get(color, color), marker


def _place(name: str) -> int:
    """A hash that sets names apart which differ in one digit: modulo a prime."""
    return reduce(lambda place, letter: (45 * place + ord(letter)) % len(free()), name, 0)
