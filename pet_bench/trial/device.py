"""The processor a trial runs on, by the name that a user gives it."""

from __future__ import annotations

import os

import torch

from pet_bench.errors import UserError


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


def _why(name: str) -> str:
    if not name.startswith("cuda") or not torch.backends.cuda.is_built():
        return ": this torch is built without CUDA" if name.startswith("cuda") else ""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return ": no such GPU is found" if visible is None else f": no such GPU in CUDA_VISIBLE_DEVICES={visible}"
