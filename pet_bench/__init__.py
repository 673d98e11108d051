"""pet-bench: which parameter-efficient tuning method, at what cost, on which tasks, and is the difference real?

In Python, results are DataFrames: `pet_bench.load_results("demo")` and its kin (`pet_bench.results.frames`).
"""

import sys
from typing import Any

if sys.argv[:1] == ["-m"] and "pet_bench.cli" in sys.orig_argv and not sys.flags.safe_path:
    del sys.path[0]  # the working folder, which may have a random.py: `python -m pet_bench.cli` is to be `pet-bench`

__version__ = "0.1.0"
__all__ = ["load_breakdowns", "load_curves", "load_predictions", "load_results", "load_settings"]


def __getattr__(name: str) -> Any:
    """pandas is imported when it is first asked for: `pet-bench --help` is instant."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pet_bench.results import frames

    return getattr(frames, name)
