"""Everything that can be wrong with the designs and the data of some trials, said before any of them trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pet_bench.backbone.known import find_backbone
from pet_bench.backbone.load import build
from pet_bench.errors import Faults, UserError
from pet_bench.pet import attach, build_method
from pet_bench.spec import Runtime, TrialSpec
from pet_bench.trial.data import read_data
from pet_bench.trial.shared import Shared


def check_designs(specs: Iterable[TrialSpec]) -> None:
    """Attach every design among the trials to its backbone, each once, without weights.

    Raises one UserError with all faults: sites that the backbone does not have, selectors that match nothing, sizes
    that do not fit.
    """
    faults = Faults()
    distinct = {(spec.backbone, str(spec.method), spec.visual, spec.tasks): spec for spec in specs}
    for spec in distinct.values():
        backbone = find_backbone(spec.backbone)
        try:
            design = build_method(spec.method, backbone.shape).design(backbone.shape)
            attach(build(backbone, spec.visual, device="meta"), design, spec.tasks)
        except UserError as error:
            for fault in error.faults:
                faults.add(f"{spec.label} on {spec.backbone}: {fault}")
    faults.check()


def check_data(
    specs: Iterable[TrialSpec],
    runtime: Runtime,
    progress: Callable[[int, int], None] | None = None,
    shared: Shared | None = None,
    *,
    pack: bool = True,
) -> None:
    """Read the annotations and pack the features of every suite and protocol among the trials, each once.

    Raises one UserError with all faults. What it packs, the trials find in the cache; what it reads, in `shared`.
    pack: without, features are looked at only, and nothing is written or kept.
    """
    faults, shared = Faults(), shared or Shared()
    distinct = {(spec.suite, str(spec.protocol), bool(spec.recipe.valid_every)): spec for spec in specs}
    for spec in distinct.values():
        with faults:
            shared.data(spec, runtime, progress) if pack else read_data(spec, runtime, pack=False)
    faults.check()


def check_backbones(specs: Iterable[TrialSpec], shared: Shared) -> None:
    """Load every backbone among the trials, each once; raises one UserError for all that cannot be loaded."""
    faults = Faults()
    for spec in {spec.backbone: spec for spec in specs}.values():
        with faults:
            shared.stock(spec)
    faults.check()
