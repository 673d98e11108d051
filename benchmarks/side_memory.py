"""What one training step of the side networks takes of memory, against LoRA and full fine-tuning.

    python benchmarks/side_memory.py --rounds 3

Random weights of bart-base's real size; a batch of the image-text suite's shapes, 32 questions of `--text` words with
36 visual tokens each and answers of `--answer` words; dropout on, float32, on the CPU, no optimiser. Every method has a
process of its own, so that no peak is another one's. Printed in MiB and as a share of LoRA's:

    peak      the process's largest resident memory in a forward and a backward pass, above that before it
    kept      bytes of the tensors that the graph keeps for the backward pass, each storage once, parameters aside
    body      the same without what behind the decoder's last states is kept: logits over 50,465 words and their loss
    layers    what the backbone's layers keep of it, with what is inserted in them
    trained   parameters and their gradients, which an optimiser doubles once more

The peak has the allocator's habits in it: the median of several rounds. One round, peak
and kept as shares of LoRA's: lst 0.32 and 0.41, unipt 0.22 and 0.22, sherl 0.20 and 0.18, full 1.15 and 1.03.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.nn import functional as F

from pet_bench.backbone import build, find_backbone
from pet_bench.data.suite import suite_by_name
from pet_bench.pet import attach_method, build_method, design_of, trained_parameters
from pet_bench.spec import MethodSpec
from pet_bench.trial.memory import forget_peak, peak_memory

METHODS = ("lora", "lst", "unipt", "sherl", "full")
OPTIONS: dict[str, dict[str, Any]] = {"lst": {"init": "random"}}  # pruning changes no size
MIB = 2**20


class Kept:
    """Storages that the graph keeps, by what was under way when they first were: the backbone's layers, its head behind
    the last states, or other things."""

    def __init__(self, model):
        self.parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self.sizes: dict[int, tuple[str, int]] = {}
        self.alive: list[Tensor] = []  # else their addresses would be given away again
        self.part = "other"
        body = model.at(model.anatomy.sites["decoder.output"].writer)
        body.register_forward_hook(lambda *_: setattr(self, "part", "head"))
        for stack in model.anatomy.words:
            place = model.anatomy.stacks[stack]
            for i in range(place.layers):
                layer = model.at(place.blocks, i)
                layer.register_forward_pre_hook(lambda *_: setattr(self, "part", "layers"))
                layer.register_forward_hook(lambda *_: setattr(self, "part", "other"), prepend=True)

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        address = storage.data_ptr()
        if address not in self.parameters and address not in self.sizes:
            self.sizes[address] = self.part, storage.nbytes()
            self.alive.append(tensor.detach())
        return tensor

    def of(self, *parts: str) -> int:
        return sum(size for part, size in self.sizes.values() if part in parts)


def model_of(method: str):
    torch.manual_seed(0)
    model = build(find_backbone("bart-base"), suite_by_name("image-text").visual)
    built = build_method(MethodSpec(method, OPTIONS.get(method, {})), model.anatomy, "image-text")
    attach_method(model, built, design_of(built, model.anatomy), suite_by_name("image-text").tasks)
    return model.train()


def batch_of(options: argparse.Namespace, rows: int = 0) -> dict[str, Any]:
    visual, rows = suite_by_name("image-text").visual, rows or options.batch
    return {
        "text": torch.randint(5, 50000, (rows, options.text)),
        "features": torch.randn(rows, 1, visual.tokens, visual.width),
        "targets": torch.randint(5, 50000, (rows, options.answer)),
        "task": "vqa",
    }


def loss_of(model, batch: dict[str, Any]) -> Tensor:
    logits = model(**batch)
    return F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten())


def measure(method: str, options: argparse.Namespace) -> dict[str, float]:
    """Of one method, in this process: the peak of a step, then what another forward pass keeps."""
    model, cpu = model_of(method), torch.device("cpu")
    loss_of(model, batch_of(options, rows=2)).backward()  # what torch makes ready
    model.zero_grad(set_to_none=True)
    batch, before = batch_of(options), psutil.Process().memory_info().rss
    forget_peak(cpu)
    loss_of(model, batch).backward()
    peak = peak_memory(cpu) - before
    model.zero_grad(set_to_none=True)
    kept = Kept(model)
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
        loss_of(model, batch)
    trained = sum(p.numel() * p.element_size() for p in trained_parameters(model).values())
    return {
        "peak": peak / MIB,
        "kept": kept.of("layers", "other", "head") / MIB,
        "body": kept.of("layers", "other") / MIB,
        "layers": kept.of("layers") / MIB,
        "trained": 2 * trained / MIB,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--text", type=int, default=20)
    parser.add_argument("--answer", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, options)))
        return
    rounds: dict[str, list[dict[str, float]]] = {method: [] for method in options.methods}
    for _ in range(options.rounds):
        for method in options.methods:
            line = [sys.executable, __file__, "--only", method]
            line += [
                part for name in ("batch", "text", "answer") for part in (f"--{name}", str(getattr(options, name)))
            ]
            sizes = json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
            print(method, {name: round(size) for name, size in sizes.items()}, file=sys.stderr, flush=True)
            rounds[method].append(sizes)
    report({
        method: {name: statistics.median(each[name] for each in those) for name in those[0]}
        for method, those in rounds.items()
    })  # fmt: skip


def report(measured: dict[str, dict[str, float]]) -> None:
    """The table, in MiB; in brackets the share of LoRA's."""
    names = list(next(iter(measured.values())))
    print("| method |", " | ".join(names), "|")
    print("| :-- |", " | ".join("--:" for _ in names), "|")
    for method, sizes in measured.items():
        print(f"| {method} |", " | ".join(cell(sizes[name], measured.get("lora", {}).get(name)) for name in names), "|")


def cell(size: float, of: float | None) -> str:
    return f"{size:,.0f} ({size / of:.2f})" if of else f"{size:,.0f}"


if __name__ == "__main__":
    main()
