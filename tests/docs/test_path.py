"""A stranger's path: what docs/yours.md says to type, typed in its order, from a table and an idea to an export."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys

import pytest

from pet_bench.cli import main
from pet_bench.results import store
from tests.conftest import ROOT

PAGE = (ROOT / "docs/yours.md").read_text(encoding="utf-8")
LINES = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
FILES = dict(re.findall(r"^`(mine/[\w.]+)`.*?^```\w+\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))


@pytest.fixture
def typed(tmp_path, monkeypatch, capsys):
    """What a line of the page does in a folder that stands for the clone; gives exit code and output."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)

    def typed(line):
        first, *rest = shlex.split(line)
        if first == "make":
            assert f"\n{rest[0]}: " in (ROOT / "Makefile").read_text()
        elif first == "cp":
            shutil.copytree(rest[1], rest[2])
            for name, text in FILES.items():  # as the page says next
                (tmp_path / name).write_text(text)
        elif first == "export":
            monkeypatch.setenv(*rest[0].split("=", 1))
        elif rest[0] == "run" and "--dry-run" not in rest:  # Ray stays out of this process
            done = subprocess.run([sys.executable, "-m", "pet_bench.cli", *rest], capture_output=True, text=True)
            return done.returncode, done.stdout + done.stderr
        elif first == "pet-bench":
            with pytest.raises(SystemExit) as stopped:
                main(rest)
            return stopped.value.code or 0, "".join(capsys.readouterr())
        else:
            assert line in ('git clone "$PET_BENCH" pet-bench && cd pet-bench', ". .venv/bin/activate")
        return 0, ""

    return typed


@pytest.mark.xdist_group("ray")
def test_a_stranger_gets_to_a_comparison(typed, tmp_path):
    assert len(LINES) <= 15 and FILES.keys() == {"mine/task.yaml", "mine/method.py", "mine/grid.yaml"}
    said = {}
    for line in LINES:
        code, said[line] = typed(line)
        assert code == 0, f"{line}\n{said[line]}"
    find = {word: next(text for line, text in said.items() if f"pet-bench {word}" in line) for word in
            ("data check", "show", "report", "compare", "power", "export")}  # fmt: skip
    assert "a run would go through" in find["data check"] and "an idea of mine" in find["show"]
    results = store.load_all(tmp_path / "results/mine").values()
    assert {(result.spec["label"], result.spec["seed"]) for result in results} == {
        (method, seed) for method in ("lora", "vl-adapter", "half-and-half") for seed in (0, 1, 2)
    }
    assert all(result.status in store.FINISHED and result.metrics["mine"]["accuracy"].n == 5 for result in results)
    assert "cannot be seen here" in find["report"] and "p over" in find["compare"] and "10 points" in find["power"]
    assert (tmp_path / "results/mine/report/index.html").stat().st_size > 50_000
    assert len(list(tmp_path.glob("results/mine/report/lmms-eval/*/*_samples_mine.jsonl"))) == 9
