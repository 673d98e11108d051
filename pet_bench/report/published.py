"""The literature's numbers (`results/published`, package data of `pet_bench.published`) and how they are reckoned."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files

import pandas as pd

from pet_bench.errors import unknown

FOLDER = files("pet_bench.published")
NAMES = {
    "full": "Full fine-tuning",
    "bitfit": "BitFit",
    "prompt-tuning": "Prompt tuning",
    "compacter": "Compacter",
    "hyperformer": "HyperFormer",
    "lora": "LoRA",
    "dora": "DoRA",
    "vl-adapter": "VL-Adapter",
    "lst": "LST",
    "vl-pet-small": "VL-PET-small",
    "vl-pet-middle-x": "VL-PET-middleX",
    "vl-pet-middle-y": "VL-PET-middleY",
    "vl-pet-large": "VL-PET-large",
}
GATES = {"small": "small", "middle-x": "middleX", "middle-y": "middleY", "large": "large"}
BACKBONES = {"bart-base": "BART-base", "t5-base": "T5-base"}


def name_of(method: str) -> str:
    """As papers write it: `vl-adapter+middle-x` is VL-Adapter + middleX; an unknown method keeps its own name."""
    base, plus, gate = method.partition("+")
    return f"{NAMES[base]} + {GATES[gate]}" if plus and base in NAMES and gate in GATES else NAMES.get(method, method)


def tables() -> list[str]:
    """Names of the published tables."""
    return sorted(file.name.removesuffix(".csv") for file in FOLDER.iterdir() if file.name.endswith(".csv"))


def load(name: str) -> pd.DataFrame:
    """One published table in its printed order, empty cells NaN; raises UserError for an unknown name."""
    if name not in tables():
        raise unknown("published table", name, tables())
    with (FOLDER / f"{name}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


def average(scores: Iterable[float]) -> float:
    """Mean over tasks, each with the same weight; NaN if a score is. Decimals in, decimals out."""
    scores = list(scores)
    return sum(scores[1:], scores[0]) / len(scores)


def relative_gain(score: float, reference: float) -> float:
    """100 · (score / reference − 1), in %: what is gained over full fine-tuning in VL-PET's Figure 1."""
    return 100 * (score / reference - 1)
