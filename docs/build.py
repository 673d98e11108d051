"""Write backbones.md, differences.md and methods.md anew, from what is registered and `harness_differences.py`.

python docs/build.py
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from functools import cache
from inspect import cleandoc
from pathlib import Path
from typing import Any

import backbones_table
import yaml
from harness_differences import SECTIONS, Entry

from pet_bench.errors import UserError
from pet_bench.pet import Difference, Method
from pet_bench.registry import METHODS
from pet_bench.spec import MethodSpec
from pet_bench.trial.count import Description, describe

HERE = Path(__file__).parent
PUBLISHED = HERE.parent / "results" / "published"
SUITE, BACKBONES = "image-text", ("bart-base", "t5-base")
FOLDED = 12  # more options than that are shown on demand
Others = list[tuple[str, Description]]
OURS = [name for name in METHODS.names() if METHODS.origin(name).startswith("pet_bench.")]  # whatever else is installed
METHODS_INTRO = """\
<!-- written by docs/build.py: do not edit -->

# Methods

| | |
| :-- | :-- |
| references | `full`, `projector-only` |
| parts of the backbone | `bitfit`; entries by a mask: `pafi`, `fishmask` |
| input edits | `prompt-tuning`, `prefix-tuning`, `prompt-pool` |
| adapters | `adapter` (Houlsby, Pfeiffer, AdapterDrop), `parallel-adapter`, `vl-adapter` (single, multiple, \
half-shared), `compacter`, `hyperformer`, `routing-adapter`, `mam` |
| weights | `lora`, `dora`, `mtl-lora` (MoSLoRA, HydraLoRA), `routing-lora`, `ia3`, `ssf`, `hiwi`, `kadaptation`; \
`pet_bench.pet.merge` folds them into the backbone, and back, where they read no image |
| mixtures | `mixphm`, `adamix`, `moe-adapter`, `mov` |
| attention | `llama-adapter` (v1, v2), `excitor` |
| visual memory | `memvp`, `adem-vl`: the image beside the feed-forwards, and not in the sequence |
| side networks | `lst`, `unipt`, `sherl` |
| VL-PET | `vl-pet-{small,middle-x,middle-y,large}`, and its gates and decoder on baselines: `vl-adapter+{…}`, \
`compacter+{…}` |
| the optimiser's | LoRA+ and LoRA-FA, with any method of low rank: `recipe: {rates: {"pet.*.B": 16}}`, \
`{"pet.*.A": 0}` ([grids](grids.md)) |
| other people's | `peft:<type>`: the tuners of an installed `peft` ([which of them](peft.md)) |
| your own | `design`, any design of the grammar spelled out in the grid file; a [plug-in](plugins.md) |

