"""Plans that were made before, in the cache: whoever only asks what a grid stands for needs no method, nor torch.

A plan is taken from there only where nothing has changed that it was made from (`ground.py`) and its file is whole;
whatever cannot be told for certain, as of plug-ins that no package brings, is made anew each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pet_bench.errors import Faults, UserError
from pet_bench.grid.plan.ground import Ground, canonical, content_of
from pet_bench.grid.plan.kept import ground_now, keep, kept, place
from pet_bench.grid.plan.planned import Group, Plan, Planned, Skipped
from pet_bench.spec import TrialSpec

if TYPE_CHECKING:
    from pet_bench.grid.plan.spec import Grid


def remembered(grid: Grid, lost: Faults | None = None, *, anew: bool = False) -> Plan:
    """The grid's plan: as it was kept, or made and kept. Raises as `expand` does; what raises is not kept.

    anew: make it whether it was kept or not.
    """
    ground, path = ground_now(), place("plans", content_of(grid))
    if ground and not anew and (body := kept(path, ground)) and (plan := _whole(body)):
        return plan
    from pet_bench.grid.plan.expand import expand

    plan = expand(grid, lost)
    if ground and not (lost and lost.found) and ground == Ground.now():  # nothing was changed meanwhile
        backbones = {one.group.backbone for one in plan.planned} | {one.backbone for one in plan.skipped}
        keep(path, ground, Ground.files_read(backbones), _plain(plan))
    return plan


def _whole(body: dict[str, Any]) -> Plan | None:
    """None where the file's content is no plan."""
    try:
        return _plan(body)
    except (UserError, ValueError, TypeError, KeyError, AttributeError):
        return None


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
