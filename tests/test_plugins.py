"""Plug-ins are other people's code: what is wrong with one is a line that names it, and costs nobody else anything."""

from __future__ import annotations

import json
import os
import signal
import threading

import pytest
import torch
import yaml

from pet_bench.cli import main
from pet_bench.errors import Faults, PluginError, Stop, UserError, foreign
from pet_bench.grid.execute.attempt import attempt
from pet_bench.grid.execute.events import Job
from pet_bench.grid.execute.stop import StopFlag
from pet_bench.grid.plan.spec import parse
from pet_bench.pet import Delta, Door, Gate
from pet_bench.registry import BACKBONES, METHODS, METRICS, REGISTRIES, SUITES, TASKS, load_plugin
from pet_bench.results import store
from pet_bench.results.provenance import provenance
from pet_bench.results.schema import Cost, Parameters, Run, Score, TrialResult
from pet_bench.spec import MethodSpec, Runtime
from pet_bench.trial import check, run
from pet_bench.trial.check import Spoilt, check_data, check_designs
from pet_bench.trial.resolve import resolve
from tests.conftest import REFERENCE
from tests.pet.minis import mini

HEAD = """
from __future__ import annotations
from pathlib import Path
from typing import ClassVar
import torch
from pydantic.dataclasses import dataclass
from torch import nn
from pet_bench.backbone.known import Backbone
from pet_bench.data.suite import Suite
from pet_bench.data.task import Choose, Example, Task
from pet_bench.metrics.scores import Scores
from pet_bench.pet import Bottleneck, Delta, Design, Difference, Door, Gate, Insert, Method
from pet_bench.spec import STRICT, Visual
"""
METHOD = (
    HEAD
    + """
@dataclass(frozen=True, config=STRICT)
class Part(Delta):
    kind: ClassVar = "odd-part"
    formula: ClassVar = "f({x})"
    width: int = 4

    def build(self, place, d_in):
        return nn.Linear(d_in, place.d_h)

@dataclass(frozen=True, config=STRICT)
class Valve(Gate):
    kind: ClassVar = "odd-valve"
    formula: ClassVar = "1"

    def build(self, place):
        return nn.Identity()

@dataclass(frozen=True, config=STRICT)
class Hatch(Door):
    kind: ClassVar = "odd-hatch"
    formula: ClassVar = "nothing"

    def open(self, build):
        return None

@dataclass(frozen=True, kw_only=True, config=STRICT)
class Odd(Method):
    name: ClassVar = "odd"
    source: ClassVar = "nowhere"
    year: ClassVar = 2024
    learning_rates: ClassVar = {"mini-bart": 1e-3}
    rank: int = 4

    def design(self, shape):
        return Design((Insert(("encoder.ffn",), Part()),))
"""
)
TASK = (
    HEAD
    + """
@dataclass(frozen=True, config=STRICT)
class Counting(Task):
    name: ClassVar = "odd-counting"
    metric: ClassVar = "odd-metric"
    prompt: str = "count: "
    train: str = "train"
    valid: str | None = None
    test: str = "test"

    def sources(self, root, split):
        return [root / "x.csv"]

    def read(self, root, name, split):
        yield Example(id=name, text="how many", images=("a/b",), targets=(("1", 1.0),))

class Metric:
    plugin_kind = "metric"
    name = "odd-metric"

    def __call__(self, predictions, examples):
        return Scores({"right": 1.0}, {example.id: 1.0 for example in examples})

SUITE = Suite("odd-suite", ("odd-counting",), Visual(width=4, tokens=1, pooled=1))
"""
)


@pytest.fixture(autouse=True)
def put_back(monkeypatch):
    """Undo what loose plug-ins register."""
    for registry in REGISTRIES.values():
        monkeypatch.setattr(registry, "_entries", dict(registry.entries))
    for base in (Delta, Gate, Door):
        monkeypatch.setattr(base, "kinds", dict(base.kinds))


