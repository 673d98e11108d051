"""What facts mean: a line for each check, in this order, or one for each thing that is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from pet_bench.grid.doctor import about_cluster, about_hardware, about_software, about_storage
from pet_bench.grid.doctor.asked import Asked
from pet_bench.grid.doctor.facts import Facts
from pet_bench.grid.doctor.finding import Finding, Problem, grouped
from pet_bench.grid.doctor.shared import HERE


class Check(NamedTuple):
    """when: what it needs, a cluster, or a run's own Ray, or a data folder."""

    name: str
    problems: Callable[[Facts, Asked], Iterator[Problem]]
    fine: Callable[[Facts, Asked], str]
    when: Callable[[Facts, Asked], bool] = lambda facts, asked: True


def _cluster(facts: Facts, asked: Asked) -> bool:
    return facts.cluster


CHECKS = (
    Check("nodes", about_cluster.nodes, about_cluster.nodes_fine, _cluster),
    Check("versions", about_software.versions, about_software.versions_fine),
    Check("plug-ins", about_software.plugins, about_software.plugins_fine),
    Check("variables", about_software.variables, about_software.variables_fine, _cluster),
    Check("results", about_storage.results, about_storage.results_fine),
    Check("rename", about_storage.rename, about_storage.rename_fine),
    Check("locks", about_storage.locks, about_storage.locks_fine),
    Check("data", about_storage.data, about_storage.data_fine, lambda facts, asked: asked.data is not None),
    Check("disk", about_storage.disk, about_storage.disk_fine),
    Check("caches", about_storage.caches, about_storage.caches_fine),
    Check("ray", about_storage.lodging, about_storage.lodging_fine, lambda facts, asked: not facts.cluster),
    Check("ports", about_cluster.ports, about_cluster.ports_fine, _cluster),
    Check("clock", about_cluster.clock, about_cluster.clock_fine, _cluster),
    Check("room", about_hardware.room, about_hardware.room_fine),
    Check("gpus", about_hardware.gpus, about_hardware.gpus_fine),
    Check("memory", about_hardware.memory, about_hardware.memory_fine),
    Check("shm", about_hardware.shared_memory, about_hardware.shared_memory_fine),
    Check("cores", about_hardware.cores, about_hardware.cores_fine),
)


def findings(facts: Facts, asked: Asked) -> list[Finding]:
    found: list[Finding] = []
    for check in CHECKS:
        if check.when(facts, asked):
            wrong = list(grouped(check.name, check.problems(facts, asked), "" if facts.cluster else HERE))
            found += wrong or [Finding("ok", check.name, check.fine(facts, asked))]
    return found
