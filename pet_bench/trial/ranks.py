"""One trial in several processes, each with a device of its own and its share of the rows of every batch.

The first, rank 0, is the process that the trial was started in: it starts the others, writes checkpoints and records.
All of them make the same batches and the same updates. A batch's gradient is the sum of what its rows are worth
(`trial.loss.share_of`), so that it does not matter who has which; a method with a part that looks at a batch as a whole
is refused (`Part.divides`). Where a method draws at random in training (dropout, one of several experts), each update
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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from pet_bench.backbone.known import find_backbone
from pet_bench.data.batches import Batch
from pet_bench.errors import Faults, UserError
from pet_bench.pet import Design, build_method, design_of
from pet_bench.pet.frozen import tensors_of
from pet_bench.pet.method import restored
from pet_bench.pet.parts import titled
from pet_bench.pet.sharded import check_sharded, shard
from pet_bench.registry import load_plugin
from pet_bench.spec import Frozen, Runtime, TrialSpec, plain_runtime, validate
from pet_bench.trial.device import devices


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


# what cannot be divided ----------------------------------------------------------------------------------------------


def check_divided(specs: Iterable[TrialSpec], runtime: Runtime) -> None:
    """Raises UserError, with all faults together, where methods do not go together with several processes."""
    faults, seen = Faults(), set[tuple[str, str, Frozen]]()
    for spec in specs if runtime.ranks > 1 else ():
        if (key := (spec.backbone, str(spec.method), spec.recipe.frozen)) not in seen:
            seen.add(key)
            anatomy = find_backbone(spec.backbone).anatomy.scoped(spec.method.scope)
            with faults:
                check_design(spec, design_of(build_method(restored(spec.method), anatomy), anatomy), runtime)
    faults.check()


def check_design(spec: TrialSpec, design: Design, runtime: Runtime) -> None:
    """Raises UserError where a part of the design looks at a batch as a whole, or cannot do with weights in parts."""
    try:
        if runtime.ranks > 1:
            for part in design.parts():
                if not part.divides:
                    raise UserError(
                        f"the {titled(part)} looks at a batch as a whole, which {runtime.ranks} ranks divide"
                    )
        if runtime.shard:
            check_sharded(design, spec.recipe.frozen)
    except UserError as error:
        raise error.within(f"{spec.label or spec.method} on {spec.backbone}") from error


def check_ranks(runtime: Runtime) -> None:
    """Raises UserError where there are fewer GPUs than processes, or one process has nobody to divide weights with."""
    gpus = sum(":" in device for device in devices() if device.startswith("cuda"))
    if runtime.ranks > 1 and device_of(0, runtime).startswith("cuda"):
        gpus = 1 if ":" in runtime.device else gpus
        if gpus < runtime.ranks:
            raise UserError(f"resources: a trial asks for {runtime.ranks} gpus, this machine has {gpus}")
    if runtime.shard and runtime.ranks == 1:
        raise UserError("--shard divides frozen weights among a trial's GPUs, and it has one: give it more (--gpus 2)")


# processes -----------------------------------------------------------------------------------------------------------


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
                yield Ranks(0, runtime.ranks, runtime.shard)
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
    trial.ranks = Ranks(rank, runtime.ranks, runtime.shard)
    trial.checkpoints = checkpoints_of(trial, runtime)
    (meet.parent / str(rank)).touch()
    with _met(rank, runtime, meet), suppress(Diverged):  # which all of them see
        if runtime.shard:
            shard(trial.model, trial.device)
        train(trial)
        if runtime.shard:  # which rank 0 saves
            for _ in tensors_of(trial.model):
                pass
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
