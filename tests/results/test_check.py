from __future__ import annotations

import gzip
import json
import socket

import pytest
import yaml

from pet_bench.cli import main
from pet_bench.files import write_text
from pet_bench.results import store
from pet_bench.results.check import check, folders
from pet_bench.results.schema import Part
from tests.conftest import ROOT


@pytest.fixture
def valid(make_result, tmp_path):
    """A folder with a done result, and that result's file as plain data to change."""
    result = make_result(vqa=60.0, gqa=40.0)
    result.predictions = {task: f"{result.id}/predictions.{task}.jsonl" for task in result.metrics}
    result.breakdowns = {"vqa": {"length": {"1-5": Part(value=60.0, n=7)}}}
    for task, name in result.predictions.items():
        mean = result.metrics[task]["accuracy"].value
        rows = ({"id": str(i), "prediction": "yes", "score": mean} for i in range(7))
        write_text(tmp_path / name, "".join(json.dumps(row) + "\n" for row in rows))
    store.save(result, tmp_path)
    return tmp_path, result.id


def change(path, where, value):
    data = json.loads(path.read_text())
    *parents, last = where.split("/")
    target = data
    for key in parents:
        target = target[key]
    target[last] = value
    path.write_text(json.dumps(data))


def test_a_whole_result_has_no_faults(valid):
    assert check(valid[0]) == []


@pytest.mark.parametrize(
    "where, value, fault",
    [
        ("spec/seed", 5, "its spec is that of trial"),
        ("spec/colour", "red", '"colour"'),
        ("error", "no luck", "it is done, but has an error: no luck"),
        ("status", "suspect", "it is suspect, but does not say why"),
        ("status", "stopped_early", "it is stopped_early, but does not say why"),
        ("cost", None, "it is done, but has no cost"),
        ("parameters", None, "it is done, but has no parameters"),
        ("average", 51.0, "its average is 51.0, the mean of the tasks' primary metrics 50.0"),
        ("average", None, "its average is None"),
        ("metrics/extra", {"accuracy": {"value": 50.0, "split": "test", "n": 7}}, "differ in extra"),
        ("parameters/percent", 2.0, "percent is 2.0, but 10 of 1000"),
        ("parameters/total", 9, "10 of 9 parameters"),
        ("parameters/groups", {"encoder.delta": 9}, "its groups have 9 parameters together, but 10"),
        ("breakdowns/vqa/length/1-5/n", 8, 'vqa: 8 examples by "length", but 7 were scored'),
        ("provenance/finished", "2025-01-01T00:00:00+00:00", "before it started"),
        ("provenance/started", "2026-01-01T00:00:00", "is not a time with its zone"),
        ("provenance/started", "yesterday", "is not a time with its zone"),
        ("predictions", {}, "it names no predictions"),
        ("predictions/vqa", "/etc/my/hosts.jsonl", "predictions \"/etc/my/hosts.jsonl\" are not in"),
        ("predictions/vqa", "../x.jsonl", 'predictions "../x.jsonl" are not in'),
        ("predictions/vqa", "x.jsonl", 'predictions "x.jsonl" are not in'),
        ("metrics/vqa/accuracy/n", 8, "has 7 predictions, but 8 were scored"),
        ("metrics/vqa/accuracy/value", 60.1, "accuracy is 60.1, but the mean score in"),
        ("run/notes", ["from ~/my/data/vqa.json"], 'it has an absolute path: "~/my/data/vqa.json"'),
        ("provenance/device", "cpu of 10.0.0.17", "it names a machine"),
    ],
)  # fmt: skip
def test_each_fault_of_a_result_is_named(valid, where, value, fault):
    folder, id = valid
    change(folder / f"{id}.json", where, value)
    found = check(folder)
    assert any(fault in line for line in found)
    assert all(line.startswith(f'result "{folder / id}.json": ') for line in found)


def test_scores_of_nought_are_scores(valid):
    folder, id = valid
    for task in ("vqa", "gqa"):
        change(folder / f"{id}.json", f"metrics/{task}/accuracy/value", 0.0)
        path = folder / id / f"predictions.{task}.jsonl"
        path.write_text("".join(json.dumps({"id": str(i), "prediction": "", "score": 0}) + "\n" for i in range(7)))
    change(folder / f"{id}.json", "average", 0.0)
    change(folder / f"{id}.json", "breakdowns/vqa/length/1-5/value", 0.0)
    assert check(folder) == []


def test_a_host_name_in_an_error_is_a_fault(valid, monkeypatch):
    folder, id = valid
    monkeypatch.setattr(socket, "gethostname", lambda: "node-17")
    change(folder / f"{id}.json", "run/notes", ["taken up on node-17"])
    (fault,) = check(folder)
    assert "it names a machine" in fault


