"""Tensors of a batch whose examples have a different number of rows each."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Packed(NamedTuple):
    """What B examples have a different number of, one behind the other: flat (N, …) and counts (B,), which add up to N.

    Sliced like a tensor with a row an example.
    """

    flat: Tensor
    counts: Tensor

    def of(self, rows: slice) -> Packed:
        ends = self.counts.cumsum(0)
        start, end = (int(ends[at - 1]) if at else 0 for at in (rows.start, rows.stop))
        return Packed(self.flat[start:end], self.counts[rows])

    def each(self, change: Callable[[Tensor], Tensor]) -> Packed:
        return Packed(change(self.flat), change(self.counts))


Rows = Tensor | Packed
