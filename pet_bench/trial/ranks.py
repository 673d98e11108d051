"""One trial in several processes, each with a device of its own and its share of the rows of every batch.

The first, rank 0, is the process that the trial was started in: it starts the others, writes checkpoints and records.
All of them make the same batches and the same updates. A batch's gradient is the sum of what its rows are worth
(`trial.loss.share_of`), so that it does not matter who has which; a method with a part that looks at a batch as a whole
is refused (`trial.divided`). Where a method draws at random in training (dropout, one of several experts), each update
draws from a seed of its trial, step and rank, so that it is not as in one process, but is the same after an
interruption.

With `Runtime.shard` frozen weights are divided as well (`pet.sharded`): then a layer runs in all processes or in none,
so that each has as many parts of a batch as the others, and all of them predict everything.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from pet_bench.data.batches import Batch
from pet_bench.spec import Runtime, TrialSpec, plain_runtime


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this one is. sharded: whether frozen weights are divided among them."""

    rank: int = 0
    world: int = 1
    sharded: bool = False

    def parts(self, batch: Batch, count: int) -> Iterator[tuple[Batch, bool]]:
        """This one's rows of a batch in so many parts, as far as there are rows, and that they count.

        Where weights are sharded, whoever has fewer parts than another runs a row more for each, which does not."""
        shares = batch.split(self.world)
        own = shares[self.rank].split(count) if self.rank < len(shares) else []
        yield from ((part, True) for part in own)
        if self.sharded:
            most = min(count, max(map(len, shares)))
            yield from ((batch.split(len(batch))[0], False) for _ in range(most - len(own)))

    def seed(self, trial: int, step: int) -> None:
        """Draw, in this update, from a seed of its own."""
        if self.world > 1:
            torch.manual_seed(int(np.random.SeedSequence((trial, step, self.rank)).generate_state(1)[0]))

    @torch.no_grad()
    def add_up(self, parameters: Sequence[Tensor], loss: Tensor) -> None:
        """Make gradients and loss those of the whole batch, in place, in one exchange.

        Which gradients there are may differ: one process has no row, or another expert. None is what none of them has.
        """
        if self.world == 1:
            return
        own = [p.grad is not None for p in parameters]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        there = torch.tensor(own, dtype=torch.float32, device=loss.device)
        flat = torch.cat([*(g.flatten().float() for g in gradients), there, loss.reshape(1).float()])
        dist.all_reduce(flat)
        *parts, there, total = flat.split([*(p.numel() for p in parameters), len(own), 1])
        for p, part, has in zip(parameters, parts, own if all(own) else there.tolist(), strict=True):
            p.grad = part.view_as(p).to(p.dtype) if has else None
        loss.copy_(total[0])

    def agreed(self, value: float) -> float:
        """Rank 0's."""
        values: list[Any] = [value]
        if self.world > 1:
            dist.broadcast_object_list(values)
        return values[0]

    @property
    def turns(self) -> tuple[int, int]:
        """Which of how many batches to be predicted are this one's, the first of them and then every so many."""
        return (0, 1) if self.sharded else (self.rank, self.world)

    def gathered(self, parts: list[dict[str, str]]) -> dict[str, str]:
        """What all processes predicted, batch by batch in their order, on rank 0; elsewhere this one's."""
        everybody: list[Any] = [parts]
        if self.turns[1] > 1:
            everybody = [None] * self.world
            dist.gather_object(parts, everybody if self.rank == 0 else None)
        if self.rank:
            everybody = [parts]
        batches = [each[i] for i in range(max(map(len, everybody))) for each in everybody if i < len(each)]
        return {id: text for batch in batches for id, text in batch.items()}


ALONE = Ranks()
FOLLOWS = "pet_bench.trial.follow"  # what the others run
ENDING = 10.0  # seconds until who does not end is killed


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
                other = subprocess.Popen([sys.executable, "-m", FOLLOWS], stdin=subprocess.PIPE, text=True)
                others.append(other)
                assert other.stdin
                with other.stdin as line:
                    json.dump(told, line)
            _wait(others, meet.parent)
            with met(0, runtime, meet):
                yield Ranks(0, runtime.ranks, runtime.shard)
            for other in others:  # which have but to end, and with torch 2.6 may never do
                with suppress(subprocess.TimeoutExpired):
                    other.wait(ENDING)
        except RuntimeError as error:  # an exchange that one of them did not come to
            if lost := _lost(others):
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


def _lost(others: Sequence[subprocess.Popen[str]], seconds: float = 5.0) -> list[str]:
    """Number and exit status of who has failed; waited for, as a process that ends lets go of its sockets first."""
    end = time.monotonic() + seconds
    while not (lost := [f"{rank} ({code})" for rank, other in enumerate(others, 1) if (code := other.poll())]):
        if time.monotonic() > end:
            break
        time.sleep(0.05)
    return lost


@contextmanager
def met(rank: int, runtime: Runtime, meet: Path) -> Iterator[None]:
    """All of them there are, in touch through a file at `meet`."""
    backend, device = "gloo", device_of(rank, runtime)
    if device.startswith("cuda"):
        backend = "cpu:gloo,cuda:nccl"  # texts and scores are on the CPU
        torch.cuda.set_device(device)
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
