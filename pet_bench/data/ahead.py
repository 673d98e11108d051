"""Batches made while the accelerator is busy with those before."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

from pet_bench.data.batches import Batch

DEPTH = 2  # batches that wait


def ahead(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The same batches in their order, on the device: made in a thread, in memory that is copied without waiting.

    On the CPU, which would have to make them anyway, one after the other. What making one raises is raised in its turn.
    """
    if device.type == "cpu":
        yield from batches
    else:
        yield from (batch.to(device) for batch in in_thread(batch.pinned() for batch in batches))


def in_thread(batches: Iterator[Batch], depth: int = DEPTH) -> Iterator[Batch]:
    """Each is asked for in one thread, `depth` of them before they are wanted."""
    with ThreadPoolExecutor(1, "batches") as thread:
        waiting = deque(thread.submit(next, batches, None) for _ in range(depth))
        while (batch := waiting.popleft().result()) is not None:
            waiting.append(thread.submit(next, batches, None))
            yield batch
