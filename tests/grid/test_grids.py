"""Grids from Python: what `pet_bench.Grid` gives."""

from __future__ import annotations

import pytest

from pet_bench.errors import UserError
from pet_bench.files import dump_yaml
from pet_bench.grids import Grid
from pet_bench.results.frames import load_results
from tests.grid.conftest import PLUGIN


@pytest.fixture
def file(plain, tmp_path):
    path = tmp_path / "g.yaml"
    path.write_text(dump_yaml(plain | {"seeds": [0, 1], "out": str(tmp_path / "results")}))
    return path


def test_a_grid_is_run_and_compared(file, stand_in, tmp_path):
    grid = Grid.from_yaml(file)
    assert grid.folder == tmp_path / "results"
    assert set(grid.status().status) == {"missing"}
    with pytest.raises(UserError, match=r"no trial of grid \"g\" is finished"):
        grid.table()

    outcome = grid.run(executor="inline", device="cpu")
    assert sorted(outcome.done) == sorted(trial.id for trial in grid.trials)
    assert set(grid.status().status) == {"done"}
    assert list(grid.status().id) == [trial.id for trial in grid.trials]
    table = grid.table()
    methods = table[table.kind == "method"]
    assert list(methods.method) == ["lora", "full"]
    assert list(methods.n) == [2, 2]
    assert list(methods.average) == [50.0, 50.0]
    assert grid.run(executor="inline").skipped == tuple(trial.id for trial in grid.trials)


def test_a_grid_is_also_its_folder_of_results(file, stand_in, tmp_path):
    out = tmp_path / "elsewhere"
    Grid.from_yaml(file).run(out, executor="inline", device="cpu")
    again = Grid.from_yaml(out)
    assert again.folder == out
    assert set(again.status().status) == {"done"}
    rows = again.results()
    assert set(rows.columns) == set(load_results(out).columns)
    assert rows.value.tolist() == load_results(out).set_index("id").loc[rows.id.unique()].value.tolist()


def test_its_plugins_are_loaded(file, stand_in):
    grid = Grid.from_yaml(file, plugins=[PLUGIN])
    assert grid.plugins == (PLUGIN,)
    with pytest.raises(UserError, match="no such file"):
        Grid.from_yaml(file, plugins=["nowhere.py"])


@pytest.mark.parametrize(
    ("options", "said"), [({"epochs": 3}, 'unknown run key "epochs"'), ({"accumulation": "two"}, "run: accumulation: ")]
)
def test_what_a_run_is_told_is_checked(file, stand_in, options, said):
    with pytest.raises(UserError, match=said):
        Grid.from_yaml(file).run(executor="inline", **options)


def test_an_unknown_grid_is_a_fault():
    with pytest.raises(UserError, match='unknown grid "demos": did you mean "demo"'):
        Grid.from_yaml("demos")
