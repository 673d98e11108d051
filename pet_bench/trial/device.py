"""The processor a trial runs on, by the name that a user gives it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pet_bench.errors import UserError

TF32 = (8, 0)  # compute capability from which on there is TF32


def find_device(name: str) -> torch.device:
    """The device of a name; auto: the first GPU where there is one. Raises UserError where it is not on this machine.

    Nothing is set up on it: what asks may only be about to start others.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    possible = devices()
    if name not in possible:
        raise UserError(f'device "{name}" cannot be used{_why(name)} (possible: auto, {", ".join(possible)})')
    return torch.device(name)


def devices() -> list[str]:
    """Names of what this machine can train on."""
    gpus = ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    return ["cpu", *(gpus if len(gpus) > 1 else []), *(["mps"] if torch.backends.mps.is_available() else [])]


def check_precision(precision: str, device: torch.device) -> None:
    """Raises UserError where a device does not have it: it would compute otherwise than the trial says."""
    if precision != "tf32":
        return
    if device.type != "cuda":
        raise UserError(f'recipe: precision is tf32, which device "{device}" does not have (possible: a CUDA device)')
    if (has := torch.cuda.get_device_capability(device)) < TF32:
        capability = f"compute capability {has[0]}.{has[1]}, expected {TF32[0]}.{TF32[1]} at least"
        raise UserError(f'recipe: precision is tf32, which device "{device}" does not have ({capability})')


@contextmanager
def products(precision: str) -> Iterator[None]:
    """Inside of it products of float32 matrices are in TF32 where that is the precision, and after it as before."""
    before = torch.get_float32_matmul_precision()
    try:
        if precision == "tf32":
            torch.set_float32_matmul_precision("high")
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _why(name: str) -> str:
    if not name.startswith("cuda") or not torch.backends.cuda.is_built():
        return ": this torch is built without CUDA" if name.startswith("cuda") else ""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return ": no such GPU is found" if visible is None else f": no such GPU in CUDA_VISIBLE_DEVICES={visible}"
