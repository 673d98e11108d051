"""Result files of earlier schema versions, read as if they were written today; the files stay as they are.

A step per version, each from plain data of its version to plain data of the next. Examples of every version are kept in
`tests/results/old/`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pet_bench.results.schema import SCHEMA_VERSION


def from_1(data: dict[str, Any]) -> dict[str, Any]:
    """Version 2 has `run`; until then a trial was made in one attempt, with whole batches."""
    return data | {"run": {"accumulation": 1, "resumed": []}}


STEPS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: from_1}


def upgrade(data: dict[str, Any]) -> dict[str, Any]:
    """A result's plain data in the present schema. Its `schema_version` is one that has been."""
    for version in range(data["schema_version"], SCHEMA_VERSION):
        data = STEPS[version](data) | {"schema_version": version + 1}
    return data
