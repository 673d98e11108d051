"""How many digits of a number are written. Imports no pandas."""

from __future__ import annotations

from math import floor, log10


def three(value: float) -> str:
    """Three digits of a number, or all before its point: `0.0123`, `12.3`, `12,346`."""
    return format(value, f",.{max(0, 2 - floor(log10(abs(value))))}f" if value else ".0f")


def signed(value: float) -> str:
    """`−0.250`."""
    return f"{value:+.3f}".replace("-", "−")
