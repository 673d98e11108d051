"""Errors that mean that memory ran out, and those that do not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pet_bench.errors import UserError
from pet_bench.trial.memory import forget_peak, is_out_of_memory, peak_memory

HUGE = 2**55


def raised(do):
    try:
        do()
    except Exception as error:
        return error
    pytest.fail("nothing was raised")


def wrapped():
    try:
        raise MemoryError
    except MemoryError as error:
        raise UserError("the backbone cannot be loaded") from error


def cublas():
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def on_a_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize(
    "do", [lambda: torch.empty(HUGE), lambda: np.empty(HUGE), lambda: bytearray(HUGE), wrapped, cublas, on_a_gpu]
)
def test_out_of_memory(do):
    assert is_out_of_memory(raised(do))


@pytest.mark.parametrize(
    "do", [lambda: torch.ones(2) @ torch.ones(3), lambda: {}["memory"], lambda: Path("/nowhere").read_text()]
)
def test_other_errors(do):
    assert not is_out_of_memory(raised(do))
    assert not is_out_of_memory(UserError("the disk is full"))


def test_the_peak_is_of_what_was_used_since():
    device = torch.device("cpu")
    forget_peak(device)
    before = peak_memory(device)
    torch.ones(100 * 2**18).sum()  # 100 MiB
    assert peak_memory(device) - before > 80 * 2**20


def test_it_needs_no_torch():
    """The driver of a grid does not load it."""
    code = "import sys, pet_bench.trial.memory; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
