"""What keeps a trial from several processes, or its frozen weights from being in parts: said before any work."""

from __future__ import annotations

from collections.abc import Iterable

from pet_bench.backbone.known import find_backbone
from pet_bench.errors import Faults, UserError
from pet_bench.pet import build_method, design_of
from pet_bench.pet.method import restored
from pet_bench.pet.parts import titled
from pet_bench.pet.sharded import check_sharded
from pet_bench.spec import Frozen, Runtime, TrialSpec
from pet_bench.trial.device import devices
from pet_bench.trial.ranks import device_of


def check_divided(specs: Iterable[TrialSpec], runtime: Runtime) -> None:
    """Raises UserError, with all faults together, where a part of a method looks at a batch as a whole, or cannot do
    with weights in parts."""
    faults, seen = Faults(), set[tuple[str, str, Frozen]]()
    for spec in specs if runtime.ranks > 1 else ():
        key = spec.backbone, str(spec.method), spec.recipe.frozen
        if key not in seen:
            seen.add(key)
            with faults:
                _check(spec, runtime)
    faults.check()


def _check(spec: TrialSpec, runtime: Runtime) -> None:
    anatomy = find_backbone(spec.backbone).anatomy.scoped(spec.method.scope)
    design = design_of(build_method(restored(spec.method), anatomy), anatomy)
    whole = [titled(part) for part in design.parts() if not part.divides]
    try:
        if whole:
            raise UserError(f"the {whole[0]} looks at a batch as a whole, which {runtime.ranks} ranks divide")
        if runtime.shard:
            check_sharded(design, spec.recipe.frozen)
    except UserError as error:
        raise error.within(f"{spec.label or spec.method} on {spec.backbone}") from error


def check_ranks(runtime: Runtime) -> None:
    """Raises UserError where there are fewer GPUs than processes, or one process has nobody to divide weights with."""
    gpus = sum(":" in device for device in devices() if device.startswith("cuda"))
    if runtime.ranks > 1 and device_of(0, runtime).startswith("cuda"):
        gpus = 1 if ":" in runtime.device else gpus
        if gpus < runtime.ranks:
            raise UserError(f"resources: a trial asks for {runtime.ranks} gpus, this machine has {gpus}")
    runtime.check_shard(runtime.ranks)
