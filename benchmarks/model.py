"""A training step and a generation, against another checkout of pet-bench and HF peft on stock transformers.

    git worktree add ../start COMMIT && python benchmarks/model.py --before ../start --what step --rounds 15

Random weights of the backbone's real size, a batch of the image-text suite's shapes: `--text` words and 36 visual
tokens, answers of one to five words padded to the longest, as VQA's are. `step` is a whole update: loss, backward pass,
clipping, optimiser. `generate` is 5 beams of 20 words, none of which ends early. Ways:

    here        this checkout
    before      the one of `--before`
    compiled    this checkout, its steps compiled (`--compiled`); compiling takes a minute or two
    peft        HF peft's LoRA on the stock model, which reads as many positions as word embeddings, with its own loss
                and torch's AdamW; steps only (`--peft --method lora`)
    adapterhub  likewise AdapterHub's adapters behind both halves of all layers of BART-base, 24 of them where `adapter`
                has 30; `--adapterhub PYTHON --method adapter`, of an environment that has `adapters`

Each way has a process of its own, and they take turns, `--rounds` times after two to warm up; while one works the
others wait. Printed are each way's median seconds, the median of the ratios of `here` to it in each round, and the peak
of its resident memory. Compare ratios; seconds are this machine's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from turns import Way, answer, by_turns

HEADS = {"attention_heads": 12, "ffn_dim": 3072}


def suite_of(options: argparse.Namespace) -> Any:
    from pet_bench.data.suite import suite_by_name

    return suite_by_name("mini-image-text" if options.backbone.startswith("mini") else "image-text")


def numbers(options: argparse.Namespace, tokens: int = 36, width: int = 2048) -> tuple[dict[str, Any], Any]:
    """The same text, features and boxes, and targets, for every way."""
    import torch

    generator, words = torch.Generator().manual_seed(0), 150 if options.backbone.startswith("mini") else 30000
    targets = torch.randint(5, words, (options.batch, 5), generator=generator)
    targets[torch.arange(5)[None] >= (torch.arange(options.batch) % 4 + 2)[:, None]] = -100
    tensors = {
        "text": torch.randint(5, words, (options.batch, options.text), generator=generator),
        "features": torch.randn(options.batch, 1, tokens, width, generator=generator),
        "boxes": torch.rand(options.batch, 1, tokens, 4, generator=generator),
    }
    return tensors, targets


def batch_of(options: argparse.Namespace) -> Any:
    import torch

    from pet_bench.data import batches

    visual = suite_of(options).visual
    tensors, targets = numbers(options, visual.tokens, visual.width)
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
    precision = options.before_precision or options.precision if options.serve == "before" else options.precision
    if options.what == "generate":
        from pet_bench.trial.evaluate import evaluating

        model.lm.generation_config.eos_token_id = None

        def generate() -> None:
            with evaluating(model, precision) if precision != "float32" else evaluating(model):
                model.generate(batch.inputs, num_beams=5, max_length=20)

        return generate
    model.train()
    recipe = Recipe(lr=1e-4, epochs=1, batch_size=options.batch)
    optimizer, trained = train.build_optimizer(model, recipe), list(trained_parameters(model).values())
    computing: Callable[[], Any] = nullcontext
    if precision == "bfloat16" and find_spec("pet_bench.pet.halves"):  # a checkout before had none
        from pet_bench.pet.halves import Halves

        computing = Halves(model).used
    loss_of: Callable[..., Any] = train.loss_of
    if options.serve == "compiled":
        from pet_bench.trial.compiled import alone

        loss_of = torch.compile(partial(alone, loss_of), fullgraph=True, dynamic=False)

    def step() -> None:
        with computing():
            loss_of(model, batch, "score-weighted", precision).backward()
        torch.nn.utils.clip_grad_norm_(trained, 5.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def peft(options: argparse.Namespace) -> Callable[[], Any]:
    from peft import LoraConfig, get_peft_model

    from pet_bench.backbone import build, find_backbone

    stock = build(find_backbone(options.backbone), suite_of(options).visual).lm
    names = {"bart": ["q_proj", "v_proj"], "t5": ["q", "v"]}[options.backbone.split("-")[0]]
    bart = "bart" in options.backbone  # the settings are those of our `lora`
    config = LoraConfig(
        r=128 if bart else 150, lora_alpha=32, lora_dropout=0.1, bias="all" if bart else "none", target_modules=names
    )
    return stepping(options, get_peft_model(stock, config), stock)


def adapterhub(options: argparse.Namespace) -> Callable[[], Any]:
    import adapters
    from transformers import BartConfig, BartForConditionalGeneration

    base = {"d_model": 768, "vocab_size": 50465, "encoder_layers": 6, "decoder_layers": 6}
    sizes = {f"{stack}_{key}": n for stack in ("encoder", "decoder") for key, n in HEADS.items()}
    stock: Any = BartForConditionalGeneration(BartConfig(**base, **sizes))
    adapters.init(stock)
    stock.add_adapter("adapter", config=adapters.DoubleSeqBnConfig(reduction_factor=8))
    stock.train_adapter("adapter")
    return stepping(options, stock, stock)


def stepping(options: argparse.Namespace, model: Any, stock: Any) -> Callable[[], Any]:
    """An update of a model that reads words and projected features as word embeddings, with its own loss."""
    import torch

    tensors, targets = numbers(options)
    text, features = tensors["text"], tensors["features"][:, 0]
    project = torch.nn.Linear(features.shape[-1], stock.config.d_model)
    trained = [*filter(lambda p: p.requires_grad, model.parameters()), *project.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    mask = torch.ones(len(text), text.shape[1] + features.shape[1], dtype=torch.long)
    model.train()

    def step() -> None:
        words = torch.cat([stock.get_input_embeddings()(text), project(features)], dim=1)
        with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bfloat16"):
            loss = model(inputs_embeds=words, attention_mask=mask, labels=targets).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 5.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


WAYS = {"here": pet, "before": pet, "compiled": pet, "peft": peft, "adapterhub": adapterhub}


def serve(options: argparse.Namespace) -> None:
    """One way, in a process of its own."""
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    answer(WAYS[options.serve](options), options.clock)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--what", choices=["step", "generate"], default="step")
    parser.add_argument("--before", type=Path)
    parser.add_argument("--before-precision", help="of --before, where it is another")
    parser.add_argument("--peft", action="store_true", help="also against HF peft's LoRA (with --method lora)")
    parser.add_argument("--adapterhub", metavar="PYTHON", help="also against AdapterHub (with --method adapter)")
    parser.add_argument("--compiled", action="store_true", help="also against this checkout, compiled")
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
    if options.compiled:
        ways["compiled"] = Way(__file__, "compiled", here)
    if options.peft:
        ways["peft"] = Way(__file__, "peft", here)
    if options.adapterhub:
        ways["adapterhub"] = Way(__file__, "adapterhub", here, python=options.adapterhub)
    by_turns(ways, options.rounds, warm=2)


if __name__ == "__main__":
    main()
