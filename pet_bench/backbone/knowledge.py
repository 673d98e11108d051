"""What a backbone knew before it was tuned, as text to ask it about: for how much of it a method forgets."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from importlib import import_module
from pathlib import Path

from pet_bench.backbone.known import Backbone
from pet_bench.errors import UserError, foreign
from pet_bench.files import read_text

MOST_LINES = 1000
TEXT = "text"  # what the lines are called among the kinds of exercises


@dataclass(frozen=True)
class Knowledge:
    """lines: of the text that a model was pre-trained on, or text like it. tasks: by name, what was asked there and the
    answer; those of a task that is tuned on have its name."""

    lines: tuple[str, ...] = ()
    tasks: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)

    @property
    def kinds(self) -> dict[str, tuple[tuple[str, str], ...]]:
        """Pairs of prompt and answer by kind; a line is an answer without a prompt."""
        return {TEXT: tuple(("", line) for line in self.lines), **self.tasks}


def digest(pairs: tuple[tuple[str, str], ...]) -> str:
    """Twelve hex digits of what is asked."""
    return sha256(json.dumps(pairs).encode()).hexdigest()[:12]


def knowledge_of(backbone: Backbone, file: Path | None = None) -> Knowledge | None:
    """What the backbone says of itself (`Backbone.knows`), with the lines of `file` for its text where one is given.

    None where neither is there. Raises UserError for a file that is no text of 1 to `MOST_LINES` lines.
    """
    known = _own(backbone.knows) if backbone.knows else None
    if file is None:
        return known
    return Knowledge(read_lines(file), known.tasks if known else {})


@lru_cache
def _own(place: str) -> Knowledge:
    module, _, name = place.partition(":")
    with foreign(f'what a backbone knows, "{place}": it raised'):
        asked: Callable[[], Knowledge] = getattr(import_module(module), name)
        known = asked()
    if not isinstance(known, Knowledge):
        raise UserError(f'what a backbone knows, "{place}", is no pet_bench.backbone.knowledge.Knowledge')
    return known


def read_lines(file: Path) -> tuple[str, ...]:
    """The lines of a text, stripped, without empty ones; raises UserError as `knowledge_of`."""
    what = f'text "{file}"'
    lines = tuple(line.strip() for line in read_text(file, what).splitlines() if line.strip())
    if not 1 <= len(lines) <= MOST_LINES:
        raise UserError(f"{what} has {len(lines):,} lines that are not empty (possible: 1 to {MOST_LINES:,})")
    return lines
