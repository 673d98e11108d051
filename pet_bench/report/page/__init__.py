"""The page: one file with all of a grid's results (`html`), its numbers and the examples on it."""

from pet_bench.report.page.html import page
from pet_bench.report.page.predictions import choose

__all__ = ["choose", "page"]
