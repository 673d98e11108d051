"""The literature's numbers (`results/published`, package data of `pet_bench.published`) and how they are reckoned."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import TypeVar

import pandas as pd

from pet_bench.errors import unknown
from pet_bench.files import parse_yaml

T = TypeVar("T", float, pd.Series)


def folder() -> Traversable:
    return files("pet_bench.published")


@cache
def methods() -> dict[str, dict]:
    """How papers write methods (name) and how figures draw them (mark: colour, marker): `methods.yaml`."""
    return parse_yaml((folder() / "methods.yaml").read_text("utf-8"), "methods.yaml")


def name_of(method: str) -> str:
    """As papers write it: `vl-adapter+middle-x` is VL-Adapter + middleX; an unknown method keeps its own name."""
    return methods().get(method, {}).get("name", method)


def tables() -> list[str]:
    """Names of the published tables."""
    return sorted(file.name.removesuffix(".csv") for file in folder().iterdir() if file.name.endswith(".csv"))


def load(name: str) -> pd.DataFrame:
    """One published table in its printed order, empty cells NaN; raises UserError for an unknown name."""
    if name not in tables():
        raise unknown("published table", name, tables())
    with (folder() / f"{name}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


def average(scores: Iterable[T]) -> T:
    """Mean over tasks, each with the same weight; NaN if a score is. Decimals in, decimals out."""
    first, *others = scores
    total = first
    for score in others:
        total = total + score
    return total / (1 + len(others))


def relative_gain(score: T, reference: float) -> T:
    """100 · (score / reference − 1), in %: what is gained over full fine-tuning in VL-PET's Figure 1."""
    gain: T = 100 * (score / reference - 1)  # type: ignore[assignment]
    return gain
