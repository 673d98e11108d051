"""Trackers that a grid run reports to while it runs: TensorBoard, Weights & Biases, MLflow.

They are Ray's own callbacks (`trackers.py`, which needs Ray). A trial is called there as it is here, its resolved
spec is the configuration, and these are the tags, by number of updates: `train/loss`, `train/examples_per_second`, of
the learning curve `train/<task>/loss`, `valid/<task>/<metric>` and `valid/score`, and at the end `test/<task>/<metric>`
and `test/average`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pet_bench.errors import Faults, unknown

if TYPE_CHECKING:
    from ray.tune import Callback

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}


def tell(line: str) -> None:
    print(line, file=sys.stderr)


def check_trackers(names: Iterable[str]) -> None:
    """Raises UserError for unknown trackers and for those whose package is not installed; imports none."""
    faults = Faults()
    for name in dict.fromkeys(names):
        if name not in PACKAGES:
            faults.add(unknown("tracker", name, PACKAGES))
        elif find_spec(PACKAGES[name]) is None:
            extra = "ray[tune]" if name == "tensorboard" else f"pet-bench[{name}]"
            faults.add(f"--log {name} needs the package {PACKAGES[name]}: pip install '{extra}'")
    faults.check()


def callbacks(names: Iterable[str], out: Path, grid_name: str, say: Callable[[str], None] = tell) -> list[Callback]:
    """Callbacks for Ray Tune, one for each tracker named: "tensorboard", "wandb", "mlflow".

    TensorBoard's files go to `<out>/<id>/tensorboard/`, those of W&B to `<out>/<id>/wandb/`; for MLflow what its own
    environment variables say holds. Project and experiment are called `grid_name`. A tracker that fails in the middle
    is dropped, with one line to `say`.

    Raises UserError as `check_trackers` does, and for a tracker that cannot be used at all (no key, no server).
    """
    names = list(dict.fromkeys(names))
    check_trackers(names)
    if not names:
        return []
    from pet_bench.grid.execute.trackers import MAKERS, Tracker, first_line

    faults = Faults()
    made: list[Callback] = []
    for name in names:
        try:
            inner = MAKERS[name](grid_name)
            inner.setup()
            made.append(Tracker(name, inner, out, grid_name, say))
        except Exception as error:  # whatever a tracker's own package raises
            faults.add(f"--log {name} cannot be used: {first_line(error)}")
    faults.check()
    return made
