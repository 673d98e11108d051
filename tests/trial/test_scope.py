"""What a method's scope is, wherever a user meets it."""

from __future__ import annotations

import json

import pytest

import pet_bench
from pet_bench.backbone.known import find_backbone
from pet_bench.errors import UserError
from pet_bench.grid.plan.spec import parse
from pet_bench.pet import trained_parameters
from pet_bench.report.tables.beneath import notes
from pet_bench.results import store
from pet_bench.results.card import card
from pet_bench.results.frames import load_settings
from pet_bench.spec import SCOPE, MethodSpec
from pet_bench.trial.count import count_parameters
from pet_bench.trial.resolve import resolve
from tests.conftest import ROOT
from tests.report.conftest import call  # noqa: F401
from tests.vlms.tiny import folder

pytestmark = pytest.mark.xdist_group("scope")  # one process for all: the trial is run once
GRID = {"name": "g", "suites": ["mini-image-text"], "backbones": ["mini-bart"]}


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    return str(folder("llava", tmp_path_factory.mktemp("scope") / "llava"))


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    """A finished trial of `lora` with its projector frozen."""
    out = tmp_path_factory.mktemp("scope") / "out"
    result = pet_bench.run_trial(
        backbone="mini-bart", method={"name": "lora", "scope": ["language"]}, suite="mini-image-text/vqa",
        recipe={"max_steps": 2, "valid_every": 0}, out=out, device="cpu", threads=1,
    )  # fmt: skip
    return out, result


def states(counts):
    return {part: share["state"] for part, share in counts["parts"].items()}


@pytest.mark.parametrize(
    ("method", "scope", "expected"),
    [
        ("lora", None, {"language": "adapted", "projector": "trained"}),
        ("lora", ["language"], {"language": "adapted", "projector": "frozen"}),
        ("bitfit", ["language"], {"language": "trained", "projector": "frozen"}),
        ("projector-only", None, {"language": "frozen", "projector": "trained"}),
    ],
)
@pytest.mark.parametrize("backbone", ["mini-bart", "mini-t5"])
def test_parts_and_stacks_of_what_reads_features(backbone, method, scope, expected):
    if method == "bitfit" and backbone == "mini-t5":
        method = "full"  # T5 has no biases
    counts = count_parameters(
        backbone, MethodSpec(method).changed({"scope": scope} if scope else {}), "mini-image-text"
    )
    assert states(counts) == expected
    for kind in ("parts", "stacks"):
        for key in ("trainable", "total"):
            assert sum(share[key] for share in counts[kind].values()) == counts[key]
    assert {"encoder", "decoder", "projector", "words"} <= counts["stacks"].keys()
    if scope:
        assert counts["parts"]["projector"]["trainable"] == 0


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (["language"], ("adapted", "frozen", "frozen")),
        (["language", "projector"], ("adapted", "trained", "frozen")),
        (["vision"], ("frozen", "frozen", "adapted")),
        (["vision", "language"], ("adapted", "frozen", "adapted")),
        (["language", "projector", "vision"], ("adapted", "trained", "adapted")),
    ],
)
def test_parts_of_what_sees_pixels(llava, scope, expected):
    counts = count_parameters(llava, MethodSpec("lora", {"biases": False}, tuple(scope)), "mini-image-text")
    assert states(counts) == dict(zip(SCOPE, expected, strict=True))
    for part, share in counts["parts"].items():
        assert (share["trainable"] > 0) == (part in scope)


def test_a_model_has_what_its_scope_says(llava):
    model = pet_bench.attach(llava, "lora", suite="mini-image-text", scope=["vision"], rank=2)
    assert {name.split(".")[1] for name in trained_parameters(model)} == {"vision"}
    model = pet_bench.attach("mini-bart", "lora", suite="mini-image-text", scope=["language"])
    assert not any(name.startswith("visual.") for name in trained_parameters(model))


def test_a_part_that_there_is_not_is_named(llava):
    with pytest.raises(UserError, match="mini-bart has no vision \\(possible: language, projector\\)"):
        pet_bench.attach("mini-bart", "lora", scope=["vision"])
    with pytest.raises(
        UserError, match=r"scope\.0: Input should be 'language', 'projector' or 'vision', found 'tower'"
    ):
        pet_bench.attach(llava, "lora", scope=["tower"])


def test_a_scope_is_a_set_and_the_family_s_own_is_none():
    one, other = (
        MethodSpec("lora").changed({"scope": scope}) for scope in (["vision", "language"], ["language", "vision"])
    )
    assert one == other
    assert str(one) == "lora [language, vision]"
    plain = resolve("mini-bart", MethodSpec("lora"), "mini-image-text", 0)
    named = resolve("mini-bart", MethodSpec("lora", scope=("language", "projector")), "mini-image-text", 0)
    assert (plain.id, plain.method) == (named.id, named.method)
    assert (plain.label, named.label) == ("lora", "lora [language, projector]")
    assert find_backbone("mini-bart").anatomy.scope == ("language", "projector")


