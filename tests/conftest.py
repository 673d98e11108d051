"""Shared by all tests: where the reference material lies, and offline safety."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before any import of a hub client: nothing may be fetched at test time.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("COLUMNS", None)  # of the terminal that xdist imagines
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("PET_BENCH_SHARED", ROOT.parent / "shared"))


def reference(folder: str) -> Path:
    path = SHARED / folder
    if not path.is_dir():
        pytest.skip(f"no {folder}/ (set PET_BENCH_SHARED to the folder that holds it)")
    return path


@pytest.fixture
def expectations() -> Path:
    """Outputs of the official scorers."""
    return reference("expectations")


@pytest.fixture
def samples() -> Path:
    """Extracts of the real data sets."""
    return reference("samples")
