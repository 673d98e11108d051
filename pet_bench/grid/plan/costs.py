"""What trials cost beside one another, from earlier results alone."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from pet_bench.errors import UserError
from pet_bench.results import store
from pet_bench.results.schema import Cost, TrialResult
from pet_bench.spec import TrialSpec

IGNORED = ("seed", "label")  # of a spec: trials that differ in nothing else cost the same
Timed = tuple[TrialResult, Cost]


def costs(specs: Iterable[TrialSpec], results: Iterable[TrialResult]) -> dict[str, float]:
    """What each trial costs beside the others, without data and weights: by id, seconds where there are any results.

    That is the mean of earlier results of its set-up, else epochs × layers × width² of the backbone, which takes the
    time that it took in the results of other set-ups.
    """
    timed = whole(results)
    ratios = [seconds(cost) / _size(result.spec) for result, cost in timed]
    scale = sum(ratios) / len(ratios) if ratios else 1.0
    of: dict[tuple[str, str], float] = {}
    by_id = {}
    for spec in specs:
        if spec.but_seed not in of:
            known = [seconds(cost) for _, cost in alike(spec, timed)]
            of[spec.but_seed] = sum(known) / max(1, len(known)) or scale * _size(spec.to_dict())
        by_id[spec.id] = of[spec.but_seed]
    return by_id


def whole(results: Iterable[TrialResult]) -> list[Timed]:
    """Those that went to their ends, with what they cost; one that diverged did not, and has no scores."""
    return [(one, one.cost) for one in results if one.status in store.FINISHED and one.cost and one.metrics]


def alike(spec: TrialSpec, timed: Iterable[Timed]) -> list[Timed]:
    """The results of the trial's set-up, of whichever seed."""
    own = setup(spec.to_dict())
    return [(result, cost) for result, cost in timed if setup(result.spec) == own]


def setup(spec: dict[str, Any]) -> dict[str, Any]:
    """What of a spec decides what its trial costs."""
    return {key: value for key, value in spec.items() if key not in IGNORED}


def seconds(cost: Cost) -> float:
    return cost.train_seconds + cost.eval_seconds


def _size(spec: dict[str, Any]) -> float:
    """Epochs × layers × width², an epoch being taken for a thousand updates where it is updates that are given."""
    recipe = spec["recipe"]
    epochs = min(recipe["epochs"], (recipe.get("max_steps") or float("inf")) / 1000)
    return epochs * _weights(spec["backbone"])


@lru_cache
def _weights(backbone: str) -> float:
    from pet_bench.backbone.known import find_backbone

    try:
        anatomy = find_backbone(backbone).anatomy
    except UserError:  # of a result from elsewhere
        return 1.0
    return float(sum(anatomy.stacks[stack].layers * anatomy.stacks[stack].width ** 2 for stack in anatomy.words))
