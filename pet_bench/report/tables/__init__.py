"""Tables: the comparison (`views`), papers' tables beside ours (`styles`, `formats`), one trial in full (`trial`)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pet_bench.report.summary import comparison
    from pet_bench.report.tables.beneath import notes
    from pet_bench.report.tables.views import to_csv, to_markdown, to_rich, to_text

__all__ = ["comparison", "notes", "to_csv", "to_markdown", "to_rich", "to_text"]
_HOMES = {"comparison": "summary", "notes": "tables.beneath"}


def __getattr__(name: str) -> Any:
    """pandas is imported when something that needs it is asked for: one trial is shown without."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"pet_bench.report.{_HOMES.get(name, 'tables.views')}"), name)
