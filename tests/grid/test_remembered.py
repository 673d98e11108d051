"""Plans that were made before: taken from the cache only where nothing has changed that they were made from."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pet_bench.errors import Faults, UserError
from pet_bench.grid.plan import ground, kept, remembered
from pet_bench.grid.plan.counted import Asked, counted
from pet_bench.grid.plan.expand import expand
from pet_bench.grid.plan.ground import Ground
from pet_bench.grid.plan.planned import Group, Plan, Planned, Skipped
from pet_bench.grid.plan.spec import load, parse, shipped
from pet_bench.mini import __file__ as mini
from pet_bench.spec import MethodSpec
from pet_bench.trial.count import count_parameters
from tests.conftest import part

pytestmark = pytest.mark.xdist_group("remembered")  # one process for all: what commands say is asked for once
HEAVY = ("torch", "transformers")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of one's own, in a process that has imported nothing heavy, as far as plans are concerned."""
    monkeypatch.setenv("PET_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "LOADED", ())
    return tmp_path / "cache" / "plans"


@pytest.fixture
def made(monkeypatch):
    """Names of the grids that are expanded."""
    names = []

    def expanding(grid, lost=None):
        names.append(grid.name)
        return expand(grid, lost)

    monkeypatch.setattr("pet_bench.grid.plan.expand.expand", expanding)
    return names


def grid(**more):
    return {"name": "g", "suites": ["image-text"], "backbones": ["bart-base"], "methods": ["lora", "full"], **more}


@pytest.mark.parametrize("name", part(sorted(shipped()), 12))
def test_a_plan_is_read_back_as_it_was_made(name, cache, made):
    first, second = load(name).plan(), load(name).plan()
    assert second == first
    assert [one.trial.label for one in second.planned] == [one.trial.label for one in first.planned]
    assert [list(one.values) for one in second.planned] == [list(one.values) for one in first.planned]
    assert made == [load(name).name]


def test_skipped_pairs_are_kept_too(cache):
    trial = parse(grid()).trials()[0]
    plan = Plan((Planned(trial, Group("bart-base", "lora", "image-text", "none"), {}),), (Skipped("x", "y", "z"),))
    assert remembered._plan(json.loads(ground.canonical(remembered._plain(plan)))) == plan


def test_what_is_asked_for_anew_is_made_and_kept(cache, made):
    plan = parse(grid())
    for anew in (True, False, True):
        plan.plan(anew=anew)
    assert made == ["g", "g"]


@pytest.mark.parametrize(
    "change",
    [{"methods": ["lora"]}, {"methods": [{"name": "lora", "rank": 8}]}, {"recipe": {"epochs": 3}}, {"seeds": [1]}],
)
def test_another_grid_has_another_plan(change, cache, made):
    before, after = (parse(data).plan() for data in (grid(), grid(**change)))
    assert before != after
    assert made == ["g", "g"]


def test_where_trials_run_changes_none(cache, made):
    parse(grid()).plan()
    parse(grid(resources={"cpus": 2}, out="elsewhere")).plan()
    assert made == ["g"]


def code(change):
    """Another state of one of our own files."""

    def changed(tmp_path, monkeypatch):
        files = dict(ground._code()) | change
        monkeypatch.setattr(ground, "_code", lambda: iter(files.items()))

    return changed


def installed(tmp_path, monkeypatch):
    (tmp_path / "torch-99.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)


def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "change",
    [code({"pet_bench.methods/lora.py": "0"}), code({"pet_bench.methods/new.py": "0"}), installed, elsewhere],
)
def test_a_plan_is_made_anew_where_its_ground_has_changed(change, cache, made, tmp_path, monkeypatch):
    parse(grid()).plan()
    change(tmp_path, monkeypatch)
    parse(grid()).plan()
    assert made == ["g", "g"]


def test_every_file_of_ours_is_looked_at():
    names = dict(ground._code())
    assert {"pet_bench.methods/lora.py", "pet_bench.tasks/suites.py", "pet_bench/pet/method.py"} <= names.keys()
    assert any(name.endswith("mini-bart/config.json") for name in names)


def test_a_backbone_in_a_folder_is_looked_at_again(cache, made, tmp_path):
    folder = tmp_path / "my-bart"
    shutil.copytree(Path(mini).parent / "backbones" / "mini-bart", folder)
    plan = parse(grid(backbones=[str(folder)], suites=["mini-image-text"], recipe={"lr": 1e-3}))
    plan.plan()
    plan.plan()
    assert len(made) == 1
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"encoder_layers": 1}))
    plan.plan()
    assert len(made) == 2
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json"):
        plan.plan()


def test_a_loose_plugin_is_never_remembered(cache, made, monkeypatch):
    from pet_bench.registry import SUITES

    monkeypatch.setattr(SUITES, "_entries", {**SUITES.entries, "mine": SUITES.get("image-text")})
    monkeypatch.setattr(SUITES, "_places", {**SUITES._places, "mine": "my_suite.py:MINE"})
    for _ in range(2):
        parse(grid()).plan()
    assert made == ["g", "g"]
    assert Ground.now() is None


def test_what_plugins_lose_is_not_kept(cache, made, monkeypatch):
    from pet_bench.methods.lora import LoRA

    def boom(self, shape):
        raise ValueError("boom")

    monkeypatch.setattr(LoRA, "skip", boom)
    lost = Faults()
    parse(grid()).plan(lost)
    assert lost.found
    assert not cache.exists()