@pytest.mark.parametrize(
    "methods",
    [
        ["lora", {"name": "lora", "scope": ["language"]}],
        [{"name": "lora", "sweep": {"scope": [["language", "projector"], ["language"]]}}],
    ],
    ids=["beside the name", "swept"],
)
def test_a_grid_has_scopes(methods):
    grid = parse({**GRID, "methods": methods})
    first, second = grid.trials()
    assert (first.method.scope, second.method.scope) == (None, ("language",))
    assert second.label == "lora [language]"


def test_a_grid_overrides_by_the_name_with_its_scope_and_overrides_the_scope():
    methods = ["lora", {"name": "lora", "scope": ["language"]}]
    rate = {"when": {"method": "lora [language]"}, "recipe": {"lr": 0.5}}
    assert [trial.recipe.lr == 0.5 for trial in parse({**GRID, "methods": methods, "overrides": [rate]}).trials()] == [
        False, True,
    ]  # fmt: skip
    frozen = {"when": {"method": "lora"}, "options": {"scope": ["language"]}}
    (trial,) = parse({**GRID, "methods": ["lora"], "overrides": [frozen]}).trials()
    assert trial.method.scope == ("language",)


def test_a_grid_s_faults_about_scopes_are_lines():
    swept = {"name": "lora", "scope": ["language"], "sweep": {"scope": [["language"]]}}
    with pytest.raises(UserError, match="method lora: scope is both set and swept"):
        parse({**GRID, "methods": [swept]}).trials()
    with pytest.raises(UserError, match="no vision"):
        parse({**GRID, "methods": [{"name": "lora", "scope": ["vision"]}]}).trials()


@pytest.mark.parametrize(
    ("method", "scope", "reason"),
    [
        ("projector-only", "language", "it trains the projector alone, which is not in the scope language"),
        ("lora", "projector", "it attaches to layers, and the scope projector has none"),
    ],
)
def test_what_would_do_nothing_is_left_out(method, scope, reason):
    grid = parse({**GRID, "methods": ["bitfit", {"name": method, "scope": [scope]}]})
    (skipped,) = grid.skipped()
    assert (skipped.method, skipped.reason) == (f"{method} [{scope}]", reason)
    with pytest.raises(UserError, match=reason):
        count_parameters("mini-bart", MethodSpec(method, scope=(scope,)), "mini-image-text")


def test_the_result_the_card_and_the_frames_say_it(trial):
    out, result = trial
    parts = json.loads((out / f"{result.id}.json").read_text())["parameters"]["parts"]
    assert {part: share["state"] for part, share in parts.items()} == {"language": "adapted", "projector": "frozen"}
    assert store.load(out / f"{result.id}.json") == result
    assert f"| projector | frozen | 0 | {parts['projector']['total']:,} |" in card(result)
    assert store.to_frame([result]).scope[0] == "language adapted, projector frozen"
    assert load_settings(out)["method.scope"][0] == ("language",)


def test_tables_and_the_command_line_say_it(trial, call, tmp_path):  # noqa: F811
    out, result = trial
    assert "language adapted, projector frozen: lora [language]" in notes(store.to_frame([result]))
    code, text, err = call("show", out / f"{result.id}.json")
    assert (code, err) == (0, "")
    shown = " ".join(text.split())
    assert "lora [language] on mini-bart" in shown
    assert f"projector frozen 0 of {result.parameters.parts['projector'].total:,}" in shown
    flags = [
        "--backbone",
        "mini-bart",
        "--suite",
        "mini-image-text",
        "--method",
        "lora",
        "--out",
        tmp_path,
        "--dry-run",
    ]
    code, text, err = call("run", *flags, "--set", "lora.scope=[language]")
    assert (code, err) == (0, "")
    assert "lora [language]" in text
    code, _, err = call("params", "--method", "lora", "--scope", "language,tower")
    assert code == 2
    assert "scope.1: Input should be 'language', 'projector' or 'vision', found 'tower'" in err


def test_a_frozen_projector_comes_back_as_it_was_drawn(trial):
    out, result = trial
    loaded = pet_bench.load_trial(out / f"{result.id}.json", device="cpu")
    again = pet_bench.load_trial(out / f"{result.id}.json", device="cpu")
    names = [name for name, _ in loaded.model.named_parameters() if name.startswith("visual.")]
    assert names
    for name in names:
        assert loaded.model.get_parameter(name).equal(again.model.get_parameter(name))


def test_a_result_of_before_reads_and_writes_as_before():
    old = store.load(store.files(ROOT / "results" / "mini-image-text-t5")[0])
    assert old.parameters
    assert old.parameters.parts == {}
    assert "parts" not in json.loads(old.model_dump_json())["parameters"]
    assert store.to_frame([old]).scope[0] == ""


def test_shares_that_do_not_add_up_are_faults_and_no_difference(trial):
    _, result = trial
    bare = result.model_copy(update={"parameters": result.parameters.model_copy(update={"parts": {}, "stacks": {}})})
    assert store.difference(result, bare) == ""
    data = json.loads(result.model_dump_json())
    data["parameters"]["parts"]["language"]["total"] += 1
    with pytest.raises(UserError, match=r"its parts have \d+ total parameters together"):
        store.parse(data, "it")
