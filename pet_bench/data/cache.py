"""Where derived data is kept: packed features, the embedded suites."""

from __future__ import annotations

import os
from pathlib import Path

from pet_bench.errors import UserError

ELSEWHERE = "PET_BENCH_CACHE=FOLDER names another place"


def cache_dir() -> Path:
    """`$PET_BENCH_CACHE`, by default `~/.cache/pet-bench`. Everything in it can be made again.

    Raises UserError where the user has no home.
    """
    try:
        return Path(os.environ.get("PET_BENCH_CACHE") or "~/.cache/pet-bench").expanduser()
    except RuntimeError:
        raise UserError(f"cache: HOME is not set and this user has no home folder; {ELSEWHERE}") from None


def unwritable(what: str, folder: Path, error: OSError) -> UserError:
    """The fault of what cannot be kept in the cache."""
    return UserError(f"{what} cannot write to the cache {folder}: {error.strerror or error}; {ELSEWHERE}")
