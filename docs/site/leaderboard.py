"""The grids in results/ as a site of their own inside this one, as `pet-bench report --all --html` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import repository

from pet_bench.cli import main

FOLDER = "leaderboard"
PAGE = f"""\
# Leaderboard

Who leads where, in all grids whose results are in [results/](results/README.md), and a page of each: sorted and
filtered tables, costs, plots, examples with what methods answered.

[Open the leaderboard]({FOLDER}/index.html)
"""


def files() -> Iterator[tuple[str, bytes]]:
    """(address, content) of all that it consists of; raises FileNotFoundError where a grid that is kept has no page."""
    results = repository.ROOT / "results"
    with TemporaryDirectory() as folder:
        to = Path(folder)
        try:
            with redirect_stdout(StringIO()):
                main(["report", "--all", "--html", "--out", str(results), "--to", str(to)])
        except SystemExit as end:
            if end.code:
                raise RuntimeError("the leaderboard cannot be made") from end
        for kept in sorted(results.glob("*/about.yaml")):  # what only begins here, a demonstration say, may have none
            if not (page := to / kept.parent.name / "index.html").is_file():
                raise FileNotFoundError(f"the leaderboard has no {page.relative_to(to)}")
        for path in sorted(to.rglob("*.html")):
            yield f"{FOLDER}/{path.relative_to(to).as_posix()}", path.read_bytes()
