"""Pairs of method and backbone that a grid lists and cannot have: left out, said, and the rest runs."""

from __future__ import annotations

import pytest

from pet_bench.cli import main
from pet_bench.errors import Faults, PluginError, UserError
from pet_bench.grid.plan.planned import Skipped
from pet_bench.grid.plan.spec import load, parse
from pet_bench.registry import REGISTRIES, load_plugin

METHOD = """
from pydantic.dataclasses import dataclass
from pet_bench.pet import Design, Method
from pet_bench.spec import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Picky(Method):
    name = "picky"
    source = "nowhere"
    year = 2026
    learning_rates = {"bart-base": 1e-3}  # none for T5: it is not asked for where the method is left out
    width: int = 4

    def skip(self, shape):
        SKIP

    def design(self, shape):
        return Design(train=("all",))
"""
ENCODERS = 'return f"a {shape.family} has no use for width {self.width}" if shape.family == "t5" else None'


@pytest.fixture
def picky(tmp_path, monkeypatch):
    """A loose method, by the body of its skip."""
    for registry in REGISTRIES.values():
        monkeypatch.setattr(registry, "_entries", dict(registry.entries))
        monkeypatch.setattr(registry, "_places", dict(registry._places))

    def write(skip):
        path = tmp_path / "picky.py"
        path.write_text(METHOD.replace("SKIP", skip))
        load_plugin(str(path))
        return str(path)

    return write


def grid(**more):
    return {"name": "g", "suites": ["image-text"], "backbones": ["bart-base", "t5-base"], "methods": ["picky"], **more}


def test_what_a_method_cannot_do_is_left_out_and_the_rest_stays(picky):
    picky(ENCODERS)
    plan = parse(grid(methods=["picky", "full"], seeds=[0, 1], controls=["none", "text-only"])).plan()
    pairs = {(trial.backbone, trial.method.name) for trial in plan.trials}
    assert pairs == {("bart-base", "picky"), ("bart-base", "full"), ("t5-base", "full")}
    assert list(plan.skipped) == [Skipped("t5-base", "picky", "a t5 has no use for width 4")]


def test_a_pair_is_listed_once_for_each_set_of_options(picky):
    picky(ENCODERS)
    swept = {"name": "picky", "sweep": {"width": [4, 8]}}
    part = {"suites": ["image-text"], "backbones": ["t5-base"], "methods": ["picky"]}
    skipped = parse(grid(methods=[swept], also=[part])).skipped()
    assert [(one.method, one.reason[-1]) for one in skipped] == [("picky", "4"), ("picky(width=8)", "8")]


def test_a_search_tries_nothing_where_nothing_can_be_had(picky):
    picky(ENCODERS)
    held_out = {"gqa": {"train": "train", "valid": "valid"}}
    space = {"picky.width": [4, 8], "recipe.lr": [1e-3, 1e-2]}
    plan = parse(grid(protocol=held_out, search={"space": space})).plan()
    assert {one.group.backbone for one in plan.planned} == {"bart-base"}
    assert len(plan.planned) == 4
    assert {one.backbone for one in plan.skipped} == {"t5-base"}


def test_where_everything_is_left_out_the_grid_says_why(picky):
    picky(ENCODERS)
    with pytest.raises(UserError) as caught:
        parse(grid(backbones=["t5-base"], seeds=[0, 1])).trials()
    assert caught.value.faults == ("g: skipped: picky on t5-base: a t5 has no use for width 4",)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("body", "said"), [("raise KeyError('width')", "skip raised KeyError: 'width'"), ("return 3", "skip gave 3: ")]
)
def test_a_skip_that_fails_costs_its_method_alone(picky, body, said):
    picky(body)
    plan = parse(grid(methods=["picky", "full"]))
    with pytest.raises(PluginError, match=said):
        plan.trials()
    lost = Faults()
    assert {trial.method.name for trial in plan.trials(lost)} == {"full"}
    assert said in str(UserError.many(lost.found))


def test_the_commands_say_it(picky, tmp_path, capsys):
    path = tmp_path / "g.yaml"
    path.write_text(
        "{name: g, suites: [mini-image-text], backbones: [mini-bart, mini-t5], methods: [picky], recipe: {lr: 1e-3}}"
    )
    picky(ENCODERS)
    line = "skipped: picky on mini-t5: a t5 has no use for width 4"
    out = ["--out", str(tmp_path / "out")]
    for command in (["status", str(path)], ["run", str(path), "--executor", "inline", "--dry-run"]):
        with pytest.raises(SystemExit) as end:
            main([*command, *out, *(["--estimate", "earlier"] if "run" in command else [])])
        said = capsys.readouterr()
        assert not end.value.code, said.err
        assert said.out.splitlines().count(line) == 1


def test_no_shipped_pair_is_left_out():
    assert not load("demo").skipped()
