"""Grid files: their YAML, and every value in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fuzzing import mutations
from fuzzing.case import Case, Mutation, Reader, product, sound
from fuzzing.mutations import BOM, Raw, Rule

KIND = "grid"
GRID = {
    "name": "fuzzed",
    "suites": ["mini-image-text/vqa+nlvr2"],
    "backbones": ["mini-bart"],
    "methods": ["projector-only", {"name": "lora", "rank": 4}, {"name": "vl-adapter", "sweep": {"bottleneck": [4, 8]}}],
    "seeds": [0, 1],
    "controls": {"none": {}, "text-only": {"seeds": [0]}},
    "recipe": {
        "lr": 1e-3,
        "epochs": 2,
        "batch_size": 8,
        "weight_decay": 0.02,
        "warmup": 0.2,
        "clip": 4.0,
        "beta1": 0.8,
        "beta2": 0.99,
        "eps": 1e-5,
        "max_steps": 2,
        "valid_every": 2,
        "precision": "bfloat16",
        "selection": "best",
        "generation": "plain",
        "decay_norms": False,
        "data_order": "seeded",
        "bucket": 2,
    },
    "protocol": {"vqa": {"scorer": "2021"}},
    "overrides": [{"when": {"method": ["lora"], "control": "none"}, "recipe": {"lr": 2e-3}, "options": {"rank": 8}}],
    "resources": {"cpus": 1, "gpus": 0, "max_concurrent": 2, "order": "listed", "reuse_workers": True, "retries": 1},
}
SEARCH = {
    "name": "searched",
    "suites": ["mini-image-text/nlvr2"],
    "backbones": ["mini-bart"],
    "methods": ["lora"],
    "recipe": {"batch_size": 8, "epochs": 3},
    "search": {
        "space": {
            "recipe.lr": {"log_uniform": [1e-4, 1e-2]},
            "lora.rank": [4, 8, 16],
            "recipe.bucket": {"int": [1, 4]},
        },
        "samples": 3,
        "early_stopping": {"grace_epochs": 1, "reduction": 3},
    },
}
DRY = Reader("dry-run", ("run", "WORK/grid.yaml", "--dry-run", "--estimate", "earlier", "--out", "WORK/out"), cost=2)
READERS = [
    DRY,
    Reader("status", ("status", "WORK/grid.yaml", "--out", "WORK/out")),
    Reader("check", ("results", "check", "WORK"), lenient=True),  # whose trials a grid has is no matter of results
    Reader("report", ("report", "WORK/grid.yaml", "--out", "WORK/out"), sound=False),
    Reader("rerun", ("rerun", "WORK/grid.yaml", "--failed", "--out", "WORK/out", "--executor", "inline"), sound=False),
    Reader("export", ("export", "WORK/grid.yaml", "--format", "peft"), sound=False),
]
SEARCHED = [
    Reader("dry-run-search", ("run", "WORK/search.yaml", *DRY.args[2:]), cost=2),
    Reader("status-search", ("status", "WORK/search.yaml", "--out", "WORK/out")),
    Reader("best", ("best", "WORK/search.yaml", "--out", "WORK/out"), sound=False),
]
RULES = [
    Rule("controls.*", "null", "accept"),
    Rule("controls.none", "empty", "either"),
    Rule("controls.*", "empty", "either"),
    Rule("controls.*.seeds", "null", "either"),
    Rule("controls.*", "dropped", "either"),
    Rule("recipe.max_steps", "null", "either"),
    Rule("recipe.*", "dropped", "either"),
    Rule("recipe", "null", "either"),
    Rule("resources.gpus", "null", "either"),
    Rule("resources.max_concurrent", "null", "either"),
    Rule("resources.*", "dropped", "either"),
    Rule("seeds", "dropped", "either"),
    Rule("controls", "dropped", "either"),
    Rule("recipe", "dropped", "either"),
    Rule("protocol*", "dropped", "either"),
    Rule("resources", "dropped", "either"),
    Rule("overrides", "dropped", "either"),
    Rule("overrides.0.when.*", "dropped", "either"),
    Rule("overrides.0.when", "empty", "either"),
    Rule("overrides.0.recipe*", "dropped", "either"),
    Rule("overrides.0.options*", "dropped", "either"),
    Rule("overrides", "again", "either"),
    Rule("overrides.0.when.method", "again", "either"),
    Rule("overrides.0.when.*", "null", "either"),
    Rule("overrides.0.*", "empty", "either"),
    Rule("recipe", "empty", "either"),
    Rule("protocol*", "empty", "either"),
    Rule("resources", "empty", "either"),
    Rule("overrides", "empty", "either"),
    Rule("methods.1.rank", "dropped", "either"),
    Rule("methods.2.sweep", "dropped", "either"),
    Rule("methods.2.sweep", "empty", "either"),
    Rule("methods.2.sweep.bottleneck", "dropped", "either"),
    Rule("search.early_stopping*", "null", "either"),
    Rule("search.early_stopping*", "empty", "either"),
    Rule("search.early_stopping*", "dropped", "either"),
    Rule("search", "dropped", "either"),
    Rule("search.samples", "dropped", "either"),
    Rule("search.space.*", "dropped", "either"),
    Rule("search.space.lora.rank", "again", "either"),
]
HUGE = 10**30
VALUES = {
    "recipe.*": {"off": Raw("off"), "sexagesimal": Raw("1:30"), "not a number": Raw(".nan"), "unbounded": Raw(".inf")},
    "resources.*": {"unbounded": Raw(".inf"), "not a number": Raw(".nan"), "sexagesimal": Raw("1:30")},
    "seeds.*": {"huge": HUGE, "sexagesimal": Raw("1:30"), "hex": Raw("0x10"), "fraction": 0.5},
    "search.samples": {"huge": HUGE, "zero": 0},
    "search.space.recipe.lr.log_uniform.*": {"not a number": Raw(".nan"), "unbounded": Raw(".inf"), "zero": 0},
    "recipe.epochs": {"huge": HUGE, "zero": 0, "fraction": 1.5},
    "recipe.batch_size": {"huge": HUGE, "zero": 0},
    "recipe.bucket": {"huge": HUGE, "zero": 0},
    "recipe.valid_every": {"huge": HUGE},
    "recipe.max_steps": {"huge": HUGE, "zero": 0},
    "recipe.lr": {"zero": 0, "one in text": "1e-3"},
    "recipe.warmup": {"two": 2.0},
    "recipe.beta?": {"one": 1.0},
    "recipe.clip": {"zero": 0},
    "recipe.eps": {"zero": 0},
    "resources.cpus": {"zero": 0},
    "resources.max_concurrent": {"huge": HUGE, "zero": 0},
    "suites.0": {
        "ends in a slash": "mini-image-text/",
        "no task": "mini-image-text/vqa+",
        "twice": "mini-image-text/vqa+vqa",
    },
    "methods.*": {
        "no name": {"rank": 8},
        "nested": ["lora"],
        "name null": {"name": None},
        "tagged": Raw("!!python/name:os.system x"),
    },
    "methods.1.rank": {"huge": HUGE, "zero": 0, "half": 2.5, "vast": 10**12},
    "name": {"letters": "n" * 300, "dots": "..", "blank": " "},
    "controls": {"unknown": {"nothing": {}}, "listed twice": ["none", "none"]},
    "protocol.vqa": {"unknown": {"scorer": "2017"}, "foreign": {"nope": 1}},
}


def _texts() -> list[Mutation]:
    """What is wrong with YAML before any value is looked at."""
    head = "name: x\nsuites: [mini-image-text]\nbackbones: [mini-bart]\n"
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    texts = {
        "deep": ("methods: " + "[" * 5000 + "]" * 5000, "refuse"),
        "deep mapping": (head + "methods: [lora]\nrecipe: " + "{a: " * 5000 + "1" + "}" * 5000, "refuse"),
        "deep blocks": ("".join(" " * i + "a:\n" for i in range(3000)), "refuse"),
        "cycle": (head + "methods: &m [lora, *m]", "refuse"),
        "cycle in itself": (head + "methods: [lora]\nrecipe: &r {lr: *r}", "refuse"),
        "cycle of methods": (head + "methods: [&m {name: lora, rank: *m}]", "refuse"),
        "bomb": (bomb + head + "methods: [*a11]", "refuse"),
        "merge": (head + "methods: [lora]\nrecipe: {<<: {lr: 1e-3}}", "either"),
        "two documents": (head + "methods: [lora]\n---\nname: y\n", "refuse"),
        "tag": (head + "methods: [!!python/object/apply:os.system [ls]]", "refuse"),
        "binary": (head + "methods: [!!binary aGVsbG8=]", "refuse"),
        "date": (head + "methods: [lora]\nseeds: [2001-01-01]", "refuse"),
        "tab": (head + "methods:\n\t- lora", "refuse"),
        "alias to nothing": (head + "methods: [*m]", "refuse"),
        "anchors": (head + "methods: &m [projector-only]\nseeds: [0]", "either"),
        "many seeds": (head + f"methods: [lora]\nseeds: [{', '.join(map(str, range(200_000)))}]", "either"),
        "many values": (
            head + f"methods: [{{name: lora, sweep: {{rank: [{', '.join(map(str, range(1, 20_000)))}]}}}}]",
            "either",
        ),
        "vast sweep": (
            head
            + "methods: [{name: lora, sweep: {rank: &r [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], "
            + ", ".join(f"o{i}: *r" for i in range(20))
            + "}}]",
            "refuse",
        ),
        "no trials": (head + "methods: [lora]\nseeds: []", "refuse"),
        "no seeds of a control": (head + "methods: [lora]\ncontrols: {none: {seeds: []}}", "refuse"),
        "key twice": (head + "methods: [lora]\nmethods: [full]", "refuse"),
        "key of a list": (head + "methods: [lora]\n? [a, b]\n: 1", "refuse"),
        "key of null": (head + "methods: [lora]\n~: 1", "refuse"),
        "key of a number": (head + "methods: [lora]\nrecipe: {1: 2}", "refuse"),
        "colour codes": (head + "methods: ['[/red]lora[bold]']", "refuse"),
        "separator": (head + 'methods: ["lo\\u2028ra"]', "refuse"),
        "escape": (head + 'methods: ["lo\\x1b[31mra"]', "refuse"),
        "method twice": (head + "methods: [lora, lora]", "refuse"),
        "sweep twice": (head + "methods: [{name: lora, sweep: {rank: [4, 4]}}]", "refuse"),
        "projection twice": (head + "methods: [{name: lora, projections: [query, query]}]", "refuse"),
    }
    return [Mutation(name, mutations.written(text), expect) for name, (text, expect) in texts.items()]


def cases(base: Path) -> Iterator[Case]:
    yield from sound(KIND, ["grid.yaml"], READERS)
    yield from sound(KIND, ["search.yaml"], SEARCHED)
    layout = [
        Mutation("mark", mutations.on_bytes(lambda content: BOM + content), "accept"),
        Mutation("carriage returns", mutations.on_bytes(lambda content: content.replace(b', "', b',\r\n"')), "accept"),
    ]
    every = [*mutations.whole(), *_texts(), *layout, *mutations.tree(GRID, RULES, VALUES)]
    yield from product(KIND, ["grid.yaml"], "grid.yaml", every, READERS)
    yield from product(KIND, ["search.yaml"], "search.yaml", mutations.tree(SEARCH, RULES, VALUES), SEARCHED)
