"""Where trials run: what this machine has for them, and how many run side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pet_bench.errors import Faults, UserError
from pet_bench.grid.execute.process import cores, start_seconds
from pet_bench.grid.execute.supervise import Cluster
from pet_bench.grid.plan.spec import Resources
from pet_bench.spec import Runtime

Executor = Literal["ray", "inline"]


def check_place(
    resources: Resources, runtime: Runtime, executor: Executor = "ray", cluster: Cluster | None = None
) -> Resources:
    """The resources with defaults filled in.

    Raises UserError where this machine, or the cluster named, has no such device, no room for one trial or no Ray.
    """
    cluster, faults = cluster or Cluster(), Faults()
    if executor == "ray":
        with faults:
            start_seconds()
    if executor == "ray" and cluster.address is not None:  # its nodes' devices are known when it is joined
        with faults:
            cluster.check()
        if runtime.device not in ("auto", "cpu", "cuda"):
            faults.add(f'device "{runtime.device}" cannot be used on a Ray cluster (possible: auto, cpu, cuda)')
    else:
        with faults:
            resources = _here(resources, runtime, executor)
    with faults:
        runtime.check_shard(max(runtime.ranks, resources.gpus or 0))
    faults.check()
    return resources


def _here(resources: Resources, runtime: Runtime, executor: Executor) -> Resources:
    """The resources of a trial on this machine; raises UserError where they are not there."""
    import torch

    from pet_bench.trial.device import find_device

    device = find_device(runtime.device)
    if executor == "inline" and (resources.gpus or 0) <= 1:  # one at a time, on the device
        return resources
    there = {"cpus": cores(), "gpus": torch.cuda.device_count() if device.index is None else 1}
    if resources.gpus is None:
        resources = replace(resources, gpus=float(device.type == "cuda"))
    faults = [
        f"resources: a trial asks for {asked:g} {kind}, this machine has {number}"
        for kind, number in there.items()
        if (asked := getattr(resources, kind)) > number
    ]
    if runtime.device.startswith("cuda") and not resources.gpus:
        faults.append(f'resources: device "{runtime.device}" needs a GPU, a trial asks for 0 gpus')
    if faults:
        raise UserError.many(faults)
    return resources


def at_a_time(resources: Resources) -> int:
    """How many trials with these resources run side by side on this machine."""
    import torch

    fitting = int(cores() / resources.cpus)
    if resources.gpus:
        fitting = min(fitting, int(torch.cuda.device_count() / resources.gpus))
    return max(1, min(fitting, resources.max_concurrent or fitting))
