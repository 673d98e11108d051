"""What is installed on the nodes, against what is installed here."""

from __future__ import annotations

from collections.abc import Iterator

from pet_bench.grid.doctor.asked import Asked
from pet_bench.grid.doctor.examine import PACKAGES
from pet_bench.grid.doctor.facts import Facts, Packages
from pet_bench.grid.doctor.finding import Problem, shown, silence
from pet_bench.grid.doctor.packages import OURS


def versions(facts: Facts, asked: Asked) -> Iterator[Problem]:
    yield from silence(facts, PACKAGES)
    here = facts.here.packages
    for name, there in _packages(facts):
        for package, version in there.versions.items():
            wanted = here.versions.get(package) if here else None
            if version is None:
                like = f" (here {wanted})" if wanted else ""
                yield Problem("fault", f"{package} is not installed{like}", name)
            elif wanted and version != wanted:
                yield Problem("fault", f"{package} is {version}, here {wanted}: install the same", name)
        if here and there.commit and here.commit and there.commit != here.commit:
            text = f"{OURS} is of commit {there.commit[:12]}, here {here.commit[:12]}: check out the same"
            yield Problem("fault", text, name)


def versions_fine(facts: Facts, asked: Asked) -> str:
    here = facts.here.packages
    if here is None:
        return ""
    commit = f" (commit {here.commit[:12]})" if here.commit else ""
    return ", ".join(f"{name} {version}" for name, version in here.versions.items()) + commit


def plugins(facts: Facts, asked: Asked) -> Iterator[Problem]:
    here = facts.here.packages
    for name, there in _packages(facts):
        for plugin, reason in there.broken.items():
            yield Problem("fault", f"{plugin} cannot be loaded: {reason}", name)
        if here is None:
            continue
        for origin, names in _lacking(here, there):
            yield Problem("fault", f"does not have {shown(names)} of {origin}: install it there", name)
        for origin, names in _lacking(there, here):
            yield Problem("caution", f"has {shown(names)} of {origin}, which is not here", name)


def _lacking(has: Packages, lacks: Packages) -> Iterator[tuple[str, list[str]]]:
    """By package, the plug-ins that one has and the other lacks; another pet-bench is said by `versions`."""
    by_origin: dict[str, list[str]] = {}
    for plugin in sorted(has.entries.keys() - lacks.entries.keys()):
        by_origin.setdefault(has.entries[plugin], []).append(plugin)
    same = has.versions.get(OURS) == lacks.versions.get(OURS)
    return ((origin, names) for origin, names in by_origin.items() if same or origin != OURS)


def plugins_fine(facts: Facts, asked: Asked) -> str:
    entries = facts.here.packages.entries if facts.here.packages else {}
    others = sorted({origin for origin in entries.values() if origin != OURS})
    said = [f"{len(entries)} installed", *(f"of {origin}" for origin in others), *asked.plugins]
    return ", ".join(said)


def variables(facts: Facts, asked: Asked) -> Iterator[Problem]:
    here = facts.here.machine
    for node in facts.nodes:
        if here is None or node.machine is None:
            continue
        for name in sorted(here.variables.keys() | node.machine.variables.keys()):
            there, wanted = (one.variables.get(name, "not set") for one in (node.machine, here))
            if there != wanted:
                yield Problem("caution", f"{name} is {there}, here {wanted}: trials have that of their node", node.name)


def variables_fine(facts: Facts, asked: Asked) -> str:
    there = facts.here.machine.variables if facts.here.machine else {}
    return ", ".join(f"{name}={value}" for name, value in there.items()) or "none that changes what a trial does"


def _packages(facts: Facts) -> Iterator[tuple[str, Packages]]:
    return ((node.name, node.packages) for node in facts.nodes if node.packages is not None)
