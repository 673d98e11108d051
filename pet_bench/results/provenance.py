"""Where a result comes from: commit, versions, times."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pet_bench
from pet_bench.results.schema import Plugin, Provenance

PACKAGES = ("torch", "transformers", "peft", "ray", "numpy")


def now() -> str:
    """The present moment in UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def commit() -> tuple[str | None, bool | None]:
    """Commit of the running code, and whether that was changed since; (None, None) outside a checkout."""
    package = Path(pet_bench.__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", package, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # else an environment inside someone else's repository
        changes = git("status", "--porcelain", "--", ":/pet_bench", ":/methods", ":/tasks")
        return git("rev-parse", "HEAD"), bool(changes)
    except (OSError, subprocess.CalledProcessError):
        return None, None


@cache
def packages() -> dict[str, str]:
    """Versions of Python and of the packages a score can depend on."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def provenance(
    started: str,
    *,
    device: str = "",
    threads: int | None = None,
    data: str | None = None,
    plugins: Sequence[Plugin] = (),
    also: Sequence[str] = (),
) -> Provenance:
    """The provenance of a trial that ends now.

    started: from `now()`. data: fingerprint of what was read. plugins: from `results.plugins.code`.
    also: further packages that the scores depend on.
    """
    revision, dirty = commit()
    return Provenance(
        commit=revision,
        dirty=dirty,
        version=pet_bench.__version__,
        packages=packages() | {name: version(name) for name in also},
        device=device,
        threads=threads,
        data=data,
        plugins=list(plugins),
        started=started,
        finished=now(),
    )
