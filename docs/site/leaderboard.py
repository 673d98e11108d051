"""The grids in results/ as a site of their own inside this one, as `pet-bench report --all --html` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import repository

from pet_bench.cli import main

FOLDER = "leaderboard"
PAGE = f"""\
# Leaderboard

Who leads where, in all grids whose results are in [results/](results/README.md), and a page of each: sorted and
filtered tables, costs, plots, examples with what methods answered.

[Open the leaderboard]({FOLDER}/index.html)
"""


def written(to: Path) -> Iterator[tuple[str, Path]]:
    """(address, file) of all that it consists of; raises FileNotFoundError where a grid has no page."""
    results = repository.ROOT / "results"
    try:
        with redirect_stdout(StringIO()):
            main(["report", "--all", "--html", "--out", str(results), "--to", str(to)])
    except SystemExit as end:
        if end.code:
            raise RuntimeError("the leaderboard cannot be made") from end
    for grid in sorted(results.glob("*/grid.yaml")):
        if not (page := to / grid.parent.name / "index.html").is_file():
            raise FileNotFoundError(f"the leaderboard has no {page.relative_to(to)}")
    for path in sorted(to.rglob("*.html")):
        yield f"{FOLDER}/{path.relative_to(to).as_posix()}", path
