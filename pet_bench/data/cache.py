"""Where derived data is kept: packed features, the embedded suites."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """`$PET_BENCH_CACHE`, by default `~/.cache/pet-bench`. Everything in it can be made again."""
    return Path(os.environ.get("PET_BENCH_CACHE") or Path.home() / ".cache" / "pet-bench").expanduser()