Side networks let no gradient into the backbone. A training step of bart-base on 32 examples of 20 words, 36 visual
tokens and 5 words of answer takes, on a CPU (`python benchmarks/side_memory.py`; MiB above the loaded model, and as a
share of LoRA's):

| | peak | kept for the backward pass |
| :-- | --: | --: |
| `full` | 1,730 (1.15) | 980 (1.03) |
| `lora` | 1,508 | 951 |
| `lst` | 483 (0.32) | 386 (0.41) |
| `unipt` | 327 (0.22) | 205 (0.22) |
| `sherl` | 305 (0.20) | 168 (0.18) |

Not hosted, and why: **CROME** (arXiv 2408.06610), of which neither code nor a formula could be found: an approximation
under its name would be compared as if it were it. **p-Adapter** (AAAI 2024), whose released code does not run and whose
self-attention form is a gated plain adapter ([followups-b](reference/followups-b.md), section 6). **Word and descriptor
soups** (CVPR 2024), which select text for CLIP's class prompts and have no counterpart in a model that generates. What
else two surveys list is in the [checklist](reference/checklist.md), with a verdict each.

Where there is a reference implementation, ours equals it in encoder states, logits, losses, gradients, generated ids
and updates (`tests/parity`, and `tests/followups` for the modules of the methods that followed), or else peft's
(`tests/methods/test_against_peft.py`); counts are the published ones, to
the integer (`pet-bench params`). Where published code differs from its paper or its intent, the default is what
produced the published numbers, the other is an option, the result file says which it was, and
[differences.md](differences.md) has the evidence.

Below is every registered method with its default options; `pet-bench list methods` has them with source, year and
parameters, and `pet-bench show METHOD --backbone NAME` says the same of any backbone and options. Numbers are trainable
parameters, and their share of all, for the suite `image-text`. Every method trains the visual embedding; the backbone
is frozen but for what is named.
"""
DIFFERENCES_INTRO = """\
<!-- written by docs/build.py: do not edit -->

# Named differences

Where a paper, its published code and common sense are not one thing, pet-bench does by default what the published
numbers were made with, and gives the place a name. For the differences that a method's option decides, `behaviour` in
a result file records which of the two it was, wherever that matters.

[METHODS.md](reference/methods.md) and [TASKS.md](reference/tasks.md) (by section) say what the published
implementations compute; `parity/` are runs of the authors' own code on tiny models
([tests/reference](../tests/reference/README.md)), `published/` is printed numbers
([results/published](../results/published/README.md)). YAML blocks are keys of a grid file.
"""


@cache
def described(method: str, backbone: str) -> Description | UserError:
    """The method on a backbone, or why it cannot be there."""
    try:
        return describe(MethodSpec(method), backbone, SUITE)
    except UserError as error:
        return error


def on_each(method: str) -> dict[str, Description]:
    """The backbones that the method fits, with its description there."""
    abouts = {backbone: described(method, backbone) for backbone in BACKBONES}
    return {backbone: about for backbone, about in abouts.items() if isinstance(about, Description)}


# methods.md ----------------------------------------------------------------------------------------------------------


def published(folder: Path = PUBLISHED) -> dict[tuple[str, str], str]:
    """(backbone, method) → printed percentage of trained parameters, from the CSV files of the literature's rows."""
    percents = {}
    for path in sorted(folder.rglob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                percent = row.get("published_percent") or row.get("trainable_percent")
                if percent and row.get("backbone") and row.get("suite", SUITE) == SUITE:
                    percents.setdefault((row["backbone"], row["method"]), percent)
    return percents


def methods_page(percents: dict[tuple[str, str], str]) -> str:
    head = ["method", "year"]
    for backbone in BACKBONES:
        head += [backbone, "%", *(["printed %"] if percents else [])]
    table = [head, [":--", *["--:"] * (len(head) - 1)]]
    for name in OURS:
        row = [f"[{name}](#{anchor(name)})", str(METHODS.get(name).year)]
        for backbone in BACKBONES:
            about = on_each(name).get(backbone)
            row += [f"{about.counts['trainable']:,}", f"{about.counts['percent']:.2f}"] if about else ["–", "–"]
            row += [percents.get((backbone, name), "")] if percents else []
        table.append(row)
    families = [
        f"Each `{name}<type>` is a method too: [{name[:-1]}.md]({name[:-1]}.md).\n" for name in METHODS.families()
    ]
    return "\n".join([METHODS_INTRO, *families, *_table(table), "", *(_method(name) for name in OURS)])


def _method(name: str) -> str:
    cls, places = METHODS.get(name), on_each(name)
    reference = f" Reference implementation: {cls.reference}." if cls.reference else ""
    lines = [f"## {name}\n", f"{cls.source.rstrip('.')}.{reference}\n", f"{_beginning(cls)}\n"]
    for backbone in BACKBONES:
        if backbone not in places:
            lines.append(f"* not on {backbone}: {'; '.join(described(name, backbone).faults)}")
    (backbone, about), *others = places.items()
    for sites, formula in about.inserts:
        lines.append(f"* `{formula}`<br>at {', '.join(f'`{site}`' for site in sites)}")
    lines += [f"* `{formula}`" for formula in about.doors]
    for other, there in others:
        lines += [f"* on {other}: `{formula}`" for formula in there.doors if formula not in about.doors]
    lines.append(f"* trains: {_ticked(about.train)}" + _elsewhere(about, others, lambda there: _ticked(there.train)))
    lines += _options(about, others)
    if more := _rest(cls):
        lines.append(f"\n{more}\n")
    matter = {key: how for there in places.values() for key, how in there.behaviour.items()}
    if matter:
        links = (f"[{key}](differences.md#{anchor(key)}): {how}" for key, how in matter.items())
        lines.append(f"* {', '.join(links)}")
    return "\n".join(lines) + "\n"


def _beginning(cls: type[Method]) -> str:
    """The first paragraph of the docstring, with the equation that it announces."""
    first, *rest = cleandoc(cls.__doc__).split("\n\n")
    text = " ".join(first.split())
    return f"{text} `{' '.join(rest[0].split())}`" if text.endswith(":") and rest else text


def _rest(cls: type[Method]) -> str:
    """What the docstring says behind its beginning: options, deliberate differences, what is ours."""
    first, *rest = cleandoc(cls.__doc__).split("\n\n")
    return "\n\n".join(rest[first.rstrip().endswith(":") :])


def _ticked(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _elsewhere(about: Description, others: Others, show: Callable[[Description], str]) -> str:
    """What is not the same on the other backbones, in parentheses."""
    differing = [f"{backbone}: {show(there)}" for backbone, there in others if show(there) != show(about)]
    return f" ({'; '.join(differing)})" if differing else ""


def _options(about: Description, others: Others) -> list[str]:
    """Every option with its default; many of them folded away."""
    shown = [
        f"`{key}` {_plain(value)}" + _elsewhere(about, others, lambda there, key=key: _plain(there.options[key]))
        for key, value in about.options.items()
    ]
    if len(shown) > FOLDED:
        return [f"* <details><summary>{len(shown)} options</summary>\n", f"  {', '.join(shown)}\n", "  </details>"]
    return [f"* options: {', '.join(shown)}"] if shown else []


def _plain(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000).removesuffix("\n...\n").strip()
    return f"`{text}`"


def anchor(title: str) -> str:
    """As GitHub makes it of a heading."""
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c in "-_")


def _table(rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in rows]


# differences.md ------------------------------------------------------------------------------------------------------


def differences_page() -> str:
    parts = [DIFFERENCES_INTRO, "## Decided by a method's option\n"]
    parts += [_difference(difference, users) for difference, users in own_differences().values()]
    for title, entries in SECTIONS.items():
        parts += [f"## {title}\n", *map(_entry, entries)]
    return "\n".join(parts)


def own_differences() -> dict[str, tuple[Difference, list[str]]]:
    """Name → the difference and the methods that have it."""
    by_name = {}
    for method in map(METHODS.get, OURS):
        for difference in method.differences:
            by_name.setdefault(difference.name, (difference, []))[1].append(method.name)
    return by_name


def switch(difference: Difference, users: list[str]) -> dict[str, Any]:
    """Keys of a grid whose one method behaves as intended where it did not."""
    for name in sorted(users, key=len):
        for backbone, about in on_each(name).items():
            if difference.name in about.behaviour:
                place = {"backbones": [backbone]} if "family" in difference.where else {}
                return place | {"methods": [{"name": name, difference.option: difference.intended}]}
    options = {key: value for key, value in difference.where.items() if key != "family"}
    return {"methods": [{"name": users[0], **options, difference.option: difference.intended}]}


def _difference(difference: Difference, users: list[str]) -> str:
    where = [
        f"on {value}" if key == "family" else f"if `{key}` is `{value}`" for key, value in difference.where.items()
    ]
    lines = [f"### {difference.name}\n", f"{difference.what}\n"]
    lines.append(f"* Option: `{difference.option}`" + "".join(f", {condition}" for condition in where))
    if difference.published == difference.intended:
        lines.append(f"* Published and intended: {_plain(difference.published)}")
    else:
        lines.append(f"* Published: {_plain(difference.published)}; intended: {_plain(difference.intended)}")
    lines.append(f"* By default: {_defaults(difference, users)}")
    if difference.published != difference.intended:
        text = yaml.safe_dump(switch(difference, users), sort_keys=False, default_flow_style=None, width=100)
        lines.append(f"* The intended one:\n{_yaml(text)}")
    lines.append(f"* Shown by: {difference.evidence}\n")
    return "\n".join(lines)


def _defaults(difference: Difference, users: list[str]) -> str:
    """What the methods that it matters for do by default."""
    methods: dict[str, dict[str, None]] = {}
    for name in users:
        for about in on_each(name).values():
            if difference.name in about.behaviour:
                methods.setdefault(about.behaviour[difference.name], {})[name] = None
    said = [f"{how}, in {_ticked(names)}" for how, names in methods.items()]
    return "; ".join(said) or "of no matter"


def _entry(entry: Entry) -> str:
    lines = [f"### {entry.name}\n", f"* Meant: {entry.what}", f"* Published: {entry.published}"]
    lines += [f"* By default: {entry.ours}", f"* The other: {entry.other}"]
    if entry.grid:
        lines.append(_yaml(entry.grid))
    lines.append(f"* Shown by: {entry.evidence}\n")
    return "\n".join(lines)


def _yaml(text: str) -> str:
    return "\n".join(["  ```yaml", *(f"  {line}" for line in text.strip().splitlines()), "  ```"])


def pages() -> dict[Path, str]:
    """Every generated page with its text."""
    return {
        HERE / "backbones.md": backbones_table.page(),
        HERE / "methods.md": methods_page(published()),
        HERE / "differences.md": differences_page(),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
