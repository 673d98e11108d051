"""The facts of a place, gathered by a process of its own, which may hang or die."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import nullcontext, suppress
from dataclasses import asdict

from pydantic import TypeAdapter, ValidationError

from pet_bench.errors import UserError
from pet_bench.grid.doctor.asked import Asked
from pet_bench.grid.doctor.cluster import LATE
from pet_bench.grid.doctor.facts import Facts
from pet_bench.grid.execute.process import environment, lodging
from pet_bench.grid.execute.supervise import Cluster

LEAVING = 5.0  # seconds that the process has for its end


def facts_of(asked: Asked, address: str | None = None) -> Facts:
    """Of the Ray cluster at the address, or of this machine. Raises UserError where there is none."""
    Cluster(address).check()
    order = json.dumps({"asked": asdict(asked), "address": address})
    with lodging() if address else nullcontext() as empty:  # Ray lets workers import from the working folder
        process = subprocess.Popen(
            [sys.executable, "-m", "pet_bench.grid.doctor.cluster"], env=environment(None), cwd=empty, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            said, errors = process.communicate(order + "\n")
        finally:
            process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(LEAVING)
    try:
        return TypeAdapter(Facts).validate_json(said.splitlines()[-1] if said else "")
    except ValidationError:
        lines = [line for line in errors.splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else "killed"
        if process.returncode == LATE:
            reason = f"no answer within {asked.seconds:g} s"
        if address is None:
            raise UserError(f"this machine cannot be looked at: {reason}") from None
        raise UserError(f"the Ray cluster at {address} cannot be joined: {reason}") from None
