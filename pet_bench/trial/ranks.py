"""One trial in several processes, each with a device of its own and its share of the rows of every batch.

The first, rank 0, is the process that the trial was started in: it starts the others, writes checkpoints and records.
All of them make the same batches and the same updates. A batch's gradient is the sum of what its rows are worth
(`trial.loss.share_of`), so that it does not matter who has which; where a method draws at random in training (dropout),
each update draws from a seed of its trial, step and rank, so that it is not as in one process, but is the same after an
interruption.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from pet_bench.data.batches import Batch
from pet_bench.registry import load_plugin
from pet_bench.spec import Runtime, TrialSpec, plain_runtime, validate


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this one is."""

    rank: int = 0
    world: int = 1

    def share(self, batch: Batch) -> Batch | None:
        """This one's rows of a batch; None where it has fewer than there are processes, and none is left."""
        parts = batch.split(self.world)
        return parts[self.rank] if self.rank < len(parts) else None

    def seed(self, trial: int, step: int) -> None:
        """Draw, in this update, from a seed of its own."""
        if self.world > 1:
            torch.manual_seed(int(np.random.SeedSequence((trial, step, self.rank)).generate_state(1)[0]))

    @torch.no_grad()
    def add_up(self, parameters: Sequence[Tensor], loss: Tensor, rows: int) -> None:
        """Make gradients and loss those of the whole batch of so many rows, in place, in one exchange."""
        if self.world == 1:
            return
        there = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8, device=loss.device)
        if rows < self.world:  # one without a row has no gradients: the others say which there are
            dist.all_reduce(there, dist.ReduceOp.MAX)
        held = [p for p, has in zip(parameters, there.tolist(), strict=True) if has]
        for p in held:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        gradients = [p.grad for p in held if p.grad is not None]
        flat = torch.cat([*(gradient.flatten().to(loss.dtype) for gradient in gradients), loss.reshape(1)])
        dist.all_reduce(flat)
        *parts, total = flat.split([*(gradient.numel() for gradient in gradients), 1])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
        loss.copy_(total[0])

    def gathered(self, parts: list[dict[str, str]]) -> dict[str, str]:
        """What all processes predicted, batch by batch in their order, on rank 0; elsewhere this one's."""
        everybody: list[Any] = [parts]
        if self.world > 1:
            everybody = [None] * self.world
            dist.gather_object(parts, everybody if self.rank == 0 else None)
        if self.rank:
            everybody = [parts]
        batches = [each[i] for i in range(max(map(len, everybody))) for each in everybody if i < len(each)]
        return {id: text for batch in batches for id, text in batch.items()}


ALONE = Ranks()


@contextmanager
def together(spec: TrialSpec, runtime: Runtime) -> Iterator[Ranks]:
    """Rank 0 of `runtime.ranks` processes, of which the others run as long as this context."""
    if runtime.ranks == 1:
        yield ALONE
        return
    others: list[subprocess.Popen[str]] = []
    with tempfile.TemporaryDirectory(prefix="pet-bench-") as folder:
        meet = Path(folder) / "meet"
        try:
            for rank in range(1, runtime.ranks):
                told = {"spec": spec.to_dict(), "runtime": plain_runtime(runtime), "rank": rank, "meet": str(meet)}
                other = subprocess.Popen([sys.executable, "-m", __name__], stdin=subprocess.PIPE, text=True)
                others.append(other)
                assert other.stdin
                with other.stdin as line:
                    json.dump(told, line)
            _wait(others, meet.parent)
            with _met(0, runtime, meet):
                yield Ranks(0, runtime.ranks)
            for other in others:
                other.wait()
        except RuntimeError as error:  # an exchange that one of them did not come to
            if lost := [f"{rank} ({code})" for rank, other in enumerate(others, 1) if (code := other.poll())]:
                raise RuntimeError(f"lost process {', '.join(lost)} of {runtime.ranks} of the trial") from error
            raise
        finally:
            for other in others:
                other.kill()
                other.wait()


def _wait(others: Sequence[subprocess.Popen[str]], folder: Path) -> None:
    """Until all are there; raises RuntimeError where one will not be."""
    while not all((folder / str(rank)).exists() for rank in range(1, len(others) + 1)):
        if any(other.poll() is not None for other in others):
            raise RuntimeError("a process has ended before it began")
        time.sleep(0.05)


@contextmanager
def _met(rank: int, runtime: Runtime, meet: Path) -> Iterator[None]:
    backend = "nccl" if device_of(rank, runtime).startswith("cuda") else "gloo"
    dist.init_process_group(backend, init_method=f"file://{meet}", rank=rank, world_size=runtime.ranks)
    try:
        yield
    finally:
        with suppress(Exception):  # the others may be gone
            dist.destroy_process_group()


def device_of(rank: int, runtime: Runtime) -> str:
    """Each process has the GPU of its number, of those that the trial sees."""
    gpus = runtime.device == "cuda" or (runtime.device == "auto" and torch.cuda.is_available())
    return f"cuda:{rank}" if gpus and runtime.ranks > 1 else runtime.device


def follow(spec: TrialSpec, runtime: Runtime, rank: int, meet: Path) -> None:
    """Do what rank 0 does, but for all that it writes."""
    from pet_bench.trial.build import build_trial
    from pet_bench.trial.evaluate import evaluate
    from pet_bench.trial.suspect import Diverged
    from pet_bench.trial.train import checkpoints_of, train

    trial = build_trial(spec, replace(runtime, device=device_of(rank, runtime)))
    trial.ranks = Ranks(rank, runtime.ranks)
    trial.checkpoints = checkpoints_of(trial, runtime)
    (meet.parent / str(rank)).touch()
    with _met(rank, runtime, meet), suppress(Diverged):  # which all of them see
        train(trial)
        for task in trial.data.tasks:
            evaluate(trial, task, "test")


def main(lines: Iterable[str]) -> None:
    told = json.loads("".join(lines))
    runtime = validate(Runtime, told["runtime"], "runtime")
    for plugin in runtime.plugins:
        load_plugin(plugin)
    follow(TrialSpec.from_dict(told["spec"]), runtime, told["rank"], Path(told["meet"]))


if __name__ == "__main__":
    main(sys.stdin)
