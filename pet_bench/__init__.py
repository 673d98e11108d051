"""pet-bench: which parameter-efficient tuning method, at what cost, on which tasks, and is the difference real?

In Python: `load_trial("0123").predict([…])` asks a finished trial's model (`pet_bench.trial.loaded`), `run_trial` runs
one and `Grid.from_yaml("demo")` many (`pet_bench.grids`), `load_backbone` and `attach` give a model for a loop of one's
own (`pet_bench.trial.api`), and the frames of `load_results("demo")` and its kin hold what trials measured
(`pet_bench.results.frames`).
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pet_bench.grids import Grid
    from pet_bench.results.frames import (
        load_breakdowns,
        load_curves,
        load_forgetting,
        load_inference,
        load_predictions,
        load_results,
        load_settings,
    )
    from pet_bench.trial.api import attach, load_backbone, run_trial
    from pet_bench.trial.loaded import load_trial

if sys.argv[:1] == ["-m"] and "pet_bench.cli" in sys.orig_argv and not sys.flags.safe_path:
    del sys.path[0]  # the working folder, which may have a random.py: `python -m pet_bench.cli` is to be `pet-bench`

__version__ = "0.1.0"
__all__ = [
    "Grid",
    "attach",
    "load_backbone",
    "load_breakdowns",
    "load_curves",
    "load_forgetting",
    "load_inference",
    "load_predictions",
    "load_results",
    "load_settings",
    "load_trial",
    "run_trial",
]
_HOMES = dict.fromkeys(("attach", "load_backbone", "run_trial"), "trial.api") | {
    "load_trial": "trial.loaded",
    "Grid": "grids",
}


def __getattr__(name: str) -> Any:
    """torch and pandas are imported when they are first asked for: `pet-bench --help` is instant."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"pet_bench.{_HOMES.get(name, 'results.frames')}"), name)
