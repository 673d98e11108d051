"""Ids last: what was measured is found under its id, whatever options are added."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field
from pydantic.dataclasses import dataclass

from pet_bench.errors import PluginError, UserError
from pet_bench.identity import Since, canonical, filled, neutral_values, normal
from pet_bench.pet import Delta, Door, Gate, build_method
from pet_bench.pet.method import restored
from pet_bench.registry import METHODS, REGISTRIES, TASKS, load_plugin
from pet_bench.spec import STRICT, MethodSpec, Recipe, Size, TrialSpec, Visual
from pet_bench.trial.resolve import known, resolve
from tests.conftest import ROOT

GOLDEN = ROOT / "tests/results/ids.csv"
COMMITTED = {path: json.loads(path.read_text(encoding="utf-8"))["spec"] for path in ROOT.glob("results/*/*.json")}
NEW = Since(3, neutral=0)


@dataclass(frozen=True, config=STRICT)
class LaterVisual(Visual):
    depth: Annotated[int, NEW] = 0


@dataclass(frozen=True, config=STRICT)
class LaterRecipe(Recipe):
    ema: Annotated[float, Since(3, neutral=0), Field(ge=0, lt=1)] = 0.9  # by default other than as before


@dataclass(frozen=True, config=STRICT)
class LaterTrial(TrialSpec):
    visual: LaterVisual
    recipe: LaterRecipe
    stage: Annotated[str | None, Since(3, neutral=None)] = None


def id_of_old(spec: dict[str, Any]) -> str:
    """The rule of the first results: the hash of everything but the label."""
    content = {key: value for key, value in spec.items() if key != "label"}
    return sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:12]


@pytest.fixture
def put_back(monkeypatch):
    """Undo what a test registers."""
    for registry in REGISTRIES.values():
        monkeypatch.setattr(registry, "_entries", dict(registry.entries))
    METHODS.load()
    for base in (Delta, Gate, Door):
        monkeypatch.setattr(base, "kinds", dict(base.kinds))


def with_a_field(cls: type, name: str, neutral: Any, default: Any, kind: Any = Any) -> Any:
    """A subclass with a marked field: the class as its next version."""
    members = {"__annotations__": {name: Annotated[kind, Since(3, neutral=neutral)]}, name: default}
    return dataclass(frozen=True, kw_only=True, config=STRICT)(
        type(cls.__name__, (cls,), members | {"__module__": cls.__module__, "__qualname__": cls.__qualname__})
    )


def again(spec: TrialSpec, **options: Any) -> TrialSpec:
    """A trial as it would be resolved today, from what its file says."""
    return resolve(
        spec.backbone,
        spec.method.changed(options),
        spec.suite,
        spec.seed,
        control=spec.control,
        recipe=asdict(spec.recipe),
        protocol=spec.protocol,
    )


# what is committed ---------------------------------------------------------------------------------------------------


def test_every_result_that_was_committed_is_there_under_its_id():
    with GOLDEN.open(encoding="utf-8") as file:
        golden = {(row["folder"], row["id"]) for row in csv.DictReader(file)}
    there = {(path.parent.name, path.stem) for path in COMMITTED}
    assert len(golden) >= 174
    assert not golden - there, "results that were committed are gone, or have other ids"
    assert not there - golden, f"add the new results to {GOLDEN.relative_to(ROOT)}"


@pytest.mark.parametrize("folder", sorted({path.parent.name for path in COMMITTED}))
def test_ids_are_those_of_the_first_rule(folder):
    for path, spec in COMMITTED.items():
        if path.parent.name == folder:
            assert id_of_old(spec) == TrialSpec.from_dict(spec).id == path.stem


@pytest.mark.parametrize("folder", sorted({path.parent.name for path in COMMITTED}))
def test_keys_of_the_trial_that_come_later_leave_every_id(folder):
    for path, data in COMMITTED.items():
        if path.parent.name == folder:
            spec = LaterTrial.from_dict(data)
            assert (spec.recipe.ema, spec.visual.depth, spec.stage) == (0.0, 0, None)
            assert spec.id == path.stem
            assert json.dumps(spec.to_dict()) == json.dumps(data)
            others = [
                replace(spec, recipe=replace(spec.recipe, ema=0.5)),
                replace(spec, visual=replace(spec.visual, depth=1)),
                replace(spec, stage="second"),
            ]
            assert len({path.stem, *(other.id for other in others)}) == 4
            for other in others:
                assert LaterTrial.from_dict(json.loads(json.dumps(other.to_dict()))) == other


def test_a_recipe_that_somebody_writes_today_has_todays_default():
    assert LaterRecipe(lr=1e-3).ema == 0.9


@pytest.mark.parametrize("default", [False, True], ids=["as before", "changed"])
def test_an_option_that_comes_later_leaves_every_id(put_back, default):
    for name in {spec["method"]["name"] for spec in COMMITTED.values()}:
        METHODS.entries[name] = with_a_field(METHODS.get(name), "later", False, default, bool)
    for path, data in COMMITTED.items():
        spec = TrialSpec.from_dict(data)
        assert again(spec, later=False).id == path.stem
        assert again(spec).id == path.stem if not default else again(spec).id != path.stem
        assert build_method(restored(spec.method), known(spec.backbone)[1]).later is False
        other = again(spec, later=True)
        assert other.id != path.stem and other.method.options["later"] is True
        assert "later=True" in other.label or default
        assert TrialSpec.from_dict(other.to_dict()) == other


# plug-ins ------------------------------------------------------------------------------------------------------------

LOOSE = """
from __future__ import annotations
from typing import Annotated, ClassVar
from pydantic.dataclasses import dataclass
from pet_bench.identity import Since
from pet_bench.pet import Design, Insert, LowRank, Method
from pet_bench.spec import STRICT

