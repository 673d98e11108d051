from __future__ import annotations

import pytest

from pet_bench.cli import main
from tests.results.conftest import made_once, make_result, make_spec, results_of_a_grid  # noqa: F401


@pytest.fixture
def call(capsys, monkeypatch):
    """Run a command on a terminal of 100 columns; gives (exit code, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        return caught.value.code or 0, *capsys.readouterr()

    return run
