"""Tables: the comparison (`views`), papers' tables beside ours (`styles`, `formats`), one trial in full (`trial`)."""

from pet_bench.report.summary import comparison
from pet_bench.report.tables.beneath import notes
from pet_bench.report.tables.views import to_csv, to_markdown, to_rich, to_text

__all__ = ["comparison", "notes", "to_csv", "to_markdown", "to_rich", "to_text"]
