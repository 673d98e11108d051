"""What is asked of the machines of a place, in which order."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from pet_bench.grid.doctor.agent import Agent
from pet_bench.grid.doctor.asked import VARIABLES, Asked
from pet_bench.grid.doctor.facts import Clock, Content, Facts, Machine, Node, Packages
from pet_bench.grid.doctor.nodes import STARTED, Call, Nodes, locally
from pet_bench.grid.doctor.shared import HERE, RESULTS, share

PINGS = 9  # of a clock, of which the quickest counts
MACHINE, PACKAGES, DATA, CLOCK, PORTS = "machine", "packages", "data", "clock", "ports"


@dataclass(frozen=True)
class Place:
    """A cluster: agents, addresses, and what Ray hands out (cpus, gpus), by node. lost: why others are gone."""

    calls: Mapping[str, Call]
    addresses: Mapping[str, str]
    resources: Mapping[str, tuple[float, float]]
    lost: Mapping[str, str] = field(default_factory=dict)


def examine(asked: Asked, place: Place | None = None) -> Facts:
    """The facts of a cluster, or of this machine alone; of what does not answer, that it does not."""
    here = Nodes({HERE: locally(Agent())}, asked.seconds)
    own = _said(here, asked, {HERE: 0.0})[HERE]
    if place is None:
        found = {HERE: dict(own)}
        own["seen"], silence = share(here, asked, found)
        nodes, resources, lost = here, {HERE: (0.0, 0.0)}, {}
    else:
        nodes, resources, lost = Nodes(place.calls, asked.seconds), dict(place.resources), dict(place.lost)
        nodes.ask(STARTED, "ready")
        found = _said(nodes, asked, {name: gpus for name, (_, gpus) in resources.items()})
        for name in nodes.calls:
            found[name] |= _clock(nodes, name)
        for name, reached in _ports(nodes, place.addresses).items():
            found[name]["reached"] = reached
        own["seen"], silence = share(nodes, asked, found)
    if silence:
        here.silent[HERE][RESULTS] = silence
    return Facts(
        here=Node(HERE, silent=dict(here.silent[HERE]), **own), cluster=place is not None, lost=lost,
        nodes=[Node(name, *resources[name], silent=dict(nodes.silent[name]), **found[name]) for name in nodes.calls],
    )  # fmt: skip


def _said(nodes: Nodes, asked: Asked, gpus: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """What each says of itself, by field of `Node`."""
    machine = {name: (VARIABLES, gpus[name], asked.cache, nodes.seconds / 2) for name in nodes.calls}
    begun: list[tuple[str, str, Any, dict[str, Future]]] = [
        (MACHINE, "machine", Machine, nodes.begin(MACHINE, "machine", of=machine)),
        (PACKAGES, "packages", Packages, nodes.begin(PACKAGES, "packages", asked.plugins)),
    ]
    if asked.data:
        begun.append((DATA, "content", Content | None, nodes.begin(DATA, "content", asked.data)))
    found: dict[str, dict[str, Any]] = {name: {} for name in nodes.calls}
    for what, field_, kind, futures in begun:
        for name, answer in nodes.end(what, futures).items():
            found[name][field_] = TypeAdapter(kind).validate_python(answer)
    return found


def _clock(nodes: Nodes, name: str) -> dict[str, Clock]:
    """How far one is ahead of this one: it was read between a question and its answer."""
    read: list[Clock] = []
    for _ in range(PINGS):
        before = time.time()
        there = nodes.ask(CLOCK, "now", of={name: ()}).get(name)
        after = time.time()
        if there is not None:
            read.append(Clock(there - (before + after) / 2, (after - before) / 2))
    return {"clock": min(read, key=lambda clock: clock.within)} if read else {}


def _ports(nodes: Nodes, addresses: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """By node, why it does not reach each of the others."""
    ports = nodes.ask(PORTS, "listen", of={name: (name,) for name in nodes.calls})
    reached = nodes.ask(PORTS, "reach", {name: (addresses[name], port) for name, port in ports.items()})
    nodes.ask(PORTS, "close")
    return reached
