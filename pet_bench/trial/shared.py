"""What several trials read alike, to be read once: annotations and features by suite and protocol, stock backbones."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from pet_bench.backbone.known import family_of, find_backbone
from pet_bench.backbone.loading import Stock, read_stock
from pet_bench.data.reading import LeftOuts, Store, TrialData, build_tasks, data_root, packed_for, read_data
from pet_bench.data.task import Example, Split
from pet_bench.spec import Fed, Runtime, TrialSpec


@dataclass(frozen=True)
class Reading:
    """The data of some trials without their tasks, whose classes another process may know by another name.

    store: None on a node that does not have the packed features; it packs its own.
    """

    examples: dict[str, dict[Split, list[Example]]]
    store: Store | None
    fingerprint: str
    left_out: LeftOuts = field(default_factory=LeftOuts)
    majorities: dict[str, float] = field(default_factory=dict)


class Shared:
    """Keeps what trials of one grid and one data folder read.

    most: data sets, and backbones, that are kept at most; each can take gigabytes. get: where there is a process that
    has read it already, what a key stands for; raises KeyError for what that process does not have.
    """

    def __init__(self, *, most: int = 2, get: Callable[[str], Any] | None = None):
        self.most, self.get = most, get
        self.kept: dict[str, Any] = {}

    def data(self, spec: TrialSpec, runtime: Runtime, progress: Callable[[int, int], None] | None = None) -> TrialData:
        """The data of a trial; raises UserError as `read_data` does."""

        def read() -> Reading:
            data = read_data(spec, runtime, progress, fed=fed)
            assert data is not None  # it was packed
            return Reading(data.examples, data.store, data.fingerprint, data.left_out)

        fed: Fed = family_of(find_backbone(spec.backbone)).fed
        about = [fed, spec.suite, spec.protocol, bool(spec.recipe.valid_every)]
        key, tasks = f"data {json.dumps(about, sort_keys=True)}", build_tasks(spec.tasks, spec.protocol)
        reading = self.find(key, read)
        if reading.store is None:
            wanted = [(task, part) for task in tasks for part in reading.examples[task.name].values()]
            packed = packed_for(fed, data_root(spec.suite, runtime), wanted, spec.visual, progress=progress)
            reading = self.kept[key] = replace(reading, store=packed)
        return TrialData(
            tasks, reading.examples, reading.store, reading.fingerprint, reading.left_out, reading.majorities
        )

    def stock(self, spec: TrialSpec) -> Stock:
        """The stock backbone of a trial; raises UserError where it cannot be loaded."""
        return self.find(f"backbone {spec.backbone}", lambda: read_stock(find_backbone(spec.backbone)))

    def find(self, key: str, read: Callable[[], Any]) -> Any:
        """What is kept under a key, whose first word is its kind, or else what `read` gives."""
        value = self.kept.pop(key) if key in self.kept else self._fetched(key)
        if value is None:
            value = read()
        kind = key.split()[0]
        alike = [other for other in self.kept if other.split()[0] == kind]
        for other in alike[: max(0, len(alike) + 1 - self.most)]:  # what was used longest ago
            del self.kept[other]
        self.kept[key] = value
        return value

    def _fetched(self, key: str) -> Any:
        try:
            return self.get(key) if self.get else None
        except KeyError:
            return None
