"""A table's cells are numbers: each format writes them once, in its own way, and none reads another's text."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import isnan, nan
from typing import Any

import pandas as pd

from pet_bench.report.tables.digits import three

MISSING = "–"


class Role(StrEnum):
    """What a cell's number is, and thereby how it is written."""

    SCORE, PERCENT, PARAMETERS, RANK, DIFFERENCE = "score", "percent", "parameters", "rank", "difference"
    COST, FORGETTING = "cost", "forgetting"


DIGITS = {Role.PARAMETERS: ",.0f", Role.DIFFERENCE: "+.2f", Role.FORGETTING: "+.3f"}  # of the others ".2f"
SPREADS = {Role.FORGETTING: ".3f"}


@dataclass(frozen=True)
class Cell:
    """mean ± std over n trials; nan: there is none. best: whether it is among the significantly best of its column."""

    mean: float = nan
    std: float = nan
    n: int = 0
    role: Role = Role.SCORE
    best: bool = False

    @classmethod
    def of(cls, mean: Any, std: Any = None, n: Any = 0, role: Role = Role.SCORE, best: bool = False) -> Cell:
        """Of values in a frame, in which pandas has its own ways to say that there is none.

        Of a sum that ends in a half, the order of addition would say which way it is rounded: digits after the twelfth
        are not its own.
        """
        mean, std = (nan if pd.isna(value) else float(f"{value:.12g}") for value in (mean, std))
        return cls(mean, std, n=0 if pd.isna(n) else int(n), role=role, best=best)

    def texts(self) -> tuple[str, str]:
        """Mean and deviation as written; empty where there is none."""
        if isnan(self.mean):
            return "", ""
        mean = three(self.mean) if self.role == Role.COST else format(self.mean, DIGITS.get(self.role, ".2f"))
        mean = mean.replace("-", "−")
        return mean, "" if isnan(self.std) else format(self.std, SPREADS.get(self.role, ".2f"))

    def plain(self, missing: str = MISSING) -> str:
        mean, std = self.texts()
        return f"{mean} ± {std}" if std else mean or missing


@dataclass(frozen=True)
class Trials:
    """How many trials the means of a row are over, of all there are; suspect: of the n."""

    n: int
    of: int
    suspect: int = 0

    def plain(self) -> str:
        if not self.of:
            return "missing"
        count = f"{self.n}" if self.n == self.of else f"{self.n} of {self.of}"
        return f"{count}†" if self.suspect else count


@dataclass(frozen=True)
class Row:
    """labels: what stands before the numbers. kind: "method", "skipped", "control", "majority"; or of a paper's table
    "ours", "published", "difference". trials None: none are meant. missing: how a cell without a number is written."""

    kind: str
    labels: tuple[str, ...]
    cells: tuple[Cell, ...]
    trials: Trials | None = None
    missing: str = MISSING

    def count(self) -> str:
        return self.trials.plain() if self.trials else self.missing

    def texts(self) -> list[str]:
        """All of it as plain text."""
        return [*self.labels, *(cell.plain(self.missing) for cell in self.cells), self.count()]

    def best(self) -> list[bool]:
        """Of each of these texts whether it is bold."""
        return [*(False for _ in self.labels), *(cell.best for cell in self.cells), False]
