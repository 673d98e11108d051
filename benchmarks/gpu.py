"""What a GPU makes of vl-pet-large on BART-base: all that one can show in eight minutes.

    python benchmarks/gpu.py --out gpu.jsonl

Random weights of the real size, features like those of the image-text suite (36 visual tokens of 2,048 numbers, half
precision, gathered and copied as in a trial), 20 words of text, answers of one to five words. Every figure is a line of
`--out` as soon as it is there; figures that the time no longer allows are named as missing. In the order of what they
tell most:

    peak        of products of 8,192 × 8,192 matrices in bfloat16, TF32 and float32, TFLOP/s
    equal       a step in float32 here and on the CPU: the largest difference of a gradient from its tensor's largest
    step        examples a second with data, share of the peak (FLOPs of PyTorch's FlopCounterMode), memory: precisions
                by compiled or not by features resident or read ahead
    generate    examples a second, 5 beams of 20 words, in batches of the training size and 4 times that, by precision
    packed      1 to 4 processes that train at once: their examples a second together, and the ratio to one of them

`--device cpu --backbone mini-bart --batch 8 --steps 2` tries the script out where there is none.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from pet_bench.backbone import build, find_backbone
from pet_bench.data.ahead import ahead
from pet_bench.data.batches import Batch, labels_of
from pet_bench.data.suite import suite_by_name
from pet_bench.pet import attach_method, build_method, design_of, trained_parameters
from pet_bench.pet.halves import Halves
from pet_bench.spec import MethodSpec, Recipe
from pet_bench.trial import train
from pet_bench.trial.compiled import alone
from pet_bench.trial.device import products
from pet_bench.trial.evaluate import evaluating

WARM = 3


class Case:
    """A model with what it trains on: `images` features in host memory or, resident, on the device."""

    def __init__(self, options: argparse.Namespace, *, batch: int | None = None, resident: bool = True):
        torch.manual_seed(0)
        self.device, self.batch = torch.device(options.device), batch or options.batch
        mini = options.backbone.startswith("mini")
        suite = suite_by_name("mini-image-text" if mini else "image-text")
        self.words, self.text = (150, 12) if mini else (30_000, 20)
        self.model: Any = build(find_backbone(options.backbone), suite.visual)
        method = build_method(MethodSpec("vl-pet-large", {}), self.model.anatomy, "image-text")
        attach_method(self.model, method, design_of(method, self.model.anatomy), suite.tasks)
        self.model.to(self.device).train()
        self.trained = [*trained_parameters(self.model).values()]
        shape = options.images, suite.visual.tokens, suite.visual.width
        self.features = torch.randn(shape, generator=torch.Generator().manual_seed(0)).half()
        if resident:
            self.features = self.features.to(self.device)

    def batches(self) -> Iterator[Batch]:
        random, order = torch.Generator().manual_seed(0), np.random.default_rng(0)
        while True:
            rows = torch.from_numpy(order.integers(len(self.features), size=self.batch))
            features = self.features[rows.to(self.features.device)].float()[:, None]
            targets = torch.randint(5, self.words, (self.batch, 5), generator=random)
            targets[torch.arange(5)[None] >= (torch.arange(self.batch) % 4 + 2)[:, None]] = -100
            tensors = {
                "text": torch.randint(5, self.words, (self.batch, self.text), generator=random),
                "features": features,
                "boxes": torch.rand(*features.shape[:3], 4, generator=random),
            }
            yield Batch(
                task="vqa", ids=tuple(map(str, range(self.batch))), tensors=tensors, targets=targets,
                labels=labels_of(targets), scores=torch.ones(self.batch), indices=torch.arange(self.batch),
            )  # fmt: skip

    def updates(self, precision: str, *, compiled: bool = False) -> Iterator[None]:
        """One after the other, as `Training.update` makes them."""
        optimizer = train.build_optimizer(self.model, Recipe(lr=1e-4, epochs=1, batch_size=self.batch))
        loss_of: Callable[..., Any] = partial(alone, train.loss_of)
        if compiled:
            how = {"mode": "reduce-overhead"} if self.device.type == "cuda" else {"backend": "aot_eager"}
            loss_of = torch.compile(loss_of, fullgraph=True, dynamic=False, **how)
        halves = Halves(self.model).used() if precision == "bfloat16" else nullcontext()
        with products(precision), halves:
            for batch in ahead(self.batches(), self.device):
                torch.compiler.cudagraph_mark_step_begin()
                loss_of(self.model, batch.to(self.device), "score-weighted", precision).backward()
                torch.nn.utils.clip_grad_norm_(self.trained, 5.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                yield


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Iterator[Any], count: int, device: torch.device) -> float:
    """Of one of them, after a few to warm up."""
    for _ in islice(work, WARM):
        pass
    finish(device)
    start = time.perf_counter()
    for _ in islice(work, count):
        pass
    finish(device)
    return (time.perf_counter() - start) / count


def repeated(do: Callable[[], Any]) -> Iterator[None]:
    while True:
        do()
        yield


# figures -------------------------------------------------------------------------------------------------------------


def peak(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    size, device = 8192 if options.device != "cpu" else 512, torch.device(options.device)
    for precision in ("bfloat16", "tf32", "float32"):
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        with products(precision):
            took = seconds(repeated(partial(torch.mm, a, b)), 20, device)
        yield {"what": "peak", "precision": precision, "tflops": 2 * size**3 / took / 1e12}


def equal(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    gradients = []
    for device in ("cpu", options.device):
        case = Case(argparse.Namespace(**vars(options) | {"device": device}), batch=8, resident=False)
        case.model.eval()  # no dropout, which no two devices draw alike
        train.loss_of(case.model, next(case.batches()).to(device), "score-weighted", "float32").backward()
        gradients.append([p.grad.double().cpu() for p in case.trained if p.grad is not None])
    off = max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-12)) for a, b in zip(*gradients, strict=True))
    yield {"what": "equal", "largest difference": off}


def step(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    case = Case(options)
    with FlopCounterMode(display=False) as flops:
        train.loss_of(case.model, next(case.batches()).to(case.device), "score-weighted", "float32").backward()
    each, rate = flops.get_total_flops(), {line["precision"]: line["tflops"] for line in peak(options)}
    for precision, compiled, resident in (
        ("bfloat16", True, True), ("bfloat16", False, True), ("bfloat16", True, False), ("bfloat16", False, False),
        ("tf32", False, True), ("tf32", True, True), ("float32", False, True),
    ):  # fmt: skip
        case = Case(options, resident=resident)
        if case.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        took = seconds(case.updates(precision, compiled=compiled), options.steps, case.device)
        memory = torch.cuda.max_memory_allocated() / 2**30 if case.device.type == "cuda" else None
        yield {
            "what": "step", "precision": precision, "compiled": compiled, "resident": resident, "batch": case.batch,
            "examples/s": case.batch / took, "of peak": each / took / 1e12 / rate[precision], "GiB": memory,
        }  # fmt: skip
        torch.compiler.reset()


def generate(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for many in (1, 4):
        case = Case(options, batch=many * options.batch)
        case.model.lm.generation_config.eos_token_id = None  # none ends early
        batch = next(case.batches()).to(case.device)
        for precision in ("float32", "bfloat16"):
            with evaluating(case.model, precision):
                say = partial(case.model.generate, batch.inputs, num_beams=5, max_length=20)
                took = seconds(repeated(say), 2, case.device)
            yield {"what": "generate", "precision": precision, "batch": case.batch, "examples/s": case.batch / took}


def packed(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    alone = 0.0
    for many in (1, 2, 3, 4):
        line = [sys.executable, __file__, *sys.argv[1:], "--serve"]
        others = [subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(many)]
        for other in others:  # which have warmed up
            assert other.stdout
            other.stdout.readline()
        rates = [float(other.communicate("\n")[0]) for other in _told(others)]
        alone = alone or sum(rates)
        yield {"what": "packed", "processes": many, "examples/s": sum(rates), "of one": sum(rates) / alone}


def _told(others: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    for other in others:
        assert other.stdin
        other.stdin.write("\n")
        other.stdin.flush()
    return others


def serve(options: argparse.Namespace) -> None:
    """Say that it is warm, wait for a line, and say how many examples a second were trained."""
    case = Case(options, batch=max(1, options.batch // 5))
    work = case.updates("bfloat16")
    seconds(work, 1, case.device)
    print("warm", flush=True)
    sys.stdin.readline()
    print(case.batch / seconds(work, options.steps, case.device), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu.jsonl"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backbone", default="bart-base")
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--images", type=int, default=4096, help="features to draw from")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options)
        return
    until = time.monotonic() + 60 * options.minutes
    name = torch.cuda.get_device_name() if options.device != "cpu" else "CPU"
    with options.out.open("w") as file:
        for figures in (peak, equal, step, generate, packed):
            work = figures(options)
            while time.monotonic() < until:
                try:
                    line = next(work)
                except StopIteration:
                    break
                except (RuntimeError, ValueError) as error:  # of one figure: the others are still to be had
                    line = {"what": figures.__name__, "failed": str(error).splitlines()[0]}
                print(json.dumps({"device": name, "torch": torch.__version__} | line), file=file, flush=True)
                print(*(f"{k}: {v:.4g}" if isinstance(v, float) else f"{k}: {v}" for k, v in line.items()), sep="  ")
            else:
                print(f"{figures.__name__}: missing, no time left", flush=True)


if __name__ == "__main__":
    main()
