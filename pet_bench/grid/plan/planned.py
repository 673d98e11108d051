"""What a grid stands for, once it is expanded: its trials, and the pairs that are left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from pet_bench.grid.plan.space import Values
from pet_bench.spec import Control, TrialSpec


@dataclass(frozen=True)
class Group:
    """What a search chooses the best for, each by itself. method: as the grid lists it, with its options."""

    backbone: str
    method: str
    suite: str
    control: Control

    @property
    def uncontrolled(self) -> Group:
        """Whose tries its values are: a control has none of its own."""
        return replace(self, control="none")

    def __str__(self) -> str:
        control = "" if self.control == "none" else f" [{self.control}]"
        return f"{self.backbone} × {self.method} × {self.suite}{control}"


@dataclass(frozen=True)
class Skipped:
    """A pair that a grid lists and leaves out. method: as tables call it. reason: the method's own, in a few words."""

    backbone: str
    method: str
    reason: str

    def __str__(self) -> str:
        return f"skipped: {self.method} on {self.backbone}: {self.reason}"


@dataclass(frozen=True)
class Planned:
    """A trial of the grid. values: what a search sets in it."""

    trial: TrialSpec
    group: Group
    values: Values


@dataclass(frozen=True)
class Plan:
    """Every trial and every pair that is left out, each once."""

    planned: tuple[Planned, ...]
    skipped: tuple[Skipped, ...] = ()

    @classmethod
    def joined(cls, plans: Iterable[Plan]) -> Plan:
        """Of what several have, the first one's is kept."""
        plans = list(plans)
        trials: dict[str, Planned] = {}
        for planned in (one for plan in plans for one in plan.planned):
            trials.setdefault(planned.trial.id, planned)
        return cls(tuple(trials.values()), tuple(dict.fromkeys(one for plan in plans for one in plan.skipped)))

    @property
    def trials(self) -> list[TrialSpec]:
        return [one.trial for one in self.planned]
