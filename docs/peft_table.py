"""Write peft.md anew: which types of the installed peft work as `peft:<type>`, tried one after the other.

python docs/peft_table.py
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import backbones_table
import peft
import torch
from peft import PeftType

from pet_bench.backbone import Backbone
from pet_bench.backbone.bart import BART_BASE
from pet_bench.backbone.loading import build
from pet_bench.backbone.t5 import T5_BASE
from pet_bench.errors import UserError
from pet_bench.pet import Design, attach, build_method, count, trained_parameters, why_skipped
from pet_bench.registry import METHODS
from pet_bench.spec import MethodSpec, Visual

PAGE = Path(__file__).parent / "peft.md"
# Wide enough for every type's default sizes, and random.
SMALL = {
    "bart": Backbone(
        "small-bart",
        "bart",
        "",
        {
            "vocab_size": 60, "d_model": 256, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
            "decoder_attention_heads": 4, "encoder_ffn_dim": 512, "decoder_ffn_dim": 512, "max_position_embeddings": 64,
        },
    ),
    "t5": Backbone(
        "small-t5",
        "t5",
        "",
        {
            "vocab_size": 60, "d_model": 256, "d_kv": 64, "d_ff": 512, "num_layers": 1, "num_decoder_layers": 1,
            "num_heads": 4, "decoder_start_token_id": 0,
        },
    ),
}  # fmt: skip
FULL = {"bart": BART_BASE, "t5": T5_BASE}
VISUAL, VISUAL_FULL = Visual(width=12, tokens=9, pooled=4), Visual(width=2048, tokens=49, pooled=36)
NEEDED = {"trainable_tokens": {"token_indices": [3, 4]}}  # options without which a type trains nothing
INTRO = """\
<!-- written by docs/peft_table.py: do not edit -->

# Types of peft

