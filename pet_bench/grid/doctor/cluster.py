"""An agent on every node of a Ray cluster, and the process that asks them: this one, started by `doctor`.

Ray ends the process that uses it when its head dies. What is asked comes in as JSON on standard input, facts go out as
JSON on standard output.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections import Counter
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from pet_bench.errors import UserError
from pet_bench.grid.doctor import agent, folders, machine, packages, wire
from pet_bench.grid.doctor.asked import Asked
from pet_bench.grid.doctor.examine import Place, examine
from pet_bench.grid.doctor.facts import Facts
from pet_bench.grid.doctor.nodes import Call
from pet_bench.grid.execute.process import lodging

# agents see the GPUs of their node, of which they hold none
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
AT_ONCE = 16  # questions to an agent, some of which may hang
MEANT = ("EXPECTED_TERMINATION", "AUTOSCALER_DRAIN_IDLE")  # ends of a node
LATE = 3  # exit status where the cluster cannot be joined in time


def main() -> None:
    order = json.loads(sys.stdin.readline())
    asked, address = TypeAdapter(Asked).validate_python(order["asked"]), order["address"]
    answer, sys.stdout = sys.stdout, sys.stderr  # whatever a plug-in prints
    facts = examine(asked) if address is None else examine(asked, joined(address, asked.seconds))
    if address is None:
        facts = replace(facts, lodging=unlodged())
    answer.write(TypeAdapter(Facts).dump_json(facts).decode() + "\n")
    answer.flush()
    os._exit(0)  # what still hangs may hang


def unlodged() -> str:
    """Why a Ray of a run's own has no folder."""
    try:
        lodging().cleanup()
    except UserError as error:
        return str(error)
    return ""


def joined(address: str, seconds: float) -> Place:
    """Start an agent on each node that is alive."""
    os.environ.update(ENVIRONMENT)
    import ray
    from ray import cloudpickle
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    late = threading.Timer(seconds, lambda: os._exit(LATE))
    late.start()
    variables = ENVIRONMENT | {"PYTHONSAFEPATH": "1"}
    ray.init(address=address, runtime_env={"env_vars": variables}, log_to_driver=False, logging_level=logging.ERROR)
    late.cancel()
    for module in (agent, folders, machine, packages, wire):  # to nodes that may not have them
        cloudpickle.register_pickle_by_value(module)
    actor: Any = ray.remote(agent.Agent)
    there = ray.nodes()
    alive = named(there)
    on = {name: NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for name, node in alive.items()}
    free = {"num_cpus": 0, "max_concurrency": AT_ONCE}
    calls = {name: on_ray(actor.options(scheduling_strategy=one, **free).remote()) for name, one in on.items()}
    has = {name: node["Resources"] for name, node in alive.items()}
    return Place(
        calls, addresses={name: node["NodeManagerAddress"] for name, node in alive.items()},
        resources={name: (one.get("CPU", 0.0), one.get("GPU", 0.0)) for name, one in has.items()}, lost=gone(there),
    )  # fmt: skip


def named(nodes: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Those that are alive by address, with the port where several have the same."""
    alive = [node for node in nodes if node["Alive"]]
    count = Counter(node["NodeManagerAddress"] for node in alive)

    def name(node: dict[str, Any]) -> str:
        address = node["NodeManagerAddress"]
        return address if count[address] == 1 else f"{address}:{node['NodeManagerPort']}"

    return {name(node): node for node in sorted(alive, key=name)}


def gone(nodes: list[dict[str, Any]]) -> dict[str, str]:
    """Why nodes are gone that were there, for which no other has come and which nobody has taken away."""
    alive = {node["NodeManagerAddress"] for node in nodes if node["Alive"]}
    dead = (node for node in nodes if not node["Alive"] and node.get("DeathReason") not in MEANT)
    return {
        node["NodeManagerAddress"]: node.get("DeathReasonMessage") or "it does not say why"
        for node in dead
        if node["NodeManagerAddress"] not in alive
    }


def on_ray(actor: Any) -> Call:
    return lambda method, *arguments: getattr(actor, method).remote(*arguments).future()


if __name__ == "__main__":
    main()