@dataclass(frozen=True, kw_only=True, config=STRICT)
class Mine(Method):
    name: ClassVar = "mine"
    source: ClassVar = "here"
    year: ClassVar = 2026
    learning_rates: ClassVar = {"mini-bart": 1e-3}
    rank: int = 4
    # more

    def design(self, shape):
        return Design((Insert(("encoder.ffn",), LowRank(self.rank, 1.0, 0.0), reads="input"),))
"""


def loose(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "mine.py").write_text(LOOSE.replace("# more", text))
    METHODS.entries.pop("mine", None)
    load_plugin(str(folder / "mine.py"))


def test_a_new_version_of_a_loose_plugin_finds_its_old_trials(put_back, tmp_path):
    loose(tmp_path / "a", "")
    old = resolve("mini-bart", MethodSpec("mine"), "mini-image-text", 0)
    loose(tmp_path / "b", "drop: Annotated[float, Since(2, neutral=0)] = 0.0")
    assert resolve("mini-bart", MethodSpec("mine"), "mini-image-text", 0) == old
    other = resolve("mini-bart", MethodSpec("mine", {"drop": 0.1}), "mini-image-text", 0)
    assert other.id != old.id
    assert other.label == "mine(drop=0.1)"
    METHODS.entries.pop("mine")  # nobody has the plug-in, but everybody the file
    assert TrialSpec.from_dict(other.to_dict()).id == other.id


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("a: Annotated[int, Since(2, neutral='x')] = 0", "the neutral value 'x' is none that it takes"),
        ("a: Annotated[int, Since(2, neutral=object())] = 0", "only plain data can be told apart for good"),
        ("a: Annotated[int, Since(2, neutral=0)] | None = 0", "Since stands inside of the type"),
        ("a: tuple[Annotated[int, Since(2, neutral=0)], ...] = ()", "Since stands inside of the type"),
        ("a: Annotated[float, Since(2, neutral=float('nan'))] = 0", "only plain data can be told apart for good"),
    ],
)
def test_a_mark_that_no_option_can_have_is_said_when_the_plugin_is_loaded(put_back, tmp_path, field, line):
    with pytest.raises(PluginError) as caught:
        loose(tmp_path / "a", field)
    assert 'method "mine"' in str(caught.value) and ":Mine.a" in str(caught.value) and line in str(caught.value)


def test_an_option_of_a_task_that_comes_later(put_back):
    vqa = TASKS.get("vqa")
    old = resolve("mini-bart", MethodSpec("bitfit"), "mini-image-text", 0, protocol={"vqa": {"test": "dev"}})
    TASKS.entries["vqa"] = with_a_field(vqa, "years", [], (), tuple[int, ...])

    def now(**options):
        protocol = {"vqa": {"test": "dev"} | options}
        return resolve("mini-bart", MethodSpec("bitfit"), "mini-image-text", 0, protocol=protocol)

    assert now().id == now(years=[]).id == old.id
    assert now(years=[2014]).id != old.id


def test_the_neutral_value_of_a_tasks_option_is_its_default(put_back):
    later = with_a_field(TASKS.get("vqa"), "years", [], (2014,), tuple[int, ...])
    with pytest.raises(PluginError, match=r"the option years is \(2014,\) by default, its neutral value \[\]"):
        TASKS._check(later, "here")


# parts of a design ---------------------------------------------------------------------------------------------------

DESIGN: dict[str, Any] = {
    "inserts": [
        {"sites": ["encoder.ffn"], "delta": {"kind": "low-rank", "rank": 2, "alpha": 1.0, "dropout": 0.0}},
        {"sites": ["decoder.ffn"], "delta": "identity", "gate": {"kind": "vector"}},
    ],
    "doors": [{"kind": "prompt", "length": 3, "hidden": 4}],
}


def of_design(design: dict[str, Any]) -> TrialSpec:
    return resolve("mini-bart", MethodSpec("design", design), "mini-image-text", 0)


PARTS = [(Delta, "low-rank"), (Delta, "identity"), (Gate, "vector"), (Door, "prompt")]


def changed(data: Any, kind: str, value: Any) -> Any:
    """The design with a field `later` in every part of that kind."""
    if isinstance(data, list):
        return [changed(item, kind, value) for item in data]
    if data == kind:
        return {"kind": kind, "later": value}
    if isinstance(data, dict):
        more = {"later": value} if data.get("kind") == kind else {}
        return {key: item if key == "kind" else changed(item, kind, value) for key, item in data.items()} | more
    return data


@pytest.mark.parametrize("default", [1.0, 2.0], ids=["as before", "changed"])
@pytest.mark.parametrize(("base", "kind"), PARTS, ids=[kind for _, kind in PARTS])
def test_a_field_of_a_part_that_comes_later_leaves_the_id(put_back, base, kind, default):
    old = of_design(DESIGN)
    assert id_of_old(old.to_dict()) == old.id
    base.kinds[kind] = with_a_field(base.kinds[kind], "later", 1, default, float)
    neutral, other = (of_design(changed(DESIGN, kind, value)) for value in (1.0, 3.0))
    assert neutral.id == old.id and neutral.to_dict()["method"] == old.to_dict()["method"]
    assert (of_design(DESIGN).id == old.id) == (default == 1.0)
    assert other.id != old.id and '"later": 3.0' in json.dumps(other.to_dict())

    def later(spec):
        method = build_method(restored(spec.method), known("mini-bart")[1])
        (value,) = (part.later for part in method.design(known("mini-bart")[1]).parts() if part.kind == kind)
        return value

    assert (later(old), later(neutral), later(other)) == (1.0, 1.0, 3.0)


def test_a_field_of_an_insert_is_one_of_a_nested_dataclass():
    @dataclass(frozen=True, config=STRICT)
    class Inner:
        width: Size = 1
        later: Annotated[tuple[int, ...], Since(3, neutral=[])] = (7,)

    old, new = [{"width": 2}, {"later": [1]}], [{"later": [], "width": 2}, {"later": [1]}]
    assert filled(tuple[Inner, ...] | None, old) == new
    assert filled(dict[str, list[Inner]], {"a": old}) == {"a": new}
    values = (Inner(), Inner(later=()))
    assert normal(values, [asdict(value) for value in values]) == [{"width": 1, "later": [7]}, {"width": 1}]
    assert neutral_values(Inner) == {"later": []}


# what enters a hash --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (Path("x"), "method.options.rank"),
        ({1, 2}, "method.options.rank"),
        ([0, object()], "method.options.rank.1"),
        ({"a": b"x"}, "method.options.rank.a"),
        ({1: 2}, "method.options.rank"),
        (float("inf"), "method.options.rank"),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
)
def test_nothing_but_plain_data_enters_a_hash(value, place):
    spec = TrialSpec(
        "mini-bart", MethodSpec("lora", {"rank": value}), "s", ("vqa",), Visual(4, 1, 1), 0, Recipe(lr=1e-3)
    )
    with pytest.raises(UserError) as caught:
        spec.id  # noqa: B018
    (line,) = caught.value.faults
    assert line.startswith(f"{place}: only plain data")


def test_a_number_is_not_the_truth_and_one_is_not_one_point_nought():
    assert len({canonical(value) for value in (1, 1.0, True, "1", [1], None)}) == 6
