"""The results folder, the data, and folders that each node has for itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pet_bench.grid.doctor.asked import Asked
from pet_bench.grid.doctor.examine import DATA
from pet_bench.grid.doctor.facts import Facts, Room
from pet_bench.grid.doctor.finding import GIB, Problem, Wrong, gib, shown, silence
from pet_bench.grid.doctor.shared import HERE, RESULTS

SHARE = "it must be shared"
FEW, LITTLE = 1.0, 10.0  # GiB that are free, for a fault and for a caution
NO_FILES, FEW_FILES = 1_000, 20_000  # free inodes


def results(facts: Facts, asked: Asked) -> Iterator[Problem]:
    yield from silence(facts, RESULTS)
    here = facts.here.seen
    if here and here.fault:
        yield Problem("fault", f'"{asked.out}" cannot be written to: {here.fault}', HERE)
    able = [node.name for node in facts.nodes if node.seen and node.seen.token and not node.seen.fault]
    for node in facts.nodes:
        seen = node.seen
        if not facts.cluster or not here or here.fault or not seen:
            continue
        if seen.fault:
            yield Problem("fault", f'cannot write to "{asked.out}": {seen.fault}', node.name)
        elif not seen.there:
            yield Problem("fault", f'does not see "{asked.out}": {SHARE}', node.name)
        elif seen.token != here.token:
            yield Problem("fault", f'has another folder as "{asked.out}": {SHARE}', node.name)
        elif node.read is not None and (unseen := [name for name in able if node.read.get(name) != name]):
            text = f"does not see at once what {shown(unseen)} wrote: mount it without a cache of names"
            yield Problem("fault", text, node.name)


def results_fine(facts: Facts, asked: Asked) -> str:
    return f"{asked.out}: " + ("seen, written to and read by each" if facts.cluster else "can be written to")


def rename(facts: Facts, asked: Asked) -> Iterator[Problem]:
    """A result and a checkpoint are renamed to their places: whoever looks sees the old or the new one, and whole."""
    whole = {node.name for node in facts.nodes if node.replaced == ""}
    for node in facts.nodes:
        if node.replaced:
            yield Problem("fault", f"cannot rename a file over another: {node.replaced}", node.name)
        for other, watched in node.watched.items():
            seen = {
                "missing": watched.missing, "half-written": watched.torn,
                f"unreadable ({watched.fault})": bool(watched.fault),
            }  # fmt: skip
            if said := [word for word, count in seen.items() if count]:
                text = f"a file that it renames over another is at times {' and '.join(said)} to {node.name}"
                yield Problem("fault", f"{text}: results would be lost there", other)
            elif not watched.last and other in whole:
                yield Problem("fault", f"what it renames over another is not seen by {node.name}", other)


def rename_fine(facts: Facts, asked: Asked) -> str:
    return "a file that is replaced is there, whole, at every moment"


def locks(facts: Facts, asked: Asked) -> Iterator[Problem]:
    """A trial is locked while it runs, so that no two processes run the same one."""
    bad: set[tuple[str, str]] = set()
    for node in facts.nodes:
        for holder, got in node.locks.items():
            if got == "held":
                bad.add((holder, node.name))
            elif got != "taken":
                yield Problem("fault", f"no locks: {got}; mount it with flock", node.name)
    while bad:
        (worst, _), *_ = Counter(name for pair in bad for name in {*pair}).most_common()
        others = dict.fromkeys(name for pair in sorted(bad) if worst in pair for name in pair if name != worst)
        among = f"with {shown(list(others))}" if others else "even between its own processes"
        yield Problem("fault", f"locks do not exclude {among}: two would run one trial; mount it with flock", worst)
        bad = {pair for pair in bad if worst not in pair}


def locks_fine(facts: Facts, asked: Asked) -> str:
    return "what one holds nobody else gets"


def data(facts: Facts, asked: Asked) -> Iterator[Problem]:
    yield from silence(facts, DATA)
    here = facts.here.content
    for node in [facts.here, *(facts.nodes if facts.cluster else [])]:
        if DATA in node.silent or node.packages is None:
            continue
        if node.content is None:
            yield Problem("fault", f'does not see the data folder "{asked.data}"', node.name)
        elif here and node.content.top != here.top:
            there, wanted = node.content.top, here.top
            differ = [name for name in sorted(there | wanted) if there.get(name) != wanted.get(name)]
            text = f"has other files in the data folder than this machine: {shown(differ)}"
            yield Problem("fault", text, node.name)


def data_fine(facts: Facts, asked: Asked) -> str:
    content = facts.here.content
    if content is None:
        return ""
    files = f"{content.files:,} files" if content.whole else f"the first {content.files:,} files"
    return f"{asked.data}: {files}" + (", of the same names and sizes on each" if facts.cluster else "")


def disk(facts: Facts, asked: Asked) -> Iterator[Problem]:
    if facts.here.seen and facts.here.seen.room:
        yield from _room(facts.here.seen.room, HERE, "results")
    for node in facts.nodes:
        for room in node.machine.temporary if node.machine else ():
            yield from _room(room, node.name, "temporary files")


def _room(room: Room, node: str, what: str) -> Iterator[Problem]:
    level: Wrong
    if room.free < LITTLE * GIB:
        level = "fault" if room.free < FEW * GIB else "caution"
        yield Problem(level, f'{gib(room.free)} are free for {what} in "{room.path}" (of {gib(room.total)})', node)
    if room.inodes is not None and room.inodes < FEW_FILES:
        level = "fault" if room.inodes < NO_FILES else "caution"
        yield Problem(level, f'{room.inodes:,} more files can be made for {what} in "{room.path}" (inodes)', node)


def disk_fine(facts: Facts, asked: Asked) -> str:
    seen = facts.here.seen
    there = [room for node in facts.nodes if node.machine for room in node.machine.temporary]
    least = f", {gib(min(room.free for room in there))} at least for temporary files" if there else ""
    return f"{gib(seen.room.free)} free for results{least}" if seen and seen.room else least.removeprefix(", ")


def caches(facts: Facts, asked: Asked) -> Iterator[Problem]:
    for node in facts.nodes:
        for name, reason in node.machine.unwritable.items() if node.machine else ():
            kept = "features are packed" if name == "PET_BENCH_CACHE" else "backbones are downloaded"
            level: Wrong = "fault" if name == "PET_BENCH_CACHE" else "caution"
            yield Problem(level, f"{reason}; {kept} there: {name}=FOLDER names another place", node.name)


def caches_fine(facts: Facts, asked: Asked) -> str:
    return "can be written to"


def lodging(facts: Facts, asked: Asked) -> Iterator[Problem]:
    if facts.lodging:
        yield Problem("fault", facts.lodging)


def lodging_fine(facts: Facts, asked: Asked) -> str:
    return "has a folder for its sockets"
