"""Everything that can be wrong with the designs and the data of some trials, said before any of them trains."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

from pet_bench.backbone.known import family_of, find_backbone
from pet_bench.backbone.loading import build
from pet_bench.data.reading import read_data
from pet_bench.errors import Faults, PluginError, UserError
from pet_bench.pet import attach_method, build_method, design_of
from pet_bench.pet.large import check_frozen
from pet_bench.pet.method import restored
from pet_bench.pet.rates import hold
from pet_bench.spec import Fed, Recipe, Runtime, TrialSpec
from pet_bench.trial.shared import Shared


class Spoilt(PluginError):
    """What plug-ins' own code raised. trials: by id, those that this costs, and why; the others can run."""

    trials: dict[str, PluginError]

    @classmethod
    def costing(cls, trials: dict[str, PluginError]) -> Spoilt:
        several = cls.many(trials.values())
        error = cls(*several.faults)
        error.parts, error.trials = several.parts, trials
        return error


def check_designs(specs: Iterable[TrialSpec]) -> None:
    """Attach every design among the trials to its backbone, each once, without weights.

    Raises one UserError with all faults: sites that the backbone does not have, selectors that match nothing, sizes
    that do not fit. Where methods' own code fails and nothing else, that is `Spoilt`.
    """

    def check(spec: TrialSpec) -> None:
        backbone = find_backbone(spec.backbone)
        try:
            model = build(backbone, spec.visual, spec.method.scope, device="meta")
            method = build_method(restored(spec.method), model.anatomy)
            design = design_of(method, model.anatomy)
            check_frozen(model, design, spec.recipe.frozen)
            attach_method(model, method, design, spec.tasks)
            hold(model, spec.recipe.rates)
        except UserError as error:
            raise error.within(f"{spec.label} on {spec.backbone}") from error

    def held(recipe: Recipe) -> Hashable:
        return recipe.frozen, *sorted(recipe.rates.items())

    _each(specs, lambda spec: (spec.backbone, str(spec.method), spec.visual, spec.tasks, held(spec.recipe)), check)


def _each(
    specs: Iterable[TrialSpec], alike: Callable[[TrialSpec], Hashable], check: Callable[[TrialSpec], Any]
) -> None:
    """Check one of all trials that are alike; raises one UserError with all faults, or `Spoilt`."""
    groups: dict[Hashable, list[TrialSpec]] = {}
    for spec in specs:
        groups.setdefault(alike(spec), []).append(spec)
    faults = Faults()
    spoilt: dict[str, PluginError] = {}
    for trials in groups.values():
        with faults:
            try:
                check(trials[0])
            except PluginError as error:
                spoilt |= dict.fromkeys((spec.id for spec in trials), error)
    if faults.found:
        raise UserError.many([*faults.found, *spoilt.values()])
    if spoilt:
        raise Spoilt.costing(spoilt)


def check_data(
    specs: Iterable[TrialSpec],
    runtime: Runtime,
    progress: Callable[[int, int], None] | None = None,
    shared: Shared | None = None,
    *,
    pack: bool = True,
) -> None:
    """Read the annotations and pack the features of every suite and protocol among the trials, each once.

    Raises one UserError with all faults, or `Spoilt`. What it packs, the trials find in the cache; what it reads, in
    `shared`. pack: without, features are looked at only, and nothing is written or kept.
    """
    shared = shared or Shared()
    _each(
        specs,
        lambda spec: (_fed(spec), spec.suite, str(spec.protocol), bool(spec.recipe.valid_every)),
        lambda spec: (
            shared.data(spec, runtime, progress) if pack else read_data(spec, runtime, pack=False, fed=_fed(spec))
        ),
    )


def check_backbones(specs: Iterable[TrialSpec], shared: Shared, fed: Fed | None = None) -> None:
    """Load every backbone among the trials, each once, or only those that are fed so.

    Raises one UserError for all that cannot be, or `Spoilt`.
    """
    those = [spec for spec in specs if fed in (None, _fed(spec))]
    _each(those, lambda spec: spec.backbone, shared.stock)


def _fed(spec: TrialSpec) -> Fed:
    return family_of(find_backbone(spec.backbone)).fed
