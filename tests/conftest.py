"""Shared by all tests: where the reference material lies, and offline safety."""

from __future__ import annotations

import os
from pathlib import Path

# Before any import of a hub client: nothing may be fetched at test time.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("PET_BENCH_SHARED", ROOT.parent / "shared"))
