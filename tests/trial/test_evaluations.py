"""Finished trials tested anew from the command line: on another task, and on their own tasks corrupted."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml

import pet_bench
from pet_bench.data.corrupt import SEEN, TEXT
from pet_bench.data.corrupted import Corruption
from pet_bench.errors import UserError
from pet_bench.results import evaluations, store
from pet_bench.results import predictions as saved
from pet_bench.results.evaluations import Robustness, Transfer
from pet_bench.trial.loaded import load_trial
from pet_bench.trial.robustness import robustness, under
from pet_bench.trial.splits import read_splits
from tests.trial.test_loaded import uncollected  # noqa: F401  of this module too
from tests.trial.test_soup import SHORT, TEST, call

GRID = {
    "name": "anew",
    "suites": ["mini-image-text/vqa+coco-caption"],
    "backbones": ["mini-bart"],
    "methods": ["lora", {"name": "vl-adapter", "per_task": "both"}],
    "recipe": SHORT | {"max_steps": 6},
    "protocol": TEST,
}


@pytest.fixture(scope="module")
def grid(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("anew")
    (file := folder / "anew.yaml").write_text(yaml.safe_dump(GRID))
    assert call("run", file, "--data", world, "--out", folder / "out", "--executor", "inline") == 0
    return file, folder / "out"


@pytest.fixture(scope="module")
def ids(grid):
    """Trial by method."""
    return {result.spec["method"]["name"]: id for id, result in store.load_all(grid[1]).items()}


def evaluate(grid, world, trial, *arguments):
    return call("evaluate", trial, "--out", grid[1], "--data", world, "--device", "cpu", *arguments)


# another task


def test_a_task_that_was_never_seen(grid, ids, world, capsys):
    id = ids["lora"]
    assert evaluate(grid, world, id[:6], "--task", "nlvr2") == 0
    printed = capsys.readouterr().out
    record = evaluations.read(Transfer, grid[1] / id / "transfer.nlvr2.json")
    assert (record.trial, record.task, record.trained, record.parts_of) == (id, "nlvr2", False, None)
    assert record.options == {} and not record.notes
    (metric, score), *_ = record.metrics.items()
    rows = saved.read(grid[1] / id / record.predictions)
    assert len(rows) == score.n == 80 and score.majority == 50
    assert sum(value for _, value in rows.values()) / len(rows) == pytest.approx(score.value)
    assert {text for text, _ in rows.values()} <= {"true", "false"}, "by the task's own decoding"
    assert f"{score.value:.2f}" in printed and 'prompt "nlvr: "' in printed
    own = store.load(grid[1] / f"{id}.json").metrics
    assert all(f"{next(iter(scores.values())).value:.2f}" in printed for scores in own.values())
    assert call("show", id, "--out", grid[1]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"nlvr2 (test): {metric} {score.value:.2f} (majority answer 50.00), n = 80" in shown
    assert call("results", "check", grid[1]) == 0


def test_its_own_task_by_another_protocol_and_split(grid, ids, world, capsys):
    id = ids["lora"]
    assert evaluate(grid, world, id, "--task", "vqa", "--set", "vqa.test=karpathy_test[:25%]") == 0
    (file,) = (grid[1] / id).glob("transfer.vqa-*.json")
    record = evaluations.read(Transfer, file)
    assert record.trained and record.options == TEST["vqa"]
    result = store.load(grid[1] / f"{id}.json")
    assert record.metrics == result.metrics["vqa"] and record.breakdowns == result.breakdowns["vqa"]
    assert saved.read(file.with_name(record.predictions)) == saved.read(grid[1] / result.predictions["vqa"])
    assert evaluate(grid, world, id, "--task", "vqa", "--split", "valid") == 0
    assert len([*(grid[1] / id).glob("transfer.vqa-*.json")]) == 2
    assert "karpathy_val" in {
        score.split for one in evaluations.transfers(grid[1] / id) for score in one.metrics.values()
    }


def test_parts_of_each_task_have_to_be_named(grid, ids, world, capsys, tmp_path):
    id = ids["vl-adapter"]
    assert evaluate(grid, world, id, "--task", "nlvr2") == 2
    error = capsys.readouterr().err
    assert "has parts of each task (vqa, coco-caption), and none of nlvr2: say whose with --as TASK" in error
    assert not [*(grid[1] / id).glob("transfer.*")]
    assert evaluate(grid, world, id, "--task", "nlvr2", "--as", "vqa", "--to", tmp_path) == 0
    assert "the method's parts of vqa" in capsys.readouterr().out
    (file,) = (tmp_path / id).glob("transfer.nlvr2-*.json")
    record = evaluations.read(Transfer, file)
    assert record.parts_of == "vqa" and "by the parts of vqa" in evaluations.lines(tmp_path / id)[0]
    trial = load_trial(id, out=grid[1], data=world)
    with pytest.raises(UserError, match="built for vqa, coco-caption"):
        trial.answers(trial.batches(*_nlvr2(trial, world)))
    assert evaluate(grid, world, ids["lora"], "--task", "nlvr2", "--as", "vqa") == 2
    assert "lora has no parts of each task" in capsys.readouterr().err


def _nlvr2(trial, world):
    from pet_bench.data.reading import build_tasks, packed_for

    (task,) = build_tasks(("nlvr2",), {})
    examples = task.examples(world, "test")
    return task, examples, packed_for("features", world, [(task, examples)], trial.spec.visual)


FAULTS = [
    (["--task", "nlvr3"], 'unknown task "nlvr3"'),
    (["--task", "nlvr2", "--set", "nlvr2.tset=x"], 'unknown task "nlvr2" key "tset"'),
    (["--task", "nlvr2", "--set", "vqa.test=x"], "expected TASK.OPTION=VALUE of a task that --task names"),
    (["--task", "vqa", "--split", "valid", "--set", "vqa.valid=none"], "vqa: there is no valid split"),
    (["--task", "tvqa"], "tvqa has features (64, 512), and trial"),
    (["--task", "nlvr2", "--as", "gqa"], 'unknown task of trial'),
    ([], "say what to evaluate on"),
    (["--task", "vqa", "--seed", "1"], "--seed is for --corrupt"),
    (["--corrupt", "noise", "--split", "valid"], "--split is for a transfer"),
    (["--corrupt", "nois"], 'unknown corruption of text and features "nois": did you mean "noise"?'),
    (["--corrupt", "noise:7"], "the strength is '7' (possible: 1 to 5, or 0 for none)"),
    (["--corrupt", "noise:3", "--task", "nlvr2"], 'unknown task of trial'),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), FAULTS)
def test_what_cannot_be_evaluated_is_a_line(arguments, message, grid, ids, world, capsys):
    before = sorted(path.name for path in (grid[1] / ids["lora"]).iterdir())
    assert evaluate(grid, world, ids["lora"], *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert sorted(path.name for path in (grid[1] / ids["lora"]).iterdir()) == before


def test_trials_without_their_tensors_are_named(grid, world, tmp_path, capsys):
    folder = tmp_path / "bare"
    shutil.copytree(grid[1], folder, ignore=shutil.ignore_patterns("*.safetensors"))
    assert call("evaluate", folder, "--task", "nlvr2", "--data", world) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 2 and error.count("adapter.safetensors is missing") == 2
    (tmp_path / "empty").mkdir()
    assert call("evaluate", tmp_path / "empty", "--task", "nlvr2") == 2
    assert "has no grid.yaml" in (error := capsys.readouterr().err) or "has no finished trial" in error


# corrupted


def test_strength_0_is_the_test_as_it_was(grid, ids, world):
    trial = load_trial(ids["lora"], out=grid[1], data=world)
    tasks = [trial.task("vqa")]
    read, name = read_splits(trial, tasks), trial.result.predictions["vqa"]
    before = {id: text for id, (text, _) in saved.read(grid[1] / name).items()}
    for corruption in ("noise", "word-drop"):
        assert under(trial, tasks[0], read, Corruption(corruption, 0))[0] == before
    assert under(trial, tasks[0], read, Corruption("word-drop", 5))[0] != before
    said = []
    for strength in (0, 1):  # what is read otherwise may still be answered alike
        store = Corruption("token-shuffle", strength).store(read.store, tasks[0], "features")
        batch = next(trial.batches(tasks[0], read.examples["vqa"]["test"], store).eval_batches(8))
        with torch.no_grad():
            said.append(trial.model.logits(batch.inputs, batch.targets))
    assert not torch.equal(*said)


def test_its_own_tasks_corrupted(grid, ids, world, capsys):
    id = ids["lora"]
    assert evaluate(grid, world, id, "--corrupt", "noise:5", "--corrupt", "word-drop:1") == 0
    printed, file = capsys.readouterr().out, grid[1] / id / "robustness.0.json"
    record, result = evaluations.read(Robustness, file), store.load(grid[1] / f"{id}.json")
    for task, clean in record.clean.items():
        (metric, score), *_ = result.metrics[task].items()
        assert (clean.metric, clean.value, clean.n) == (metric, score.value, score.n)
    rows = [(row.task, row.corruption, row.strength) for row in record.scores]
    assert rows == [("vqa", "noise", 5), ("vqa", "word-drop", 1), ("coco-caption", "noise", 5)], "no text in captioning"
    for row in record.scores:
        clean = record.clean[row.task].value
        assert row.relative == pytest.approx(1 - (clean - row.value) / clean)
    assert record.relative == pytest.approx(sum(row.relative for row in record.scores) / 3)
    assert f"mean relative robustness {record.relative:.3f}" in printed
    content = file.read_bytes()
    assert evaluate(grid, world, id, "--corrupt", "noise:5") == 0, "nothing is left to be measured"
    assert file.read_bytes() == content
    file.unlink()
    assert evaluate(grid, world, id, "--corrupt", "noise:5", "--task", "vqa") == 0
    (row,) = evaluations.read(Robustness, file).scores
    assert row == record.scores[0], "the same again"
    capsys.readouterr()
    assert call("show", id, "--out", grid[1]) == 0
    assert "over 1 corruption, seed 0" in capsys.readouterr().out


def test_a_grid_has_a_row_for_each_method(grid, world, capsys, tmp_path):
    arguments = "--corrupt", "contrast:5", "--corrupt", "keyboard:5", "--task", "vqa", "--seed", "3", "--to", tmp_path
    assert call("evaluate", grid[1], "--data", world, *arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    records = [evaluations.read(Robustness, file) for file in tmp_path.glob("*/robustness.3.json")]
    assert len(records) == 2
    for method, name in (("lora", "lora"), ("vl-adapter(per_task=both)", "vl-adapter")):
        (line,) = [line for line in lines if f" {method} " in line]
        (record,) = [one for one in records if store.load(grid[1] / f"{one.trial}.json").spec["method"]["name"] == name]
        assert f"{record.relative:.3f}" in line and line.split()[-1] == "1"
        assert all(f"{row.relative:.3f}" in line for row in record.scores)


def test_other_data_than_the_trials_are_refused(grid, ids, world, tmp_path):
    trial = load_trial(ids["lora"], out=grid[1], data=world)
    trial.result.metrics["vqa"]["accuracy"].n = 7
    with pytest.raises(UserError, match="was tested on 7 examples of vqa, found"):
        robustness(trial, [Corruption("noise", 1)], tmp_path)
    assert not [*tmp_path.iterdir()]


def test_every_corruption_of_pixels_and_text_reaches_the_model(world, tmp_path):
    """Through the processor, past what may be kept of a frozen tower."""
    names = {"backbone": "mini-llava", "method": "lora", "suite": "mini-image-text/vqa"}
    protocol = {"vqa": {"test": "karpathy_test[:10%]"}}
    result = pet_bench.run_trial(
        **names, recipe=SHORT | {"max_steps": 2}, protocol=protocol, out=tmp_path, data=world, device="cpu", threads=1
    )
    trial = load_trial(result.id, out=tmp_path, data=world)
    wanted = [Corruption(name, 5) for name in (*SEEN["pixels"], *TEXT)]
    record = robustness(trial, wanted, tmp_path / result.id)
    assert record.clean["vqa"].value == result.metrics["vqa"]["accuracy"].value
    assert [row.corruption for row in record.scores] == [one.name for one in wanted]
    read, task = read_splits(trial, [trial.task("vqa")]), trial.task("vqa")
    clean = saved.read(tmp_path / result.predictions["vqa"])
    same = [
        one.name for one in wanted if under(trial, task, read, one)[0] == {id: text for id, (text, _) in clean.items()}
    ]
    assert not same
    assert json.loads((tmp_path / result.id / "robustness.0.json").read_text())["seed"] == 0
