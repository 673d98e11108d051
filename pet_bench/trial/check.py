"""Everything that can be wrong with the data of some trials, said before any of them trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pet_bench.errors import Faults
from pet_bench.spec import Runtime, TrialSpec
from pet_bench.trial.data import read_data


def check_data(
    specs: Iterable[TrialSpec], runtime: Runtime, progress: Callable[[int, int], None] | None = None
) -> None:
    """Read the annotations and pack the features of every suite and protocol among the trials, each once.

    Raises one UserError with all faults. What it packs, the trials find in the cache.
    """
    faults = Faults()
    distinct = {(spec.suite, str(spec.protocol), bool(spec.recipe.valid_every)): spec for spec in specs}
    for spec in distinct.values():
        with faults:
            read_data(spec, runtime, progress)
    faults.check()
