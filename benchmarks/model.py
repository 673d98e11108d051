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
from collections.abc import Callable
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from turns import Way, answer, by_turns


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
    """One way, in a process of its own."""
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    answer((peft if options.serve == "peft" else pet)(options), options.clock)


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
    ways = {"here": Way(__file__, "here", here)}
    if options.before:
        ways["before"] = Way(__file__, "before", options.before)
    if options.peft:
        ways["peft"] = Way(__file__, "peft", here)
    by_turns(ways, options.rounds, warm=2)


if __name__ == "__main__":
    main()
