"""A training step and a generation, against another checkout of pet-bench and HF peft on stock transformers.

    git worktree add ../start COMMIT && python benchmarks/model.py --before ../start --what step --rounds 15

Random weights of the backbone's real size, a batch of the image-text suite's shapes: `--text` words and 36 visual
tokens, answers of one to five words padded to the longest, as VQA's are. `step` is a whole update: loss, backward pass,
clipping, optimiser. `generate` is 5 beams of 20 words, none of which ends early. Ways:

    here      this checkout
    before    the one of `--before`
    peft      HF peft's LoRA on the stock model, which reads as many positions as word embeddings, with its own loss and
              torch's AdamW; steps only

Each way has a process of its own, and they take turns, `--rounds` times after two to warm up; while one works the
others wait. Printed are each way's median seconds, the median of the ratios of `here` to it in each round, and the peak
of its resident memory. Compare ratios; seconds are this machine's.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

WARM = 2


# one way, in a process of its own ------------------------------------------------------------------------------------


def suite_of(options: argparse.Namespace) -> Any:
    from pet_bench.data.suite import suite_by_name

    return suite_by_name("mini-image-text" if options.backbone.startswith("mini") else "image-text")


def batch_of(options: argparse.Namespace) -> Any:
    """The same one for every way and seed."""
    import torch

    from pet_bench.data import batches

    generator, visual = torch.Generator().manual_seed(0), suite_of(options).visual
    words = 150 if options.backbone.startswith("mini") else 30000
    targets = torch.randint(5, words, (options.batch, 5), generator=generator)
    lengths = torch.arange(options.batch) % 4 + 2
    targets[torch.arange(5)[None] >= lengths[:, None]] = -100
    tensors = {
        "text": torch.randint(5, words, (options.batch, options.text), generator=generator),
        "features": torch.randn(options.batch, 1, visual.tokens, visual.width, generator=generator),
        "boxes": torch.rand(options.batch, 1, visual.tokens, 4, generator=generator),
    }
    ids = tuple(map(str, range(options.batch)))
    more = {"labels": batches.labels_of(targets)} if hasattr(batches, "labels_of") else {}  # a checkout before had none
    scores, indices = torch.ones(options.batch), torch.arange(options.batch)
    return batches.Batch(task="vqa", ids=ids, tensors=tensors, targets=targets, scores=scores, indices=indices, **more)


def pet(options: argparse.Namespace) -> Callable[[], Any]:
    import torch

    from pet_bench.backbone import build, find_backbone
    from pet_bench.pet import attach_method, build_method, design_of, trained_parameters
    from pet_bench.spec import MethodSpec, Recipe
    from pet_bench.trial import train

    suite = suite_of(options)
    model: Any = build(find_backbone(options.backbone), suite.visual)
    method = build_method(MethodSpec(options.method, {}), model.anatomy, "image-text")
    attach_method(model, method, design_of(method, model.anatomy), suite.tasks)
    batch = batch_of(options)
    if options.what == "generate":
        model.eval()
        model.lm.generation_config.eos_token_id = None
        return lambda: model.generate(batch.inputs, num_beams=5, max_length=20)
    model.train()
    recipe = Recipe(lr=1e-4, epochs=1, batch_size=options.batch)
    optimizer, trained = train.build_optimizer(model, recipe), list(trained_parameters(model).values())
    computing: Callable[[], Any] = nullcontext
    if options.precision == "bfloat16" and find_spec("pet_bench.pet.halves"):  # a checkout before had none
        from pet_bench.pet.halves import Halves

        computing = Halves(model).used

    def step() -> None:
        with computing():
            train.loss_of(model, batch, "score-weighted", options.precision).backward()
        torch.nn.utils.clip_grad_norm_(trained, 5.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def peft(options: argparse.Namespace) -> Callable[[], Any]:
    import torch
    from peft import LoraConfig, get_peft_model

    from pet_bench.backbone import build, find_backbone

    visual = suite_of(options).visual
    stock = build(find_backbone(options.backbone), visual).lm
    names = {"bart": ["q_proj", "v_proj"], "t5": ["q", "v"]}[options.backbone.split("-")[0]]
    config = LoraConfig(r=128 if "bart" in options.backbone else 150, target_modules=names)  # as our `lora` has it
    model: Any = get_peft_model(stock, config)
    batch, project = batch_of(options), torch.nn.Linear(visual.width, stock.config.d_model)
    trained = [*filter(lambda p: p.requires_grad, model.parameters()), *project.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    text, features = batch.tensors["text"], batch.tensors["features"][:, 0]
    mask = torch.ones(len(batch), options.text + visual.tokens, dtype=torch.long)
    model.train()

    def step() -> None:
        words = torch.cat([stock.get_input_embeddings()(text), project(features)], dim=1)
        with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bfloat16"):
            loss = model(inputs_embeds=words, attention_mask=mask, labels=batch.targets).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 5.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def serve(options: argparse.Namespace) -> None:
    """Do it once for every line that comes in, and write how long it took and the peak of memory in MiB."""
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    do = (peft if options.serve == "peft" else pet)(options)
    for _ in sys.stdin:
        start = clock()
        do()
        seconds = clock() - start
        print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]), flush=True)


# by turns ------------------------------------------------------------------------------------------------------------


class Way:
    """The process of a way, which waits to be asked."""

    def __init__(self, name: str, checkout: Path):
        line = [sys.executable, __file__, "--serve", name, *sys.argv[1:]]
        paths = {"PYTHONPATH": str(checkout.resolve())}
        self.process = subprocess.Popen(
            line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=checkout, env=os.environ | paths
        )

    def once(self) -> tuple[float, float]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        if not (line := self.process.stdout.readline()):
            sys.exit("a way has failed")
        seconds, memory = json.loads(line)
        return seconds, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--what", choices=["step", "generate"], default="step")
    parser.add_argument("--before", type=Path)
    parser.add_argument("--peft", action="store_true", help="also against HF peft's LoRA (with --method lora)")
    parser.add_argument("--backbone", default="bart-base")
    parser.add_argument("--method", default="vl-pet-large")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--text", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: the process's, with one thread")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options)
        return
    here = Path(__file__).parent.parent
    ways = {"here": Way("here", here)}
    if options.before:
        ways["before"] = Way("before", options.before)
    if options.peft:
        ways["peft"] = Way("peft", here)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(WARM + options.rounds):
        for name in list(ways) if number % 2 else reversed(ways):
            taken[name].append(ways[name].once())
    print(f"{'':8} {'seconds':>8} {'here / it':>10} {'memory MiB':>11}")
    for name, rounds in taken.items():
        ratios = [a / b for (a, _), (b, _) in list(zip(taken["here"], rounds, strict=True))[WARM:]]
        seconds = statistics.median(second for second, _ in rounds[WARM:])
        print(f"{name:8} {seconds:8.3f} {statistics.median(ratios):10.3f} {rounds[-1][1]:11,.0f}")


if __name__ == "__main__":
    main()
