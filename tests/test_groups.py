"""What the tests themselves rely on: that those of a group run in one process."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT

TESTS = """
import os, pytest

@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("i", range(6))
def test_group(i):
    open(__file__ + ".group", "a").write(f"{os.getpid()} ")

@pytest.mark.parametrize("i", range(20))
def test_others(i):
    pass
"""


def test_a_group_of_tests_shares_a_process(tmp_path):
    file = tmp_path / "test_them.py"
    file.write_text(TESTS)
    line = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup", "-p", "tests.conftest", str(file)]
    done = subprocess.run([*line, "-p", "no:cacheprovider"], cwd=ROOT, capture_output=True, text=True)
    assert "26 passed" in done.stdout, done.stdout + done.stderr
    pids = (tmp_path / "test_them.py.group").read_text().split()
    assert len(pids) == 6
    assert len(set(pids)) == 1
