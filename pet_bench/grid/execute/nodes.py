"""The machines of a Ray cluster: what they have for a trial, and whether they can run one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import pet_bench
from pet_bench.errors import UserError
from pet_bench.grid.execute.process import start_seconds
from pet_bench.grid.plan.spec import Resources
from pet_bench.spec import Runtime


def with_gpus(resources: Resources, runtime: Runtime) -> Resources:
    """By default a trial gets a GPU where there are any, on whichever node."""
    if resources.gpus is not None:
        return resources
    return replace(resources, gpus=float(runtime.device != "cpu" and ray.cluster_resources().get("GPU", 0) > 0))


def fitting(resources: Resources) -> dict[str, int]:
    """How many trials fit each node, by its id, where one does; raises UserError where it fits none."""
    need = {"CPU": resources.cpus, "GPU": resources.gpus or 0}
    there = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    fit = {
        id: min(int(has.get(kind, 0) / amount) for kind, amount in need.items() if amount) for id, has in there.items()
    }
    if not any(fit.values()):
        most = ", ".join(f"{max(has.get(kind, 0) for has in there.values()):g} {kind.lower()}s" for kind in need)
        asked = f"{need['CPU']:g} cpus and {need['GPU']:g} gpus"
        raise UserError(f"resources: a trial asks for {asked}, no node has that (most: {most})")
    return {id: count for id, count in fit.items() if count}


def check_nodes(nodes: Iterable[str], runtime: Runtime) -> None:
    """Raises UserError for nodes that do not see the results folder or run another pet-bench."""
    names = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}

    @ray.remote(num_cpus=0, max_retries=0)
    def look(path: str) -> tuple[bool, str]:  # in here, it goes as code to nodes whose pet-bench has no such function
        import pet_bench

        return Path(path).exists(), pet_bench.__version__

    with tempfile.NamedTemporaryFile(dir=runtime.out, prefix=".shared-") as probe:
        there = {id: NodeAffinitySchedulingStrategy(id, soft=False) for id in nodes}
        answers = {id: look.options(scheduling_strategy=on).remote(probe.name) for id, on in there.items()}
        faults = [fault for id, answer in answers.items() for fault in _faults(names[id], answer, runtime.out)]
    if faults:
        raise UserError.many(faults)


def _faults(node: str, answer: Any, out: Path) -> list[str]:
    try:
        sees, version = ray.get(answer, timeout=start_seconds())
    except Exception as error:
        return [f"node {node} cannot run pet-bench: {str(error).strip().splitlines()[-1]}"]
    faults = [] if sees else [f'node {node} does not see the results folder "{out}": it must be shared']
    if version != pet_bench.__version__:
        faults.append(f"node {node} has pet-bench {version}, this one is {pet_bench.__version__}")
    return faults
