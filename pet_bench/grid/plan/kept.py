"""What was worked out before, in the cache: believed only where nothing has changed that it was made from."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from pet_bench.data.cache import cache_dir
from pet_bench.errors import UserError
from pet_bench.files import read_json, write_text
from pet_bench.grid.plan.ground import Ground, canonical, digest_of, unchanged

# where these are imported, methods may be too, perhaps others than now lie on disk, and all is quickly made
LOADED = ("torch", "pet_bench.trial.resolve")


def ground_now() -> Ground | None:
    """None where it cannot be told, or where this process may have loaded older code than what lies on disk."""
    return None if any(name in sys.modules for name in LOADED) else Ground.now()


def place(kind: str, content: Any) -> Path | None:
    """One file for each content, which a later one of it replaces."""
    with suppress(UserError):  # of a user without a home
        return cache_dir() / kind / f"{digest_of(content)[:16]}.json"
    return None


def keep(path: Path | None, ground: Ground, read: dict[str, str] | None, body: dict[str, Any]) -> None:
    """read: files that it was made from beside the ground, by path their digests; None: it cannot be told."""
    if path is None or read is None:
        return
    with suppress(OSError, ValueError, TypeError):  # it is made again next time
        whole = {"ground": ground.digest, "read": read, **body}
        write_text(path, canonical(whole | {"digest": digest_of(whole)}))


def kept(path: Path | None, ground: Ground) -> dict[str, Any] | None:
    """What the file holds; None where there is none, of another ground, or not as it was written."""
    if path is None or not path.is_file():
        return None
    try:
        body = read_json(path, "kept")
        whole = body.pop("digest") == digest_of(body) and body["ground"] == ground.digest
        return body if whole and unchanged(body["read"]) else None
    except (UserError, OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