def damaged(text):
    yield ""
    yield text[: len(text) // 2]
    yield "[]"
    yield "{}"
    yield "\0" * len(text)
    yield text.replace('"seed": 0', '"seed": 7')
    yield text.replace('"label": "full"', '"label": "lora"')
    body = json.loads(text)  # made to fit its digest: a trial that is not what its id says
    body["trials"][0]["spec"]["seed"] = 7
    del body["digest"]
    yield ground.canonical(body | {"digest": ground.digest_of(body)})


def test_a_damaged_file_is_not_believed_and_is_mended(cache, made):
    whole = parse(grid()).plan()
    (file,) = cache.iterdir()
    text = file.read_text()
    for count, wrong in enumerate(damaged(text), 2):
        assert wrong != text
        file.write_text(wrong)
        assert parse(grid()).plan() == whole
        assert len(made) == count
        assert file.read_text() == text


def test_a_cache_that_cannot_be_written_costs_nothing(made, tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "LOADED", ())
    (tmp_path / "file").touch()
    monkeypatch.setenv("PET_BENCH_CACHE", str(tmp_path / "file"))
    assert parse(grid()).plan() == parse(grid()).plan()
    assert made == ["g", "g"]


def test_code_that_changes_meanwhile_is_not_remembered(cache, made, tmp_path, monkeypatch):
    """The plan was made with what was imported, which is not what lies there afterwards."""

    def expanding(grid, lost=None):
        installed(tmp_path, monkeypatch)
        return expand(grid, lost)

    monkeypatch.setattr("pet_bench.grid.plan.expand.expand", expanding)
    parse(grid()).plan()
    assert not cache.exists()


def test_a_process_that_has_methods_loaded_makes_its_plans(tmp_path, monkeypatch, made):
    """What it has loaded may be older than what lies on disk."""
    monkeypatch.setenv("PET_BENCH_CACHE", str(tmp_path / "cache"))
    parse(grid()).plan()
    parse(grid()).plan()
    assert made == ["g", "g"]
    assert not (tmp_path / "cache").exists()


# counts --------------------------------------------------------------------------------------------------------------


ASKED = [
    Asked("image-text", backbone, MethodSpec(method, options))
    for backbone in ("bart-base", "t5-base")
    for method, options in (("lora", {}), ("lora", {"rank": 8}), ("no-such-method", {}), ("vl-pet-large", {}))
]


@pytest.fixture
def counting(monkeypatch):
    """What is counted anew."""
    asked = []

    def count(*one):
        asked.append(one)
        return count_parameters(*one)

    monkeypatch.setattr("pet_bench.trial.count.count_parameters", count)
    return asked


def counts(every=ASKED):
    return [(one, count.faults if isinstance(count, UserError) else count) for one, count in counted(every)]


def test_counts_and_refusals_are_read_back_as_they_were_made(cache, counting):
    assert counts() == counts()
    assert len(counting) == len(ASKED)
    assert len({str(count) for _, count in counts()}) == len(ASKED) - 1  # the unknown method's refusal is one


@pytest.mark.parametrize(
    "change",
    [code({"pet_bench.methods/lora.py": "0"}), code({"pet_bench.methods/new.py": "0"}), installed, elsewhere],
)
def test_counts_are_made_anew_where_their_ground_has_changed(change, cache, counting, tmp_path, monkeypatch):
    counts(ASKED[:1])
    change(tmp_path, monkeypatch)
    counts(ASKED[:1])
    assert len(counting) == 2


def test_a_refusal_is_not_kept_of_a_backbone_that_cannot_be_read(cache, counting, tmp_path):
    folder = tmp_path / "my-bart"
    folder.mkdir()
    one = Asked("mini-image-text", str(folder), MethodSpec("lora"))
    ((_, refused),) = counts([one])
    assert "config.json" in refused[0]
    shutil.copytree(Path(mini).parent / "backbones" / "mini-bart", folder, dirs_exist_ok=True)
    ((_, count),) = counts([one])
    assert count["trainable"]
    (folder / "config.json").unlink()
    assert counts([one]) == [(one, refused)]


def test_what_a_plugin_raises_is_not_kept(cache, counting, monkeypatch):
    from pet_bench.methods.lora import LoRA

    def boom(self, shape):
        raise ValueError("boom")

    with monkeypatch.context() as broken:
        broken.setattr(LoRA, "skip", boom)
        assert "boom" in str(counts(ASKED[:1]))
    assert "boom" not in str(counts(ASKED[:1]))


# commands ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """What a command prints, and the modules that it imports; in a folder in which status was asked for before."""
    variables = os.environ | {"PET_BENCH_CACHE": str(tmp_path_factory.mktemp("cache")), "COLUMNS": "300"}
    folder = tmp_path_factory.mktemp("work")

    def run(*arguments):
        line = [sys.executable, "-X", "importtime", "-m", "pet_bench.cli", *arguments]
        done = subprocess.run(line, capture_output=True, text=True, env=variables, cwd=folder)
        assert done.returncode == 0, done.stderr
        return done.stdout, set(re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.M))

    run.first = run("status", "demo")
    return run


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["list"], ["list", "suites"], ["status", "demo"]], ids=" ".join
)
def test_what_only_asks_imports_neither_torch_nor_transformers(arguments, command):
    _, imported = command(*arguments)
    assert "typer" in imported
    assert not imported.intersection(HEAVY)


def test_status_says_the_same_of_a_plan_that_was_kept(command):
    said, imported = command.first
    assert imported.issuperset(HEAVY)
    assert command("status", "demo")[0] == said
    assert said.count("missing") == len(load("demo").trials()) + 1
