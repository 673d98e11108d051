"""Where an interrupted trial goes on: one safetensors file, tensors in it and all else as JSON in its metadata.

A state is plain data and tensors, in lists and in dicts with string keys.
"""

from __future__ import annotations

import json
import random
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from pet_bench.files import replacing
from pet_bench.results import store
from pet_bench.results.provenance import commit, packages
from pet_bench.results.schema import OTHER_SOFTWARE
from pet_bench.trial.memory import is_out_of_memory

FORMAT = 1
NAME = store.CHECKPOINT
TENSOR = "__tensor__"  # {TENSOR: name} stands for a tensor in the JSON

State = dict[str, Any]


class Unreadable(Exception):
    """The file is no whole checkpoint."""


class Checkpoints:
    """The checkpoint of one trial in its folder, and when it is due.

    of: what the trial is; one that was written of anything else is not taken up. seconds, steps: time and updates from
    one to the next (None: never for this reason).
    """

    def __init__(self, folder: Path, of: dict[str, Any], *, seconds: float | None = None, steps: int | None = None):
        self.path, self.of = folder / NAME, {"format": FORMAT, **of}
        self.seconds, self.steps = seconds, steps
        self.last = time.monotonic(), 0

    @property
    def wanted(self) -> bool:
        return self.seconds is not None or self.steps is not None

    def due(self, step: int) -> bool:
        time_due = self.seconds is not None and time.monotonic() - self.last[0] >= self.seconds
        return time_due or (self.steps is not None and step - self.last[1] >= self.steps)

    def start(self, step: int) -> None:
        """Count time and updates from now."""
        self.last = time.monotonic(), step

    def write(self, step: int, state: State) -> None:
        """Replace the file by one of this state, after update number `step`."""
        write(self.path, {"of": self.of, "step": step, "made with": made_with()}, state)
        self.start(step)

    def read(self) -> tuple[State | None, list[str]]:
        """The state to go on from, and what is to be said about it or about why there is none.

        An unreadable file is kept as `<name>.unreadable`.
        """
        for leftover in self.path.parent.glob(f".{NAME}.*"):  # of a process that was killed while it wrote
            leftover.unlink(missing_ok=True)
        if not self.path.exists():
            return None, []
        try:
            about, state = read(self.path)
        except Unreadable as error:
            kept = self.path.with_name(f"{NAME}.unreadable")
            self.path.replace(kept)
            return None, [f'the checkpoint was unreadable ({error}) and is now "{kept.name}": the trial began anew']
        if others := differences(about["of"], self.of):
            return None, [f"the checkpoint of step {about['step']} does not fit ({others}): the trial began anew"]
        if others := differences(about["made with"], made_with()):
            return state, [f"taken up at step {about['step']} {OTHER_SOFTWARE} ({others})"]
        return state, []

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def made_with() -> dict[str, Any]:
    return {"commit": commit()[0], **packages()}


def differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """`accumulation 2, now 1`"""
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return ", ".join(f"{key} {before.get(key)}, now {now.get(key)}" for key in changed)


# the file ------------------------------------------------------------------------------------------------------------


ABOUT = {"of": dict, "step": int, "made with": dict}


def write(path: Path, about: dict[str, Any], state: State) -> None:
    """Write a whole checkpoint or leave the one that is there. A digest of all content is part of it."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps({"about": about, "state": _without_tensors(state, tensors)})
    with replacing(path) as temporary:
        save_file(tensors, temporary, {"pet-bench": text, "sha256": _digest(text, tensors)})


def read(path: Path) -> tuple[dict[str, Any], State]:
    """What it is about and the state; raises `Unreadable` for anything but a whole checkpoint."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  not a mapping
            metadata = file.metadata() or {}
        text = metadata["pet-bench"]
        if metadata["sha256"] != _digest(text, tensors):
            raise ValueError("its content does not match its digest")
        content = json.loads(text)
        about, state = content["about"], _with_tensors(content["state"], tensors)
        if not all(type(about.get(key)) is kind for key, kind in ABOUT.items()):
            raise ValueError("it does not say what it is of")
        return about, state
    except Exception as error:  # safetensors' own, and whatever a damaged header leads to
        if is_out_of_memory(error):
            raise
        raise Unreadable(" ".join(str(error).split()) or type(error).__name__) from error


def _without_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The value as JSON has it; its tensors go into `tensors`."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous()
        return {TENSOR: name}
    if isinstance(value, dict):
        return {key: _without_tensors(item, tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_tensors(item, tensors) for item in value]
    return value


def _with_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {TENSOR}:
            return tensors[value[TENSOR]]
        return {key: _with_tensors(item, tensors) for key, item in value.items()}
    return [_with_tensors(item, tensors) for item in value] if isinstance(value, list) else value


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    digest = sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


# random numbers ------------------------------------------------------------------------------------------------------


def generators(device: torch.device) -> State:
    """The states of all generators that a trial may draw from."""
    version, words, spare = random.getstate()
    numbers = np.random.get_state(legacy=False)
    states = {
        "python": [version, list(words), spare],
        "numpy": numbers | {"state": {key: np.asarray(part).tolist() for key, part in numbers["state"].items()}},
        "torch": torch.get_rng_state(),
    }
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_generators(states: State, device: torch.device) -> None:
    version, words, spare = states["python"]
    random.setstate((version, tuple(words), spare))
    numbers = states["numpy"]
    np.random.set_state(numbers | {"state": numbers["state"] | {"key": np.array(numbers["state"]["key"], np.uint32)}})
    torch.set_rng_state(states["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
