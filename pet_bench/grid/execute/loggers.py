"""Trackers that a grid run reports to while it runs: TensorBoard, Weights & Biases, MLflow, Trackio.

They are Ray's own callbacks where it has one (`trackers.py`, which needs Ray), whoever runs the trials. A trial is
called there as it is here, its resolved spec is the configuration, and these are the tags, by number of updates:
`train/loss`, `train/examples_per_second`, of the learning curve `train/<task>/loss`, `valid/<task>/<metric>` and
`valid/score`, and at the end `test/<task>/<metric>` and `test/average`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pet_bench.errors import Faults, unknown
from pet_bench.grid.execute.events import REPORT_SECONDS, Ended, Event, Started
from pet_bench.results.schema import Progress

if TYPE_CHECKING:
    from pet_bench.grid.execute.trackers import Tracker
    from pet_bench.spec import TrialSpec

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}
ACTORS = {"wandb"}  # each of its trials is an actor of Ray's


def tell(line: str) -> None:
    print(line, file=sys.stderr)


def check_trackers(names: Iterable[str], executor: str = "ray") -> None:
    """Raises UserError for unknown trackers, for those whose package is not installed, and without Ray for those that
    need its actors; imports none."""
    faults = Faults()
    for name in dict.fromkeys(names):
        if name not in PACKAGES:
            faults.add(unknown("tracker", name, PACKAGES))
        elif find_spec(PACKAGES[name]) is None:
            extra = "ray[tune]" if name == "tensorboard" else f"pet-bench[{name}]"
            faults.add(f"--log {name} needs the package {PACKAGES[name]}: pip install '{extra}'")
        elif executor != "ray" and name in ACTORS:
            faults.add(f"--log {name} is for --executor ray: its callback is an actor of Ray's")
    faults.check()


def callbacks(names: Iterable[str], out: Path, grid_name: str, say: Callable[[str], None] = tell) -> list[Tracker]:
    """Callbacks for Ray Tune, one for each tracker named: "tensorboard", "wandb", "mlflow", "trackio".

    TensorBoard's files go to `<out>/<id>/tensorboard/`, those of W&B to `<out>/<id>/wandb/`; for MLflow and Trackio
    what their own environment variables say holds. Project and experiment are called `grid_name`. A tracker that fails
    in the middle is dropped, with one line to `say`.

    Raises UserError as `check_trackers` does, and for a tracker that cannot be used at all (no key, no server).
    """
    names = list(dict.fromkeys(names))
    check_trackers(names)
    if not names:
        return []
    from pet_bench.grid.execute.trackers import MAKERS, Tracker, first_line

    faults = Faults()
    made: list[Tracker] = []
    for name in names:
        try:
            inner = MAKERS[name](grid_name)
            inner.setup()
            made.append(Tracker(name, inner, out, grid_name, say))
        except Exception as error:  # whatever a tracker's own package raises
            faults.add(f"--log {name} cannot be used: {first_line(error)}")
    faults.check()
    return made


class Followed:
    """What a run in this process is told of its trials, passed on to trackers too, as Ray's workers report."""

    def __init__(self, course: Callable[[Event], None], trackers: Iterable[Tracker], specs: Iterable[TrialSpec]):
        self.course, self.trackers = course, list(trackers)
        self.specs, self.told = {spec.id: spec for spec in specs}, 0.0

    def __call__(self, event: Event) -> None:
        self.course(event)
        if (spec := self.specs.get(getattr(event, "id", ""))) is None:
            return
        due = isinstance(event, Progress) and self._is_due(event)
        for tracker in self.trackers:
            match event:
                case Started():
                    tracker.start(spec)
                case Progress() if due:
                    tracker.report(spec, asdict(event))
                case Ended():
                    tracker.end(spec, died=event.how == "died")
        if due:
            self.told = time.monotonic()

    def _is_due(self, progress: Progress) -> bool:
        return progress.score is not None or bool(progress.points) or time.monotonic() - self.told >= REPORT_SECONDS

    def over(self) -> None:
        for tracker in self.trackers:
            tracker.on_experiment_end([])
