"""How times and states are shown, while a grid runs and in all that is said of it."""

from __future__ import annotations

COLOURS = {"done": "green", "suspect": "yellow", "stopped_early": "cyan", "failed": "red", "oom": "red"}


def duration(seconds: float) -> str:
    """`42 s`, `12 min`, `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
