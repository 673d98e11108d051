"""pet-bench: which parameter-efficient tuning method, at what cost, on which tasks, and is the difference real?

In Python, results are DataFrames: `pet_bench.load_results("demo")` and its kin (`pet_bench.results.frames`).
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["load_breakdowns", "load_curves", "load_predictions", "load_results", "load_settings"]


def __getattr__(name: str) -> Any:
    """pandas is imported when it is first asked for: `pet-bench --help` is instant."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pet_bench.results import frames

    return getattr(frames, name)
