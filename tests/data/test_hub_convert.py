"""`data convert` from tables of the hub, through the command line: read back, trained on, scored."""

from __future__ import annotations

import json

import pytest

from pet_bench.cli import main
from pet_bench.registry import TASKS
from tests.data import hub_layouts as hub
from tests.data.test_convert import coco, files, loaded


def command(*arguments):
    """The exit code."""
    with pytest.raises(SystemExit) as stopped:
        main([*map(str, arguments)])
    return stopped.value.code or 0


def convert(*arguments):
    return command("data", "convert", *arguments)


def options(out, task):
    """What `data convert` says a task is to be read with."""
    line = next((line for line in out.splitlines() if line.startswith(f"{task}: read with ")), "")
    return line.removeprefix(f"{task}: read with ").split()


def train(root, task, tmp_path, *more, fed="pixels"):
    """The results of two updates and a test, as rows of a table."""
    out = tmp_path / "results"
    backbone = "mini-llava" if fed == "pixels" else "mini-bart"
    assert not command(
        "run", "--suite", f"image-text/{task}", "--backbone", backbone, "--method", "lora", "--data", root, "--out", out,
        "--set", "recipe.max_steps=2", "--set", "recipe.batch_size=4", "--device", "cpu", "--executor", "inline", *more,
    )  # fmt: skip
    return out


def test_vqa(tmp_path, capsys):
    hub.vqa(tmp_path / "copy" / "VQAv2")
    hub.vqa_cauldron(tmp_path / "copy" / "the_cauldron")
    root = tmp_path / "data"
    assert convert(tmp_path / "copy", root) == 0
    told = capsys.readouterr()
    print(told.out, told.err)
    given = options(told.out, "vqa")
    out = train(root, "vqa", tmp_path, *given)
    print(capsys.readouterr().out)
    assert 1
