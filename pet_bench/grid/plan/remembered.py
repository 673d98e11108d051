"""Plans that were made before, in the cache: whoever only asks what a grid stands for needs no method, nor torch.

A plan is taken from there only where nothing has changed that it was made from (`ground.py`) and its file is whole;
whatever cannot be told for certain, as of plug-ins that no package brings, is made anew each time.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pet_bench.data.cache import cache_dir
from pet_bench.errors import Faults, UserError
from pet_bench.files import read_json, write_text
from pet_bench.grid.plan.ground import Ground, canonical, content_of, unchanged
from pet_bench.grid.plan.planned import Group, Plan, Planned, Skipped
from pet_bench.spec import TrialSpec

if TYPE_CHECKING:
    from pet_bench.grid.plan.spec import Grid

# where these are imported, methods may be too, perhaps others than now lie on disk, and a plan is quickly made
LOADED = ("torch", "pet_bench.trial.resolve")


def remembered(grid: Grid, lost: Faults | None = None, *, anew: bool = False) -> Plan:
    """The grid's plan: as it was kept, or made and kept. Raises as `expand` does; what raises is not kept.

    anew: make it whether it was kept or not.
    """
    ground = None if any(name in sys.modules for name in LOADED) else Ground.of(grid)
    if ground and not anew and (plan := _read(_file(grid), ground)):
        return plan
    from pet_bench.grid.plan.expand import expand

    plan = expand(grid, lost)
    if ground and not (lost and lost.found) and ground == Ground.of(grid):  # nothing was changed meanwhile
        _keep(grid, plan, ground)
    return plan


def _file(grid: Grid) -> Path | None:
    """One file for each grid, which a later plan of it replaces."""
    with suppress(UserError):  # of a user without a home
        return cache_dir() / "plans" / f"{content_of(grid)[:16]}.json"
    return None


def _keep(grid: Grid, plan: Plan, ground: Ground) -> None:
    path, read = _file(grid), ground.files_read(plan)
    if path is None or read is None:
        return
    with suppress(OSError, ValueError, TypeError):  # it is made again next time
        body = {"ground": ground.digest, "read": read, **_plain(plan)}
        write_text(path, canonical(body | {"digest": _digest(body)}))


def _read(path: Path | None, ground: Ground) -> Plan | None:
    """The plan that the file holds; None where it is none, of another ground, or not as it was written."""
    if path is None or not path.is_file():
        return None
    try:
        body = read_json(path, "plan")
        whole = body.pop("digest") == _digest(body) and body["ground"] == ground.digest
        return _plan(body) if whole and unchanged(body["read"]) else None
    except (UserError, OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _digest(body: dict[str, Any]) -> str:
    return sha256(canonical(body).encode()).hexdigest()


def _plain(plan: Plan) -> dict[str, Any]:
    plain: dict[tuple[tuple[str, str], str], dict[str, Any]] = {}  # of trials that differ in their seeds only, once
    trials = []
    for one in plan.planned:
        if (key := (one.trial.but_seed, one.trial.label)) not in plain:
            plain[key] = one.trial.to_dict()
        spec = plain[key] | {"seed": one.trial.seed}
        trials.append({"id": one.trial.id, "spec": spec, "group": vars(one.group), "values": one.values})
    return {"trials": trials, "skipped": [vars(one) for one in plan.skipped]}


def _plan(body: dict[str, Any]) -> Plan:
    """Raises ValueError, or what else reading unexpected data may, where a trial is not what its id says."""
    read: dict[str, TrialSpec] = {}  # likewise
    planned = []
    for one in body["trials"]:
        if (key := canonical(one["spec"] | {"seed": 0})) not in read:
            read[key] = TrialSpec.from_dict(one["spec"])
        spec = read[key].seeded(one["spec"]["seed"])
        if spec.id != one["id"]:
            raise ValueError("a trial is not what its id says")
        planned.append(Planned(spec, Group(**one["group"]), one["values"]))
    return Plan(tuple(planned), tuple(Skipped(**one) for one in body["skipped"]))
