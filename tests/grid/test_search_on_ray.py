"""A search through the whole grid floor: stopped by ASHA, kept, chosen from by validation, and run with the winner."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from pet_bench.errors import UserError
from pet_bench.grid.execute.run import run_grid
from pet_bench.grid.plan.search import best_grid, ranking
from pet_bench.grid.plan.spec import parse
from pet_bench.results import store
from pet_bench.spec import Runtime

PLUGIN = str(Path(__file__).with_name("searched.py"))
PLAIN = {
    "name": "s", "suites": ["nlvr2"], "backbones": ["bart-base"], "methods": ["lora"], "seeds": [0, 1],
    "recipe": {"epochs": 4},
    "protocol": {"nlvr2": {"train": "train[:95%]", "valid": "train[95%:]"}},
    "search": {"space": {"recipe.lr": [1e-3, 1e-5]}, "early_stopping": {"grace_epochs": 1, "reduction": 2}},
    "resources": {"cpus": 0.5},
}  # fmt: skip


@pytest.mark.xdist_group("ray")
def test_a_search_from_its_grid_to_its_winner(stand_in, tmp_path):
    grid, quiet = parse(PLAIN), Console(file=StringIO(), width=200)
    better, worse = grid.trials()
    runtime = Runtime(out=tmp_path, plugins=(PLUGIN,), checkpoint_seconds=None)
    outcome = run_grid(grid, runtime, "ray", console=quiet)
    assert (outcome.done, outcome.early, outcome.failed) == ((better.id,), (worse.id,), ())
    result = store.load(tmp_path / f"{worse.id}.json")
    assert (result.status, result.error) == ("stopped_early", "stopped by ASHA after epoch 1 (validation 31.00)")
    assert [point.metrics["accuracy"] for point in result.curve] == [31.0]
    assert result.metrics == {}
    assert "stopped" in quiet.file.getvalue()

    assert run_grid(grid, runtime, "ray", console=quiet).skipped == (better.id, worse.id), "it ran again"
    ranked = ranking(grid, store.load_all(tmp_path))
    final = best_grid(grid, tmp_path, ranked)
    assert [(trial.recipe.lr, trial.seed) for trial in final.trials()] == [(1e-3, 0), (1e-3, 1)]
    assert final.trials()[0].id == better.id

    full = parse(
        {key: value for key, value in PLAIN.items() if key != "search"} | {"recipe": {"epochs": 4, "lr": 1e-5}}
    )
    assert worse.id in {trial.id for trial in full.trials()}
    assert worse.id not in store.finished(tmp_path, also=full.also_finished), "stopped early is finished elsewhere"

    again = run_grid(grid, runtime, "ray", trials=[worse], again=True, console=quiet)
    assert again.done == (worse.id,), "asked for again, it was stopped again"
    assert [point.epoch for point in store.load(tmp_path / f"{worse.id}.json").curve] == [1, 2, 3, 4]


def test_stopping_early_needs_trials_side_by_side(stand_in, tmp_path):
    with pytest.raises(UserError, match="--executor inline"):
        run_grid(parse(PLAIN), Runtime(out=tmp_path), "inline", console=Console(file=StringIO()))
    assert list(tmp_path.iterdir()) == []