What `--method peft:<type>` does with the types of peft {version}, as tried by `python docs/peft_table.py`. A type works
where it attaches to a small random backbone with its default options, gives a finite loss, sends a gradient to all
that it trains, and generates the same words from cached as from recomputed states. The shares are of bart-base and
t5-base for image-text, the visual embedding left out: peft's trainable parameters in percent of all. `pet-bench show
peft:<type>` lists a type's options.

| type | BART | T5 | % of bart-base | % of t5-base | remark |
|---|---|---|---:|---:|---|
"""


FAMILIES = """
## In every family

Where target_modules are not given, they are those below (in the family's own [scope](backbones.md), in the
configuration that transformers has by default). A type adapts the layers in the scope alone: "all-linear" and names
that a vision tower shares with the language model reach no further, layers of a tower that nobody reads are left out,
and the projector trains whole or not at all. What attaches is checked on tiny models of all families
(`tests/methods/test_peft_on_decoders.py`): it starts as the stock model to the bit where the type claims that, reads at
the stock model's positions and through its masks, trains what peft itself counts on these targets, says the same in any
batch and from a cache, and stock peft reads what is exported.

| family | most types | `ia3` | `ln_tuning` | `prompt_tuning`, `p_tuning` |
|---|---|---|---|---|
"""
REFUSED = """
Stock peft puts prompts in front through its own forward pass, which takes embedded words only. There the three axes of
Qwen's positions become one, without a warning, and the masks with which PaliGemma's prompt and Gemma's images see both
ways become causal; on Florence-2 and T5Gemma 2 it asks for a number of layers. Here such a pair is left out with one
line. `trainable_tokens` is refused on T5Gemma 2, whose word table gives one vector besides its rows that peft's layer
would read from them. `prefix_tuning` is refused everywhere (above): the method `prefix-tuning` adds keys and
values in the attention itself and leaves positions and masks alone.

With `recipe.frozen: 4bit` ([large models](long-grids.md#large-models)) only those types attach of which peft has a
layer around a quantised one; the others are refused in one line.
"""


@dataclass(frozen=True)
class Row:
    """A line of the table: works on BART, on T5 (`yes`, `no`), the shares, and why not or with what."""

    type: str
    works: tuple[str, str]
    shares: tuple[str, str]
    remark: str

    def __str__(self) -> str:
        return f"| {' | '.join((f'`{self.type}`', *self.works, *self.shares, self.remark))} |"


def trial(name: str, family: str) -> str:
    """Attach, forward, backward and generate: what goes wrong, or nothing."""
    torch.manual_seed(0)
    backbone = SMALL[family]
    model = build(backbone, VISUAL)
    try:
        method = build_method(MethodSpec(f"peft:{name}", NEEDED.get(name, {})), backbone.anatomy)
        attach(model, method.design(backbone.anatomy), ("vqa", "gqa"))
    except UserError as error:
        return error.faults[0]
    inputs = {"text": torch.randint(5, 50, (2, 6)), "features": torch.randn(2, 1, 9, 12), "task": "vqa"}
    loss = model.train()(**inputs, targets=torch.randint(5, 50, (2, 4))).logsumexp(-1).square().sum()
    loss.backward()
    own = {key: p for key, p in trained_parameters(model).items() if not key.startswith("visual.")}
    if not own:
        return "trains nothing"
    if not loss.isfinite():
        return "the loss is not finite"
    if without := [key for key, parameter in own.items() if parameter.grad is None]:
        return f"no gradient reaches {without[0]}"
    settings = {"num_beams": 2, "max_length": 6}
    cached = model.eval().generate(inputs, **settings)
    model.lm.generation_config.use_cache = False
    if not torch.equal(cached, model.generate(inputs, **settings)):
        return "generation with and without a cache differs"
    return ""


@cache
def bare(family: str) -> int:
    """Trainable parameters of the visual embedding on the full-size backbone."""
    return count(attach(build(FULL[family], VISUAL_FULL, device="meta"), Design()))["trainable"]


def share(name: str, family: str) -> str:
    """peft's trainable parameters of the full-size backbone, in percent of all."""
    backbone = FULL[family]
    method = build_method(MethodSpec(f"peft:{name}", NEEDED.get(name, {})), backbone.anatomy)
    model = attach(build(backbone, VISUAL_FULL, device="meta"), method.design(backbone.anatomy), ("vqa", "gqa"))
    counts = count(model)
    return f"{100 * (counts['trainable'] - bare(family)) / counts['total']:.3g}"


def row(name: str, shares: bool = True) -> Row:
    """The line of one type."""
    none = ("", "")
    try:
        METHODS.get(f"peft:{name}")
    except UserError as error:
        return Row(name, ("no", "no"), none, error.faults[0].partition(": ")[2])
    faults = [trial(name, family) for family in SMALL]
    works = tuple("no" if fault else "yes" for fault in faults)
    remark = "; ".join(dict.fromkeys(fault for fault in faults if fault))
    if not remark and name in NEEDED:
        remark = ", ".join(f"with {key} = {value}" for key, value in NEEDED[name].items())
    found = tuple(
        share(name, family) if shares and not fault else "" for family, fault in zip(SMALL, faults, strict=True)
    )
    return Row(name, works, found, re.sub(rf"^peft:{name}( on \S+)?: ", "", remark))


def rows(shares: bool = True) -> list[Row]:
    """The table; shares of the full-size backbones take most of the time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [row(kind.value.lower(), shares) for kind in sorted(PeftType, key=lambda kind: kind.value.lower())]


def of_families() -> list[str]:
    """A line for each family: what is adapted by default, and whether prompts can be had."""
    lines = []
    for family in backbones_table.families():
        shape = backbones_table.anatomy(family)
        named = [METHODS.get(f"peft:{kind}").defaults(shape)["target_modules"] for kind in ("lora", "ia3", "ln_tuning")]
        targets = [", ".join(f"`{name}`" for name in names) for names in named]
        prompts = "no" if why_skipped(build_method(MethodSpec("peft:prompt_tuning"), shape), shape) else "yes"
        lines.append(f"| {' | '.join([f'`{family}`', *targets, prompts])} |")
    return lines


def page(version: str, lines: list[Row]) -> str:
    return "".join([
        INTRO.format(version=version), *(f"{line}\n" for line in lines),
        FAMILIES, *(f"{line}\n" for line in of_families()), REFUSED,
    ])  # fmt: skip


if __name__ == "__main__":
    PAGE.write_text(page(peft.__version__, rows()))
