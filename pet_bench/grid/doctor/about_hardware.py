"""What the nodes have for trials, against what Ray hands out."""

from __future__ import annotations

from collections.abc import Iterator

from pet_bench.grid.doctor.asked import Asked
from pet_bench.grid.doctor.examine import MACHINE
from pet_bench.grid.doctor.facts import Facts, Machine
from pet_bench.grid.doctor.finding import GIB, Problem, Wrong, fitting, gib, hands_out, silence

IN_USE = 2.0  # GiB of a GPU that somebody else has; a process that does nothing has up to one
STARVED, TIGHT = 1.0, 2.0  # GiB that are available on a node, and for each trial on it
NO_SHARED, LITTLE_SHARED = 0.25, 2.0  # GiB in all: what containers have by default, and what a backbone may take


def room(facts: Facts, asked: Asked) -> Iterator[Problem]:
    need = _gpus(facts, asked)
    fit = fitting(facts, asked.cpus, need)
    if not any(fit.values()):
        most = [max((hands_out(facts, node)[i] for node in facts.nodes), default=0.0) for i in range(2)]
        takes = f"it takes {asked.cpus:g} cpus and {need:g} gpus"
        yield Problem("fault", f"no node has room for a trial: {takes}, there are {most[0]:g} and {most[1]:g} at most")
        return
    for name, count in fit.items():
        if not count:
            yield Problem("caution", f"gets no trial: one takes {asked.cpus:g} cpus and {need:g} gpus", name)


def room_fine(facts: Facts, asked: Asked) -> str:
    need = _gpus(facts, asked)
    count = sum(fitting(facts, asked.cpus, need).values())
    return f"{count} trials at a time, each with {asked.cpus:g} cpus and {need:g} gpus"


def _gpus(facts: Facts, asked: Asked) -> float:
    if asked.gpus is not None:
        return asked.gpus
    return float(any(hands_out(facts, node)[1] for node in facts.nodes))


def gpus(facts: Facts, asked: Asked) -> Iterator[Problem]:
    for node in facts.nodes:
        if node.machine is None:
            continue
        there, told = len(node.machine.gpus), int(hands_out(facts, node)[1])
        if node.machine.gpu_fault:
            yield Problem("fault", f"torch computes on none of its GPUs: {node.machine.gpu_fault}", node.name)
        elif told > there:
            yield Problem("fault", f"Ray hands out {told} GPUs, torch sees {there}", node.name)
        elif told < there:
            text = f"torch sees {there} GPUs, Ray hands out {told}: start Ray with --num-gpus={there}"
            yield Problem("caution", text, node.name)
        for i, gpu in enumerate(node.machine.gpus):
            if gpu.total - gpu.free > IN_USE * GIB:
                used = f"GPU {i} ({gpu.name}): {gib(gpu.total - gpu.free)} of {gib(gpu.total)} are in use"
                yield Problem("caution", f"{used}, by a process of somebody's", node.name)
    if len(kinds := _kinds(facts)) > 1:
        yield Problem("caution", f"different GPUs: {', '.join(kinds)}; trials of one table round differently on them")


def gpus_fine(facts: Facts, asked: Asked) -> str:
    count = sum(len(machine.gpus) for machine in _machines(facts))
    return f"{count}: {', '.join(_kinds(facts))}" if count else "none, and none promised"


def _kinds(facts: Facts) -> list[str]:
    return list(dict.fromkeys(gpu.name for machine in _machines(facts) for gpu in machine.gpus))


def memory(facts: Facts, asked: Asked) -> Iterator[Problem]:
    yield from silence(facts, MACHINE)
    fit = fitting(facts, asked.cpus, _gpus(facts, asked))
    for node in facts.nodes:
        if node.machine is None:
            continue
        free, count = node.machine.available, max(1, fit[node.name])
        if free < STARVED * GIB:
            yield Problem("fault", f"{gib(free)} of memory are available (of {gib(node.machine.memory)})", node.name)
        elif free / count < TIGHT * GIB:
            text = f"{gib(free)} of memory are available for {count} trials at a time: fewer fit (--max-concurrent)"
            yield Problem("caution", text, node.name)


def memory_fine(facts: Facts, asked: Asked) -> str:
    return f"{gib(min((one.available for one in _machines(facts)), default=0))} available at least"


def shared_memory(facts: Facts, asked: Asked) -> Iterator[Problem]:
    """Ray keeps in it what trials of a node share; processes of a trial with several GPUs exchange gradients there."""
    for node in facts.nodes:
        if node.machine and (there := node.machine.shared) and there.total < LITTLE_SHARED * GIB:
            level: Wrong = "fault" if there.total < NO_SHARED * GIB else "caution"
            yield Problem(level, f"/dev/shm has {gib(there.total)}: give the container more (--shm-size)", node.name)


def shared_memory_fine(facts: Facts, asked: Asked) -> str:
    there = [one.shared.total for one in _machines(facts) if one.shared]
    return f"/dev/shm has {gib(min(there))} at least" if there else "no /dev/shm here"


def cores(facts: Facts, asked: Asked) -> Iterator[Problem]:
    for node in facts.nodes:
        if node.machine and hands_out(facts, node)[0] > node.machine.cores:
            there = node.machine.cores
            yield Problem("caution", f"Ray hands out {node.cpus:g} cpus of {there}: --num-cpus={there}", node.name)
    if len(kinds := _processors(facts)) > 1:
        yield Problem("caution", f"different processors: {', '.join(kinds)}; trials round differently on them")


def cores_fine(facts: Facts, asked: Asked) -> str:
    return f"{sum(one.cores for one in _machines(facts))}: {', '.join(_processors(facts))}"


def _processors(facts: Facts) -> list[str]:
    return list(dict.fromkeys(machine.processor for machine in _machines(facts)))


def _machines(facts: Facts) -> list[Machine]:
    return [node.machine for node in facts.nodes if node.machine]
