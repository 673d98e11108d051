"""How much memory a trial has used, and whether it died of too little. Imports no torch."""

from __future__ import annotations

import os
import sys
from array import array
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PROCESS = Path("/proc/self")
PAGE = os.sysconf("SC_PAGESIZE") if hasattr(os, "sysconf") else 4096
# torch's allocator on a CPU raises a plain RuntimeError, as do cuBLAS and cuDNN for want of a workspace
SAID = ("can't allocate memory", "not enough memory", "out of memory", "_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, says that memory ran out, on a device or on the host."""
    while error is not None:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return True
        if isinstance(error, RuntimeError) and any(text in str(error) for text in SAID):
            return True
        error = error.__cause__
    return False


def memory_now(device: torch.device) -> int | None:
    """Bytes reserved on the device, or resident of this process on a CPU; None where neither is to be had."""
    if device.type == "cuda":
        import torch

        return torch.cuda.memory_reserved(device)
    with suppress(OSError):
        return int(PROCESS.joinpath("statm").read_text().split()[1]) * PAGE
    with suppress(ImportError):
        import psutil

        return psutil.Process().memory_info().rss
    return None


class Samples:
    """Memory at many moments."""

    def __init__(self) -> None:
        self.bytes = array("Q")

    def take(self, device: torch.device) -> None:
        if (now := memory_now(device)) is not None:
            self.bytes.append(now)

    def percentile(self, percent: int) -> int | None:
        """Between two samples in proportion, as numpy and peft's method comparison have it; None of no sample."""
        if not self.bytes:
            return None
        place = (len(self.bytes) - 1) * percent / 100
        low, *rest = sorted(self.bytes)[int(place) :][:2]
        return round(low + (place % 1) * (rest[0] - low)) if rest else low


def peak_memory(device: torch.device) -> int:
    """Bytes since `forget_peak`: of device memory, or of this process on a CPU."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError):
        status = dict(line.split(":", 1) for line in PROCESS.joinpath("status").read_text().splitlines())
        return int(status["VmHWM"].split()[0]) * 1024
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak(device: torch.device) -> None:
    """Start counting anew: a worker process may have run another trial before. Not possible on a CPU but Linux's."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            PROCESS.joinpath("clear_refs").write_text("5")
