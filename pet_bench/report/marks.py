"""One colour, marker and line style for each method: in every figure and on the page, whatever else is shown there.

They follow from the name alone. In VL-PET's families the colour says what is gated and the marker with which gate;
other known methods have a pair each; any other name (a plug-in's, `lora(rank=8)`) falls on one of the pairs that are
left, where two of them can meet, so that figures name what they draw as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

# Okabe and Ito's colours but yellow, and two dark ones of Paul Tol's, from dark to light: told apart when colour-blind
BLACK, INDIGO, WINE, BLUE, VERMILLION = "#000000", "#332288", "#882255", "#0072B2", "#D55E00"
GREEN, PURPLE, SKY, ORANGE = "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
COLORS = (BLACK, INDIGO, WINE, BLUE, VERMILLION, GREEN, PURPLE, SKY, ORANGE)
ON_DARK = {BLACK: "#f4f4f4", INDIGO: "#9b8cf2", WINE: "#d8588c"}  # instead, where the paper is dark
MARKERS = "^vXPoD<*s>phd"
DASHES = ("-", "--", ":", "-.")
FAMILIES = {"vl-pet": INDIGO, "vl-adapter": VERMILLION, "compacter": SKY}
GATES = {"": "o", "small": "v", "middle-x": "X", "middle-y": "P", "large": "^"}
# who shares a marker is as far apart in lightness: a grey copy tells all of these apart
KNOWN = {
    **{family: (color, GATES[""]) for family, color in FAMILIES.items()},
    "full": (BLACK, "s"), "lora": (GREEN, "s"), "dora": (ORANGE, "s"),
    "projector-only": (BLACK, "D"), "lst": (WINE, "D"), "adapter": (GREEN, "D"), "prompt-tuning": (ORANGE, "D"),
    "bitfit": (WINE, "<"), "parallel-adapter": (GREEN, "<"), "prefix-tuning": (ORANGE, "<"),
    "design": (BLACK, "*"), "hyperformer": (PURPLE, "*"), "ia3": (WINE, "*"),
    **{f"{family}{'-' if family == 'vl-pet' else '+'}{gate}": (color, marker)
       for family, color in FAMILIES.items() for gate, marker in GATES.items() if gate},
}  # fmt: skip
# numbers of colours and of markers have no common divisor: every pair is here once, and neighbours differ in both
PAIRS = [(COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]) for i in range(len(COLORS) * len(MARKERS))]
FREE = [pair for pair in PAIRS if pair not in KNOWN.values()]


@dataclass(frozen=True)
class Mark:
    """How a method is drawn: a colour as `#rrggbb`, a marker and a line style of matplotlib's."""

    color: str
    marker: str

    @property
    def dash(self) -> str:
        return DASHES[MARKERS.index(self.marker) % len(DASHES)]

    @property
    def size(self) -> float:
        """How much larger it must be drawn to look as large as the others."""
        return {"*": 1.6}.get(self.marker, 1.15 if self.marker in "^v<>XPd" else 1.0)


OTHERS = Mark("#b5b5b5", "o")  # those that only surround what is meant


def mark_of(name: str) -> Mark:
    """The mark of a method, by its name in tables."""
    return Mark(*(KNOWN.get(name) or FREE[_place(name)]))


def marks_apart(names: Iterable[str]) -> list[Mark]:
    """A mark for each of some lines that are no methods and stand in one panel alone: no two the same."""
    found: list[Mark] = []
    for name in names:
        others = (Mark(*FREE[(_place(name) + step) % len(FREE)]) for step in range(len(FREE)))
        found.append(next(mark for mark in (mark_of(name), *others) if mark not in found))
    return found


def _place(name: str) -> int:
    """A hash that sets names apart which differ in one digit: modulo a prime."""
    return reduce(lambda place, letter: (45 * place + ord(letter)) % len(FREE), name, 0)
