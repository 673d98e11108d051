from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from operator import itemgetter

import pytest
import yaml
from typer.main import get_command

from pet_bench.backbone import find_backbone
from pet_bench.cli import app, main
from pet_bench.files import write_text
from pet_bench.grid.plan.spec import load, shipped
from pet_bench.pet import build_method, default_spec
from pet_bench.registry import METHODS, SUITES, TASKS
from pet_bench.results import store
from pet_bench.spec import MethodSpec
from tests.conftest import ROOT, one_each, part
from tests.grid.conftest import PLUGIN, plain, stand_in  # noqa: F401


@pytest.fixture
def call(capsys):
    """Run a command; gives (exit code, stdout, stderr)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        code = caught.value.code
        return (0 if code is None else code), *capsys.readouterr()

    return run


@pytest.fixture
def grid_file(tmp_path, plain):  # noqa: F811
    def write(**change):
        path = tmp_path / "g.yaml"
        path.write_text(yaml.safe_dump(plain | change))
        return path

    return write


HEAVY = {"torch", "transformers", "peft", "ray", "pandas", "matplotlib", "numpy"}
PROBE = """
import json, sys
from pet_bench.cli import main
heavy, seen = set(sys.argv[2:]), {}
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as end:
        assert not end.code, arguments
    seen[" ".join(arguments)] = sorted(heavy & set(sys.modules))