@pytest.fixture
def plugin(tmp_path):
    """Writes a loose file, the text changed; gives its path."""

    def write(text, *changes, name="p"):
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def call(capsys):
    """Run a command; gives (exit code, stdout, lines of stderr)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return caught.value.code or 0, out, err.splitlines()

    return run


# refused when loaded -------------------------------------------------------------------------------------------------

NAMES = [
    "",
    " ",
    "a b",
    "a/b",
    "../a",
    "a\\nb",
    "a\\tb",
    "\\x1b[31m",
    "a,b",
    "a=b",
    "f(x)",
    "-a",
    "a" * 65,
    "peft:odd",
    "x:y",
]
REFUSED = [
    *((METHOD, 'name: ClassVar = "odd"', f'name: ClassVar = "{name}"', "a name") for name in NAMES),
    (METHOD, 'name: ClassVar = "odd"', "name: ClassVar = 7", "its name is no text"),
    (METHOD, 'name: ClassVar = "odd"', 'name: ClassVar = "recipe"', "--set recipe.KEY"),
    (METHOD, 'name: ClassVar = "odd"', 'name: ClassVar = "odd:"', "variant"),
    (METHOD, 'name: ClassVar = "odd"', 'name: ClassVar = "lora"', "registered twice"),
    (METHOD, '    source: ClassVar = "nowhere"\n', "", "source is missing"),
    (METHOD, '"nowhere"', '"  "', "source is"),
    (METHOD, "= 2024", "= '2024'", "year is '2024'"),
    (METHOD, "= 2024", "= True", "year is True"),
    (METHOD, '{"mini-bart": 1e-3}', "None", "learning_rates is None"),
    (METHOD, '{"mini-bart": 1e-3}', '{"mini-bart": 0}', "learning_rates"),
    (METHOD, '{"mini-bart": 1e-3}', '{"mini-bart": "1e-3"}', "learning_rates"),
    (METHOD, '{"mini-bart": 1e-3}', '{"mini-bart": float("nan")}', "learning_rates"),
    (METHOD, '{"mini-bart": 1e-3}', "{7: 1e-3}", "learning_rates"),
    (METHOD, "    rank: int = 4", "    recipe: ClassVar = {'epohcs': 1}", "recipe has no epohcs"),
    (METHOD, "    rank: int = 4", "    differences: ClassVar = ('a',)", "differences is"),
    (
        METHOD,
        "    rank: int = 4",
        "    differences: ClassVar = (Difference('d', 'rnak', 1, 2, {}, '', ''),)",
        "about rnak, which is no option",
    ),
    (METHOD, "    rank: int = 4", "    batch_invariant: ClassVar = 'yes'", "batch_invariant is 'yes'"),
    (METHOD, "    rank: int = 4", "    rank: object = object()", "the option rank is no plain data"),
    (METHOD, "    rank: int = 4", "    rank: float = float('inf')", "the option rank is no plain data"),
    (METHOD, "    rank: int = 4", "    sweep: int = 4", "the option sweep is a grid file's own word"),
    (METHOD, "def design", "def dseign", "design is missing: the class is abstract"),
    (METHOD, "    def design", "    skip = 'never'\n\n    def design", "skip has to be a method, found 'never'"),
    (METHOD, "    def design", "    design = 5\n\n    def desing", "design has to be a method, found 5"),
    (TASK, "    def read", "    read = None\n\n    def raed", "read has to be a method, found None"),
    (METHOD, "kw_only=True, config=STRICT", "kw_only=True", "frozen=True"),
    (METHOD, "frozen=True, kw_only=True, config", "config", "frozen=True"),
    (METHOD, "@dataclass(frozen=True, kw_only=True, config=STRICT)\n", "", "frozen=True"),
    (METHOD, "class Odd(Method):", "class Odd:\n    plugin_kind = 'method'", "does not extend pet_bench.pet.Method"),
    (METHOD, '"odd-part"', '"bottleneck"', 'delta "bottleneck" is there twice'),
    (METHOD, 'kind: ClassVar = "odd-hatch"', 'kind: ClassVar = ["x"]', "unhashable"),
    (
        TASK,
        "class Counting(Task):",
        "class Counting:\n    plugin_kind = 'task'",
        "does not extend pet_bench.data.task.Task",
    ),
    (TASK, "def read", "def raed", "read is missing"),
    (TASK, 'metric: ClassVar = "odd-metric"', "metric: ClassVar = None", "metric is None"),
    (TASK, "    valid: str | None = None\n", "", "the options valid are missing"),
    (TASK, 'prompt: str = "count: "', "prompt: str", "have no default"),
    (TASK, 'metric: ClassVar = "odd-metric"', "metric: ClassVar = 'a'\n    loss: ClassVar = 'mean'", "loss is 'mean'"),
    (TASK, 'metric: ClassVar = "odd-metric"', "metric: ClassVar = 'a'\n    decoding: ClassVar = 3", "decoding is 3"),
    (TASK, '("odd-counting",)', '"odd-counting"', "tasks is 'odd-counting'"),
    (TASK, '("odd-counting",)', "()", "its tasks are none"),
    (TASK, "Visual(width=4, tokens=1, pooled=1)", "(4, 1)", "visual is (4, 1)"),
    (TASK, "pooled=1)", "pooled=1), embedded=7", "embedded is 7"),
    (HEAD, "\nfrom pet_bench.spec", "\nB = Backbone('odd-base', 'gpt', 'x')\nfrom pet_bench.spec", "family is 'gpt'"),
    (HEAD, "\nfrom pet_bench.spec", "\nB = Backbone('odd-base', 'bart', 'x', 3)\nfrom pet_bench.spec", "config is 3"),
    (HEAD, "\nimport torch", "\nimport sys; sys.exit(0)", "failed on import: SystemExit: 0"),
    (HEAD, "\nimport torch", "\nraise KeyboardInterrupt", "failed on import: KeyboardInterrupt"),
    (HEAD, "\nimport torch", "\ndef f(): f()\nf()", "failed on import: RecursionError"),
    (HEAD, "\nimport torch", "\nclass E(Exception):\n    __str__ = 5\nraise E", "failed on import: E"),
    (HEAD, "\nimport torch", "\nraise MemoryError", "failed on import: MemoryError"),
    (METHOD, '    name: ClassVar = "odd"\n', "", "(Odd: without a name)"),
]


@pytest.mark.parametrize("text, old, new, part", REFUSED, ids=lambda value: value[:40] if len(value) < 200 else "")
def test_what_may_not_be_a_plugin_is_refused_when_it_is_loaded(plugin, text, old, new, part):
    before = {kind: dict(registry.entries) for kind, registry in REGISTRIES.items()}
    path = plugin(text, (old, new))
    with pytest.raises(UserError) as caught:
        load_plugin(str(path))
    (fault,) = caught.value.faults
    assert part in fault
    assert str(path) in fault
    assert fault.isprintable()
    for kind, registry in REGISTRIES.items():
        assert before[kind].items() <= registry.entries.items()


def test_one_bad_class_leaves_the_others_of_its_file(plugin):
    with pytest.raises(PluginError, match="tasks is 7"):
        load_plugin(str(plugin(TASK, ('("odd-counting",)', "7"))))
    assert "odd-counting" in TASKS and "odd-metric" in METRICS and "odd-suite" not in SUITES


def test_objects_of_one_name_in_two_files_clash_and_an_imported_one_does_not(plugin):
    load_plugin(str(plugin(TASK + "\nfrom pet_bench.tasks.suites import NLVR_V1, MINI_IMAGE_TEXT\n")))
    with pytest.raises(PluginError, match=r'suite "odd-suite" registered twice: \S*p.py:SUITE and \S*q.py:SUITE'):
        load_plugin(str(plugin(HEAD + TASK.rpartition("\n\n")[2], name="q")))


def test_a_backbone_of_a_loose_file(plugin):
    load_plugin(str(plugin(HEAD + "TWIN = Backbone('odd-base', 'bart', 'x', {'d_model': -1, 'vocab_size': 'many'})\n")))
    with pytest.raises(PluginError, match='backbone "odd-base": its config raised'):
        BACKBONES.get("odd-base").anatomy  # noqa: B018


# hooks ---------------------------------------------------------------------------------------------------------------

WIDE = "Design((Insert(('encoder.ffn',), Part()),))"
BUILD = "return nn.Linear(d_in, place.d_h)"
RETURN = 'return Design((Insert(("encoder.ffn",), Part()),))'
GATED = (RETURN, 'return Design((Insert(("encoder.ffn",), gate=Valve()),))')
HATCHED = (RETURN, "return Design(doors=(Hatch(),))")


def also(text):
    """A method added to the class."""
    return ("    rank: int = 4\n", f"    rank: int = 4\n\n{text}\n")


DEFAULTS = "    @classmethod\n    def defaults(cls, shape):\n        return "
RATE = "    @classmethod\n    def learning_rate(cls, shape):\n        return "
LABEL = "    def label(self, changed):\n        return "
POST = "    def __post_init__(self):\n        "
HOOKS = {
    "design raises": ([(RETURN, "raise ValueError('boom')")], 'method "odd": design raised ValueError: boom'),
    "design exits": ([(RETURN, "raise SystemExit(0)")], "design raised SystemExit: 0"),
    "design interrupts": ([(RETURN, "raise KeyboardInterrupt")], "design raised KeyboardInterrupt"),
    "design recurses": ([(RETURN, "return self.design(shape)")], "design raised RecursionError"),
    "design is none": ([(RETURN, "return None")], "design gave None: expected a Design"),
    "design is its class": ([(RETURN, "return Design")], "expected a Design"),
    "design is a list": ([(RETURN, "return [Insert(('encoder.ffn',), Part())]")], "expected a Design"),
    "design's size": ([("Part()),))", "Bottleneck(-1)),))")], "design raised ValidationError"),
    "defaults raise": ([also(DEFAULTS + "1 / 0")], "defaults raised ZeroDivisionError"),
    "defaults a list": ([also(DEFAULTS + "[]")], "defaults gave []"),
    "defaults unknown": ([also(DEFAULTS + "{'rnak': 2}")], 'unknown method "odd" key "rnak"'),
    "options raise": ([also(POST + "raise KeyError('x')")], "its options raised KeyError"),
    "behaviour raises": ([also("    def behaviour(self, shape):\n        return {'a': 1}")], "behaviour gave {'a': 1}"),
    "no formula": ([('formula: ClassVar = "f({x})"', "pass")], 'delta "odd-part": formula is \'\', expected text'),
    "formula's place": ([("f({x})", "f({y})")], 'delta "odd-part": formula is "f({y})": only {x} can be filled in'),
    "formula a number": ([('"f({x})"', "5")], 'delta "odd-part": formula is 5'),
    "no kind": ([('kind: ClassVar = "odd-part"', "pass")], "delta Part: its kind is ''"),
    "kind with a dot": ([('"odd-part"', '"a.b"')], "delta Part: its kind is 'a.b'"),
    "build is none": ([(BUILD, "return None")], 'delta "odd-part": build gave None: expected a Module'),
    "build is a lambda": ([(BUILD, "return lambda x: x")], "expected a Module of torch"),
    "build is a tensor": ([(BUILD, "return torch.zeros(2)")], "expected a Module of torch"),
    "build raises": ([(BUILD, "raise OSError('boom')")], 'delta "odd-part": build raised OSError: boom'),
    "build reads values": ([(BUILD, "int(place.reader.weight.sum())")], "build raised RuntimeError"),
    "build's size": ([(BUILD, "return nn.Linear(-1, 2)")], 'delta "odd-part": build raised RuntimeError'),
    "gate raises": ([GATED, ("return nn.Identity()", "1 / 0")], 'gate "odd-valve": build raised ZeroDivisionError'),
    "gate a string": ([GATED, ("return nn.Identity()", "return 'g'")], "gate \"odd-valve\": build gave 'g'"),
    "gate's formula": ([GATED, ('formula: ClassVar = "1"', "formula: ClassVar = ''")], "odd-valve\": formula is ''"),
    "door raises": ([HATCHED, ("return None", "return build.nothing")], 'door "odd-hatch": open raised AttributeError'),
    "door a number": ([HATCHED, ("return None", "return 3")], 'door "odd-hatch": open gave 3'),
    "door's module": ([HATCHED, ("return None", "return nn.ReLU()"), ("odd-hatch", "keys")], "cannot be pet.keys"),
    "door trains nothing": (
        [HATCHED, ("return None\n", "return None\n\n    def trained(self, model):\n        return {'lm.nothing'}\n")],
        "there is no parameter lm.nothing, which is to train",
    ),
    "door trains a list": (
        [HATCHED, ("return None\n", "return None\n\n    def trained(self, model):\n        return ['a']\n")],
        "door \"odd-hatch\": trained gave ['a']",
    ),
}  # fmt: skip
WHEN_RESOLVED = {
    "rate raises": ([also(RATE + "1 / 0")], 'method "odd": learning_rate raised ZeroDivisionError'),
    "rate is negative": ([also(RATE + "-1.0")], "learning_rate gave -1.0"),
    "rate is true": ([also(RATE + "True")], "learning_rate gave True"),
    "prompts are a number": ([also("    def has_prompts(self, suite):\n        return 1")], "has_prompts gave 1"),
    "label raises": ([also(LABEL + "changed.nothing")], "label raised AttributeError"),
    "label of two lines": ([also(LABEL + "'a\\nb'")], "label gave 'a\\nb'"),
    "label is empty": ([also(LABEL + "''")], "label gave ''"),
}  # fmt: skip


@pytest.mark.parametrize("changes, part", HOOKS.values(), ids=HOOKS)
def test_what_a_hook_does_wrong_is_one_line_that_names_it(plugin, call, changes, part):
    code, _, lines = call("show", "odd", "--backbone", "mini-bart", "--plugin", plugin(METHOD, *changes))
    assert (code, len(lines)) == (2, 1)
    assert lines[0].startswith("pet-bench: error: ")
    assert 'method "odd"' in lines[0]
    assert part in lines[0]


@pytest.mark.parametrize("changes, part", WHEN_RESOLVED.values(), ids=WHEN_RESOLVED)
def test_what_is_wrong_with_a_trial_is_one_line_too(plugin, call, tmp_path, changes, part):
    where = ["--plugin", plugin(METHOD, *changes), "--out", tmp_path / "out", "--dry-run", "--estimate", "earlier"]
    code, _, lines = call("run", "--method", "odd", "--suite", "nlvr2", *where)
    assert (code, len(lines)) == (2, 1)
    assert 'method "odd"' in lines[0]
    assert part in lines[0]


# the others go on ----------------------------------------------------------------------------------------------------

BROKEN = (RETURN, "raise ValueError('boom')")
SAID = 'pet-bench: error: method "odd": design raised ValueError: boom'


def test_params_and_list_go_on_with_the_others(plugin, call, monkeypatch):
    where = ["--plugin", plugin(METHOD, BROKEN)]
    methods = [part for name in ("full", "odd", "projector-only") for part in ("--method", name)]
    code, out, lines = call("params", "--backbone", "mini-bart", *methods, "--format", "json", *where)
    assert (code, lines) == (2, [SAID])
    assert [count["method"] for count in json.loads(out)] == ["full", "projector-only"]

    monkeypatch.setattr(METHODS, "_entries", {name: METHODS.entries[name] for name in ("full", "odd", "peft:")})
    code, out, lines = call("list", "methods")
    assert (code, lines) == (2, [SAID])
    assert [line.split()[0] for line in out.splitlines() if line and not line.startswith(" ")] == [
        "name",
        "full",
        "peft:<type>",
    ]


@pytest.mark.parametrize("command", [["list", "metrics"], ["show", "full", "--backbone", "mini-bart"]])
def test_a_plugin_that_cannot_be_loaded_is_said_after_what_was_asked(plugin, call, command):
    code, out, lines = call(*command, "--plugin", plugin("1 / 0"), "--plugin", plugin(TASK, name="q"))
    assert (code, len(lines)) == (2, 1)
    assert "ZeroDivisionError" in lines[0]
    assert ("odd-metric" if command[0] == "list" else "trainable") in out


@pytest.mark.parametrize("kind", ["tasks", "suites"])
def test_the_catalogue_goes_on(plugin, call, kind):
    changes = [("return [root / ", "return [1 / 0, root / ")] if kind == "tasks" else [("pooled=1)", "pooled=1), 7")]
    code, out, lines = call("list", kind, "--plugin", plugin(TASK, *changes))
    assert (code, len(lines)) == (2, 1)
    assert ("sources raised ZeroDivisionError" if kind == "tasks" else "recipe is 7") in lines[0]
    assert "nlvr-v1" in out and f"odd-{'counting' if kind == 'tasks' else 'suite'}" not in out


GRID = {
    "name": "g", "suites": ["mini-image-text/nlvr2"], "backbones": ["mini-bart"], "methods": ["projector-only", "odd"],
}  # fmt: skip


def test_a_dry_run_goes_on_with_the_others(plugin, call, tmp_path):
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(GRID))
    more = ["--out", tmp_path / "out", "--dry-run", "--estimate", "earlier"]
    code, out, lines = call("run", tmp_path / "g.yaml", "--plugin", plugin(METHOD, BROKEN), *more)
    assert (code, lines) == (2, [SAID])
    assert "projector-only" in out and "1 trial to run" in out and "odd" not in out


@pytest.fixture
def quick(monkeypatch):
    """Trials that train nothing; their designs are checked as ever."""

    def run_trial(spec, runtime, *more):
        result = TrialResult(
            id=spec.id,
            status="done",
            spec=spec.to_dict(),
            provenance=provenance("2026-01-01T00:00:00+00:00", device="none", threads=1, data="d0"),
            parameters=Parameters(trainable=10, total=1000, percent=1.0, groups={"visual": 10}),
            metrics={task: {"accuracy": Score(value=50.0, split="test", n=4)} for task in spec.tasks},
            average=50.0,
            cost=Cost(**dict.fromkeys(Cost.model_fields, 1)),
            run=Run(),
        )
        store.save(result, runtime.out)

    monkeypatch.setattr(check, "check_data", lambda *ignored: None)
    monkeypatch.setattr(run, "run_trial", run_trial)


def test_a_run_goes_on_with_the_others_and_records_why(plugin, call, tmp_path, quick):
    path, out = tmp_path / "g.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(GRID | {"seeds": [0, 1]}))
    code, text, lines = call("run", path, "--plugin", plugin(METHOD, BROKEN), "--out", out, "--executor", "inline")
    assert (code, lines) == (1, [])
    assert text.count("design raised ValueError: boom") == 2
    results = {(result.spec["method"]["name"], result.spec["seed"]): result for result in store.load_all(out).values()}
    assert {key: result.status for key, result in results.items()} == {
        ("projector-only", 0): "done", ("projector-only", 1): "done", ("odd", 0): "failed", ("odd", 1): "failed",
    }  # fmt: skip
    failed = results["odd", 0]
    assert failed.error == 'odd on mini-bart: method "odd": design raised ValueError: boom'
    assert "raise ValueError('boom')" in (out / failed.id / "traceback.txt").read_text()

    before = {file: file.read_bytes() for file in out.rglob("*.json")}
    code, _, lines = call("run", path, "--out", out, "--executor", "inline")  # nothing else is left to run
    assert (code, len(lines)) == (2, 1)
    assert "design raised ValueError: boom" in lines[0]
    assert before == {file: file.read_bytes() for file in out.rglob("*.json")}


def test_a_run_goes_on_without_a_method_that_cannot_be_resolved(plugin, call, tmp_path, quick):
    path, out = tmp_path / "g.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(GRID))
    flags = ["--plugin", plugin(METHOD, also(RATE + "1 / 0")), "--out", out, "--executor", "inline"]
    code, _, lines = call("run", path, *flags)
    assert code == 1
    assert lines == ['pet-bench: error: method "odd": learning_rate raised ZeroDivisionError: division by zero']
    assert [result.status for result in store.load_all(out).values()] == ["done"]


def test_faults_of_the_grid_still_stop_all_of_it(plugin, call, tmp_path, quick):
    path = tmp_path / "g.yaml"
    path.write_text(yaml.safe_dump(GRID | {"methods": ["projector-only", "odd", {"name": "lora", "rnak": 2}]}))
    flags = ["--plugin", plugin(METHOD, also(RATE + "1 / 0")), "--out", tmp_path / "out", "--executor", "inline"]
    code, _, lines = call("run", path, *flags)
    assert (code, len(lines)) == (2, 2)
    assert not list(tmp_path.glob("out/*"))


def test_designs_that_fail_and_designs_that_do_not_fit(plugin):
    load_plugin(str(plugin(METHOD, BROKEN)))
    trials = [resolve("mini-bart", MethodSpec(name), "mini-image-text", 0) for name in ("odd", "full")]
    with pytest.raises(Spoilt) as caught:
        check_designs(trials)
    assert caught.value.trials.keys() == {trials[0].id}
    unfit = resolve("mini-t5", MethodSpec("lora", {"biases": True}), "mini-image-text", 0)
    with pytest.raises(UserError, match="selector") as caught:
        check_designs([*trials, unfit])
    assert not isinstance(caught.value, Spoilt)
    assert len(caught.value.faults) == 2


# tasks and metrics ---------------------------------------------------------------------------------------------------

READ = 'yield Example(id=name, text="how many", images=("a/b",), targets=(("1", 1.0),))'
DATA = {
    "read raises": (READ, "yield {}['image']", "read raised KeyError: 'image'"),
    "read gives a dict": (READ, "yield {'id': 1}", "read gave {'id': 1}, expected an Example"),
    "read gives a number as id": (READ, "yield Example(id=3, text='', images=())", "expected an Example"),
    "read exits": (READ, "raise SystemExit(1)", "read raised SystemExit: 1"),
    "sources raise": ('return [root / "x.csv"]', "return [root.nothing]", "sources raised AttributeError"),
    "sources give text": ('return [root / "x.csv"]', "return ['x.csv']", "sources gave ['x.csv']"),
    "feature_path raises": ("    def sources", "    def feature_path(self, *a):\n        1 / 0\n\n    def sources",
                            "feature_path raised ZeroDivisionError"),
    "embedded raises": ("pooled=1)", "pooled=1), embedded=lambda: 1 / 0", "embedded raised ZeroDivisionError"),
    "embedded gives text": ("pooled=1)", "pooled=1), embedded=lambda: 'x'", "embedded gave 'x'"),
}  # fmt: skip


@pytest.mark.parametrize("old, new, part", DATA.values(), ids=DATA)
def test_what_a_task_does_wrong_costs_its_own_trials(plugin, tmp_path, monkeypatch, old, new, part):
    load_plugin(str(plugin(TASK, (old, new))))
    own = None if "embedded" in part else tmp_path
    trial, other = (resolve("mini-bart", MethodSpec("full"), suite, 0) for suite in ("odd-suite", "mini-image-text"))

    class Read(check.Shared):
        def data(self, spec, *more):
            return None if spec.suite == other.suite else super().data(spec, *more)

    with pytest.raises(Spoilt) as caught:
        check_data([trial, other], Runtime(tmp_path, own), shared=Read())
    assert caught.value.trials.keys() == {trial.id}
    (fault,) = caught.value.faults
    assert part in fault
    assert "odd-" in fault


@pytest.mark.parametrize(
    "body, part",
    [
        ("def __init__(self):\n        1 / 0", 'task "odd-counting": its metrics raised ZeroDivisionError'),
        ("def check(self):\n        1 / 0", 'metric "odd-metric": check raised ZeroDivisionError'),
    ],
)
def test_a_metric_that_cannot_be_used(plugin, body, part):
    load_plugin(str(plugin(TASK, ("    def __call__", f"    {body}\n\n    def __call__"))))
    with pytest.raises(PluginError, match=part):
        TASKS.get("odd-counting")().check_metrics()


def test_a_task_whose_options_raise(plugin):
    load_plugin(
        str(plugin(TASK, ("    def sources", "    def __post_init__(self):\n        1 / 0\n\n    def sources")))
    )
    with pytest.raises(PluginError, match='task "odd-counting": its options raised ZeroDivisionError'):
        resolve("mini-bart", MethodSpec("full"), "odd-suite", 0)


SCORES = 'return Scores({"right": 1.0}, {example.id: 1.0 for example in examples})'
SCORED = {
    "raises": ("raise ValueError('boom')", '__call__ raised ValueError: boom'),
    "gives a number": ("return 5.0", "__call__ gave 5.0: expected a Scores"),
    "gives NaN": (SCORES.replace("1.0}, ", "float('nan')}, "), "values is {'right': nan}"),
    "gives text": (SCORES.replace("1.0}, ", "'1'}, "), "values is {'right': '1'}"),
    "gives nothing": (SCORES.replace('{"right": 1.0}', "{}"), "values is empty"),
    "forgets one": (SCORES.replace("in examples", "in examples[1:]"), "per_example is not of the examples"),
}  # fmt: skip


@pytest.mark.parametrize("new, part", SCORED.values(), ids=SCORED)
def test_what_a_metric_does_wrong(plugin, new, part):
    load_plugin(str(plugin(TASK, (SCORES, new))))
    task = TASKS.get("odd-counting")()
    examples = task.examples("/nowhere", "test")
    with pytest.raises(PluginError) as caught:
        task.score({examples[0].id: "1"}, examples)
    (fault,) = caught.value.faults
    assert fault.startswith('metric "odd-metric": ')
    assert part in fault


# what a trial raises -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body, part",
    [
        ("raise ValueError('boom')", "forward raised ValueError: boom"),
        ("raise SystemExit(0)", "forward raised SystemExit: 0"),
        ("return x[..., :1]", "forward gave (2, 5, 1), where H is (2, 5, 64)"),
        ("return None", "forward gave a NoneType, where H is (2, 5, 64)"),
    ],
)
def test_a_forward_that_fails_names_its_part(plugin, body, part):
    text = METHOD + f"\nclass Wrong(nn.Module):\n    def forward(self, x):\n        {body}\n"
    load_plugin(str(plugin(text, (BUILD, "return Wrong()"))))
    inserted = mini("bart", "odd").pet["encoder"]["0"]["ffn"]["0"]
    x = torch.ones(2, 5, 64)
    with pytest.raises(PluginError) as caught:
        inserted(x, x)
    assert caught.value.faults == (f'delta "odd-part": {part}',)


def test_a_trial_that_ends_the_process_is_a_failed_one(tmp_path, monkeypatch):
    (trial,) = parse(GRID | {"methods": ["full"]}).trials()

    def ends(spec, runtime, on_progress, shared):
        raise SystemExit(0)

    monkeypatch.setattr(run, "run_trial", ends)
    ended = attempt(Job(trial), Runtime(tmp_path), lambda progress: None, StopFlag.of(tmp_path))
    assert (ended.how, ended.reason) == ("failed", "SystemExit: 0")
    assert store.load(tmp_path / f"{trial.id}.json").status == "failed"


def test_a_trial_that_is_told_to_end_does(tmp_path, monkeypatch):
    """Ray raises SystemExit where a trial reports."""
    (trial,) = parse(GRID | {"methods": ["full"]}).trials()
    monkeypatch.setattr(run, "run_trial", lambda spec, runtime, on_progress, shared: on_progress(None))

    def told(progress):
        raise SystemExit(0)

    with pytest.raises(SystemExit):
        attempt(Job(trial), Runtime(tmp_path), told, StopFlag.of(tmp_path))
    assert not (tmp_path / f"{trial.id}.json").exists()


def test_a_worker_that_cannot_load_a_plugin_is_not_tried_again(plugin, tmp_path, monkeypatch):
    from ray import tune

    from pet_bench.grid.execute.worker import work
    from pet_bench.spec import plain_runtime

    (trial,) = parse(GRID | {"methods": ["full"]}).trials()
    said = []
    monkeypatch.setattr(tune, "report", said.append)
    runtime = plain_runtime(Runtime(tmp_path, plugins=(str(plugin("raise ValueError('boom')")),)))
    work({"runtime": runtime, "job": Job(trial).to_dict(), "stop": "", "folder": None}, {})
    (ended,) = (message["ended"] for message in said)
    assert (ended["id"], ended["how"]) == (trial.id, "died")
    assert "failed on import: ValueError: boom" in ended["reason"]


# the boundary --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [ValueError("a\n b"), SystemExit("a b"), KeyboardInterrupt("a b"), BaseException("a b")]
)
def test_whatever_is_raised_is_a_line(error):
    with pytest.raises(PluginError) as caught, foreign("it raised"):
        raise error
    assert caught.value.faults == (f"it raised {type(error).__name__}: a b",)
    assert [*caught.value.causes()] == [error]


@pytest.mark.parametrize("error", [UserError("a"), Stop()])
def test_what_is_ours_passes(error):
    with pytest.raises(type(error)) as caught, foreign("it raised"):
        raise error
    assert caught.value is error


def test_a_real_interrupt_passes_and_handlers_are_put_back():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background, shells have it ignored
    try:
        with pytest.raises(KeyboardInterrupt), foreign("it raised"):
            os.kill(os.getpid(), signal.SIGINT)
            signal.sigtimedwait([], 5)  # it comes at once
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_a_handler_raises_passes(monkeypatch):
    def leave(number, frame):
        raise SystemExit(7)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        with pytest.raises(SystemExit), foreign("it raised"):
            os.kill(os.getpid(), signal.SIGTERM)
            signal.sigtimedwait([], 5)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_in_a_thread_nothing_is_a_real_interrupt():
    faults = Faults()

    def work():
        with faults, foreign("it raised"):
            raise KeyboardInterrupt

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [fault.faults for fault in faults.found] == [("it raised KeyboardInterrupt",)]


@pytest.mark.parametrize("how", ["flag", "variable", ""])
def test_the_author_is_shown_where(plugin, call, monkeypatch, how):
    if how == "variable":
        monkeypatch.setenv("PET_BENCH_TRACEBACK", "1")
    path = plugin(METHOD, BROKEN)
    more = ["--traceback"] if how == "flag" else []
    code, _, lines = call("show", "odd", "--backbone", "mini-bart", "--plugin", path, *more)
    assert code == 2
    assert lines[-1] == SAID
    assert any(f'"{path}", line ' in line for line in lines) == bool(how)
    assert (len(lines) > 1) == bool(how)


# reported inputs -----------------------------------------------------------------------------------------------------


def reported():
    lines = (REFERENCE / "cases" / "fuzz.jsonl").read_text(encoding="utf-8").splitlines()
    return [case for case in map(json.loads, lines) if case["group"] == "plugins"]


@pytest.mark.parametrize("case", reported(), ids=lambda case: case["name"])
def test_every_reported_plugin_is_one_clear_line(call, tmp_path, case):
    for name, text in case["files"].items():
        (tmp_path / name).write_text(text)
    code, _, lines = call(*(part.replace("WORK", str(tmp_path)) for part in case["args"]))
    assert (code, len(lines)) == (2, 1)
    assert lines[0].startswith("pet-bench: error: ")
    assert not (tmp_path / "out").exists()
