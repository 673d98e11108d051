"""Which nodes there are, whether they reach one another, and what time it is there."""

from __future__ import annotations

from collections.abc import Iterator

from pet_bench.grid.doctor.asked import Asked
from pet_bench.grid.doctor.examine import CLOCK, PORTS
from pet_bench.grid.doctor.facts import Facts
from pet_bench.grid.doctor.finding import Problem, silence
from pet_bench.grid.doctor.nodes import STARTED

LATE, WRONG = 1.0, 10.0  # seconds that a clock may be off, for a caution and for a fault; stamps are whole seconds


def nodes(facts: Facts, asked: Asked) -> Iterator[Problem]:
    for name, reason in facts.lost.items():
        yield Problem("fault", f"is gone ({reason}); start Ray there again", name)
    if asked.nodes and len(facts.nodes) < asked.nodes:
        yield Problem("fault", f"{len(facts.nodes)} nodes are there, {asked.nodes} are to be (--nodes)")
    for node in facts.nodes:
        if STARTED in node.silent:
            text = f"starts no process: {node.silent[STARTED]}; see Ray's logs there"
            yield Problem("fault", text, node.name)


def nodes_fine(facts: Facts, asked: Asked) -> str:
    return f"{len(facts.nodes)} answer: {', '.join(node.name for node in facts.nodes)}"


def ports(facts: Facts, asked: Asked) -> Iterator[Problem]:
    yield from silence(facts, PORTS)
    for node in facts.nodes:
        reasons: dict[str, list[str]] = {}
        for other, reason in node.reached.items():
            if reason:
                reasons.setdefault(reason, []).append(other)
        for reason, others in reasons.items():
            text = f"does not reach {', '.join(others)}: {reason}; all TCP ports must be open between nodes"
            yield Problem("fault", text, node.name)


def ports_fine(facts: Facts, asked: Asked) -> str:
    return "each node reaches each other one, on a port that the system chose"


def clock(facts: Facts, asked: Asked) -> Iterator[Problem]:
    yield from silence(facts, CLOCK)
    for node in facts.nodes:
        if node.clock is None:
            continue
        off = max(0.0, abs(node.clock.ahead) - node.clock.within)
        which = "ahead of" if node.clock.ahead > 0 else "behind"
        said = f"its clock is {off:.1f} s {which} this one's; results say when they were made: set it (NTP)"
        if off > LATE:
            yield Problem("fault" if off > WRONG else "caution", said, node.name)
        elif node.clock.within > LATE:
            yield Problem("caution", f"its clock can only be read within {node.clock.within:.1f} s", node.name)


def clock_fine(facts: Facts, asked: Asked) -> str:
    off = max((abs(node.clock.ahead) + node.clock.within for node in facts.nodes if node.clock), default=0.0)
    return f"at most {off:.2f} s apart ({LATE:g} s is nothing, {WRONG:g} s too much)"