print(json.dumps(seen))
"""


def imported(*lines):
    """The heavy modules that commands leave behind, one after the other in a process of their own."""
    probe = [sys.executable, "-c", PROBE, json.dumps(lines), *HEAVY]
    return json.loads(subprocess.run(probe, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def commands(group=None, path=()):
    """Every command and group of the program, as one types it."""
    group = get_command(app) if group is None else group
    yield path
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


def test_help_imports_nothing_heavy():
    seen = imported(*([*path, "--help"] for path in commands()))
    assert len(seen) > 15
    assert not any(seen.values()), seen


def test_lists_import_nothing_heavy():
    """But for methods, whose parameters are counted, and grids, whose trials are."""
    light = imported(["list"], ["list", "backbones"], ["list", "metrics"])
    assert not any(light.values()), light
    told = imported(["list", "suites"], ["list", "tasks"])
    assert all(set(modules) <= {"numpy"} for modules in told.values()), told  # what tasks read with


def test_what_is_of_results_only_imports_nothing_heavy(tmp_path, monkeypatch):
    """A grid that has been planned once, as `run` leaves it."""
    monkeypatch.setenv("PET_BENCH_CACHE", str(tmp_path))
    folder = ROOT / "results" / "mini-video-text"
    status = ["status", str(folder)]
    imported(status)
    light = imported(status, ["show", str(next(folder.glob("*.json")))])
    assert not any(light.values()), light


def test_suites_and_tasks_are_listed_with_what_is_in_them(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, text, _ = call("list", "suites")
    for suite in SUITES:
        block = text[f"\n{text}".index(f"\n{suite.name} ") :]
        for word in (*suite.tasks, f"{suite.visual.tokens} vectors of {suite.visual.width}"):
            assert word in block.replace("\n", " ")
    assert text.count("comes with the package") == sum(suite.embedded is not None for suite in SUITES)
    _, text, _ = call("list", "tasks")
    assert max(map(len, text.splitlines())) <= 80
    assert [line.split()[0] for line in text.splitlines() if line[0] != " "] == TASKS.names()
    for words in ("multiple-choice-accuracy", "GQA/testdev.json", "one of true, false", "valid karpathy_val"):
        assert words in text


@pytest.mark.parametrize(
    "command",
    [
        "list",
        "show",
        "params",
        "run",
        "rerun",
        "status",
        "report",
        "gates",
        "evaluate",
        "soup",
        "export",
        "merge",
        "best",
        "score",
        "pretrain",
        "data",
        "data mini",
        "results",
        "results check",
    ],
)
def test_every_command_has_help(call, command):
    code, out, _ = call(*command.split(), "--help")
    assert code == 0
    assert command in ("data", "results") or "pet-bench" in out.partition("Usage")[2]


FAULTY = [
    ({"methods": ["lroa"]}, ['unknown method "lroa"']),
    ({"backbones": ["bart-bse"]}, ["bart-bse"]),
    ({"suites": ["image-txt"]}, ["image-txt"]),
    ({"protocol": {"vqaa": {"test": "x"}}}, ["vqaa"]),
    ({"colour": "red"}, ['"colour"']),
    ({"recipe": {"lr": "fast"}}, ["lr", "'fast'"]),
    ({"methods": ["lroa"], "suites": ["image-txt"], "recipe": {"epohcs": 1}}, ["lroa", "image-txt", "epohcs"]),
]


@pytest.mark.parametrize("change, parts", FAULTY)
@pytest.mark.parametrize("command", ["run", "status", "report"])
def test_a_bad_grid_is_a_line_per_fault_and_leaves_the_results_alone(call, grid_file, tmp_path, command, change, parts):
    kept = tmp_path / "out" / "kept.txt"
    write_text(kept, "mine")
    code, out, err = call(command, grid_file(**change), "--out", tmp_path / "out")
    lines = err.splitlines()
    assert code == 2
    assert out == ""
    assert len(lines) == (len(parts) if len(change) > 1 else 1)
    assert all(line.startswith("pet-bench: error: ") for line in lines)
    assert all(part in err for part in parts)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["kept.txt"]


def test_a_plugin_that_raises_on_import(call, grid_file, tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("raise RuntimeError('broken plug-in')")
    code, _, err = call("run", grid_file(), "--plugin", bad, "--plugin", "missing.py", "--out", tmp_path / "out")
    assert code == 2
    assert [line.startswith("pet-bench: error: ") for line in err.splitlines()] == [True, True]
    assert "broken plug-in" in err
    assert not (tmp_path / "out").exists()


def test_a_results_folder_that_cannot_be_written_to(call, grid_file, tmp_path):
    code, _, err = call("run", grid_file(), "--out", grid_file() / "out", "--executor", "inline")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "cannot be written" in err


@pytest.mark.parametrize(
    "arguments, part",
    [
        (["run"], "nothing to run"),
        (["run", "dmeo"], 'did you mean "demo"'),
        (["run", "--method", "lora", "--backbone", "bart-base", "--set", "recipe"], "KEY=VALUE"),
        (["run", "--method", "lora", "--backbone", "bart-base", "--set", "epochs=3"], "recipe.KEY"),
        (["run", "--method", "lora", "--backbone", "bart-base", "--set", "reicpe.lr=3"], 'did you mean "recipe"'),
        (["run", "--method", "lora", "--backbone", "bart-base", "--set", "full.rank=3"], '"full"'),
        (["params", "--method", "lroa", "--method", "lora"], 'did you mean "lora"'),
        (["show", "lroa"], 'did you mean "lora"'),
        (["show", "lora", "--set", "rnak=3"], 'did you mean "rank"'),
    ],
)
def test_a_wrong_flag_is_one_line(call, tmp_path, monkeypatch, arguments, part):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(*arguments)
    assert code == 2
    assert part in err
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_run_status_and_report_of_a_grid(call, grid_file, tmp_path, stand_in):  # noqa: F811
    path, out = grid_file(seeds=[0, 1]), tmp_path / "out"
    code, text, _ = call(
        "run", path, "--out", out, "--executor", "inline", "--set", "recipe.epochs=2", "--set", "lora.rank=4"
    )
    assert code == 0
    assert "4 of 4 trials done" in text
    trials = load(out).trials()
    assert {trial.recipe.epochs for trial in trials} == {2}
    assert {trial.method.options["rank"] for trial in trials if trial.method.name == "lora"} == {4}

    code, text, _ = call("status", out)
    assert code == 0
    assert "4 done of 4 trials" in text

    code, text, _ = call("report", out)
    assert code == 0
    assert "lora(rank=4)" in text
    written = {path.name: path.stat().st_size for path in (out / "report").iterdir()}
    assert written.keys() == {"table.md", "table.csv", "pareto.png", "pareto.svg"}
    assert all(written.values())
    # the stand-in trains nothing: it has no curve and no breakdowns
    for name in ("learning_curves", "question_types", "ablation"):
        assert f"not drawn: {name}: " in text

    code, text, _ = call("report", out, "--html", "--examples", "5")
    assert code == 0
    assert "<!doctype html>" in (out / "report" / "index.html").read_text().lower()
    assert f"wrote {out / 'report' / 'index.html'}" in text
    code, _, err = call("report", out, "--images", tmp_path)
    assert (code, err) == (2, "pet-bench: error: --images is for --html\n")
    code, _, err = call("report", out, "--html", "--style", "vlpet-table2")
    assert (code, len(err.splitlines())) == (2, 1)


def test_flags_run_a_part_of_a_grid(call, grid_file, tmp_path, stand_in):  # noqa: F811
    path, out = grid_file(seeds=[0, 1]), tmp_path / "out"
    code, _, _ = call("run", path, "--out", out, "--executor", "inline", "--method", "lora", "--seed", "1")
    assert code == 0
    (trial,) = (trial for trial in load(path).trials() if trial.method.name == "lora" and trial.seed == 1)
    assert store.finished(out) == {trial.id}
    code, text, _ = call("status", path, "--out", out)
    assert "1 done" in text
    assert "3 missing" in text


def test_flags_alone_make_a_grid(call, tmp_path, stand_in):  # noqa: F811
    flags = ["--suite", "nlvr2", "--backbone", "bart-base", "--method", "lora", "--method", "full"]
    code, _, _ = call("run", *flags, "--set", "nlvr2.test=other", "--out", tmp_path / "out", "--executor", "inline")
    assert code == 0
    found = store.load_all(tmp_path / "out").values()
    assert {result.spec["method"]["name"] for result in found} == {"lora", "full"}
    assert all(result.spec["protocol"]["nlvr2"]["test"] == "other" for result in found)


def test_exit_codes_of_a_failed_and_of_an_interrupted_grid(call, grid_file, tmp_path, stand_in):  # noqa: F811
    out = ["--out", tmp_path / "out", "--executor", "inline"]
    code, text, _ = call("run", grid_file(), *out, "--set", f"recipe.lr={stand_in.FAIL}")
    assert code == 1
    assert "the loss is not a number" in text
    code, _, err = call("run", grid_file(), *out, "--set", f"recipe.lr={stand_in.INTERRUPT}")
    assert code == 130
    assert "same command" in err


def test_report_without_results_is_an_error(call, grid_file, tmp_path):
    code, _, err = call("report", grid_file(), "--out", tmp_path / "out")
    assert code == 2
    assert "no trial of this grid is finished" in err


def test_params_prints_the_same_counts_in_every_format(call):
    flags = ["params", "--backbone", "bart-base", "--method", "lora", "--method", "projector-only", "--format"]
    _, text, _ = call(*flags, "json")
    counts = json.loads(text)
    assert [count["method"] for count in counts] == ["lora", "projector-only"]
    for count in counts:
        assert sum(count["groups"].values()) == count["trainable"] < count["total"]
        assert count["percent"] == pytest.approx(100 * count["trainable"] / count["total"])
    _, text, _ = call(*flags, "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0])[:6] == ["suite", "backbone", "method", "trainable", "total", "percent"]
    for row, count in zip(rows, counts, strict=True):
        assert int(row["trainable"]) == count["trainable"]
        assert sum(int(number) for number in list(row.values())[6:]) == count["trainable"]
    _, text, _ = call(*flags, "table")
    assert all(f"{count['trainable']:,}" in text for count in counts)


def test_list_and_show_name_what_there_is(call, stand_in):  # noqa: F811
    _, text, _ = call("list", "metrics", "--plugin", PLUGIN)
    assert "cider" in text
    assert "pet_bench.methods" not in text
    _, text, _ = call("show", "lora", "--set", "rank=4")
    assert "rank = 4" in text
    assert "encoder.self_attn.query" in text


def test_list_methods_names_source_year_and_counts(call):
    code, out, _ = call("list", "methods")
    assert code == 0
    rows = {line.split()[0]: line for line in out.splitlines() if line and not line.startswith(" ")}
    assert rows.keys() >= {*METHODS.names()}
    assert all(str(method.year) in rows[method.name] for method in METHODS)
    for method, count in {"lora": "8,786,688", "vl-pet-large": "6,052,416", "hyperformer": "8,579,088"}.items():
        assert count in rows[method]  # VL-PET Table 2, exact counts


def test_list_grids_says_what_each_is_and_how_many_trials_it_has(call):
    code, out, _ = call("list", "grids")
    assert code == 0
    rows = {line.split()[0]: line.split()[1] for line in out.splitlines()[1:] if line and not line.startswith(" ")}
    assert rows.keys() == {*shipped()}
    assert all(rows[name] == str(len(load(name).trials())) for name in part(sorted(shipped()), 6))
    assert "Table 9" in " ".join(out.split())
    assert "vlpet-table9" in call("list")[1]


def test_show_spells_out_every_method(call):
    """On one of two backbones, drawn by its name; `make test-all`: on both."""
    every = [(backbone, name) for backbone in ("bart-base", "t5-base") for name in METHODS.names()]
    for backbone, name in one_each(every, itemgetter(1), "show"):
        method = METHODS.get(name)
        code, out, error = call("show", name, "--backbone", backbone)
        assert (code, error) == (0, "")
        shape = find_backbone(backbone).anatomy
        built = build_method(MethodSpec(method.name), shape)
        said = " ".join(out.split())
        for option in default_spec(built).options:
            assert f"{option} = " in said
        design = built.design(shape)
        for formula in [insert.formula for insert in design.inserts] + [door.formula for door in design.doors]:
            assert " ".join(formula.split()) in said
        assert all(selector in said for selector in design.train)
        assert all(name in said for name in built.behaviour(shape))
        assert "trainable " in said