@pytest.mark.parametrize(
    "text, fault",
    [
        (None, "are missing"),
        ("", "has 0 predictions, but 7 were scored"),
        ("{", "line 1: not a JSON object"),
        ('{"id": "a", "score": 60.0}\n', "line 1: not a JSON object with id, prediction and score"),
        ('{"id": ["a"], "prediction": "", "score": 60.0}\n', "line 1: not a JSON object with"),
        ("[]\n", "line 1: not a JSON object with id, prediction and score"),
        ('{"id": "a", "prediction": "", "score": 60.0}\n' * 2, "line 2: id 'a' for the second time"),
        (
            "".join(f'{{"id": "{i}", "prediction": "", "score": null}}\n' for i in range(7)),
            "has predictions without a score",
        ),
    ],
)
def test_each_fault_of_predictions_is_named(valid, text, fault):
    folder, id = valid
    path = folder / id / "predictions.vqa.jsonl"
    path.unlink() if text is None else path.write_text(text)
    (found,) = check(folder)
    assert fault in found
    assert found.startswith(f'result "{folder / id}.json": vqa: ')


def test_damaged_zipped_predictions_are_a_fault(valid):
    folder, id = valid
    path = folder / id / "predictions.vqa.jsonl"
    zipped = gzip.compress(path.read_bytes())
    change(folder / f"{id}.json", "predictions/vqa", f"{id}/predictions.vqa.jsonl.gz")
    path.unlink()
    path = path.with_suffix(".jsonl.gz")
    path.write_bytes(zipped)
    assert check(folder) == []
    for damaged in (zipped[:-9], zipped[:20] + b"?" + zipped[21:], b"{}"):
        path.write_bytes(damaged)
        (fault,) = check(folder)
        assert "cannot be read" in fault


def test_predictions_that_lead_out_of_the_folder(valid, tmp_path_factory):
    folder, id = valid
    path = folder / id / "predictions.vqa.jsonl"
    path.symlink_to(path.rename(tmp_path_factory.mktemp("other") / "p.jsonl"))
    (found,) = check(folder)
    assert "are not in" in found


def test_what_is_left_behind_is_named(valid):
    folder, id = valid
    for name in (
        f".{id}.json.x1y2", f"{id}/.checkpoint.safetensors.x", f"{id}/{store.CHECKPOINT}", "0123456789ab/a.txt",
        "0123456789ac.json.unreadable",
    ):  # fmt: skip
        write_text(folder / name, "")
    for name in (f".locks/{id}", "report/table.json", "published/numbers.json", "grid.yaml", "README.md"):
        write_text(folder / name, "")
    assert len(check(folder)) == 5


def test_an_unfinished_trial_may_have_a_checkpoint(make_spec, tmp_path):
    failed = store.save_failure(make_spec(), tmp_path, "no", status="oom", started="2026-01-01T00:00:00+00:00")
    write_text(tmp_path / failed.id / store.CHECKPOINT, "")
    assert check(tmp_path) == []


def test_the_folders_that_may_hold_results(tmp_path):
    for name in ("a/b", "a/0123456789ab/peft", "a/report", "published/x", "a/.locks"):
        (tmp_path / name).mkdir(parents=True)
    assert [str(path.relative_to(tmp_path)) for path in folders(tmp_path)] == [".", "a", "a/b"]


@pytest.fixture
def call(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main(["results", "check", *map(str, arguments)])
        return caught.value.code or 0, *capsys.readouterr()

    return run


def test_the_command_counts_what_is_valid_and_names_every_fault(call, valid, tmp_path, monkeypatch):
    folder, id = valid
    assert call(tmp_path)[:2] == (0, "1 result in 1 folder: all valid\n")
    grid = {"name": "g", "suites": ["image-text"], "backbones": ["bart-base"], "methods": ["lora"]}
    (folder / "grid.yaml").write_text(yaml.safe_dump(grid))
    (folder / "more").mkdir()
    (folder / "more" / "grid.yaml").write_text(yaml.safe_dump(grid | {"out": "/scratch/me/out"}))
    (folder / "other").mkdir()
    (folder / "other" / "grid.yaml").write_text("methods: [")
    (folder / "other" / "0123456789ab.json").write_text("half")
    change(folder / f"{id}.json", "average", 51.0)
    code, out, err = call(folder, tmp_path / "nowhere")
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert len(lines) == 5
    for part in ("its average is", "/scratch/me/out", "cannot be read", "half-written", "nowhere"):
        assert any(part in line for line in lines)
    monkeypatch.chdir(tmp_path)
    assert 'results folder "results" does not exist' in call()[2]
    (tmp_path / "results").mkdir()
    assert call()[:2] == (0, "no results\n")


def test_the_results_of_this_repository(call):
    code, _, err = call(ROOT / "results")
    assert (code, err) == (0, "")
