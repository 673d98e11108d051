from __future__ import annotations

import pytest
import yaml

from pet_bench.cli import main
from pet_bench.errors import UserError
from pet_bench.grid.plan.spec import parse
from pet_bench.grid.plan.status import status
from pet_bench.results import aliases, check, store
from pet_bench.results.aliases import Alias
from pet_bench.results.merge import merge

HEAD = "old,new,reason\n"
OLD, NEW = "0" * 12, "f" * 12


@pytest.fixture
def moved(results_of_a_grid):
    """A folder of results whose grid says something else today: lora's rank, a trial of another id."""
    grid = yaml.safe_load((results_of_a_grid / "grid.yaml").read_text())
    old = parse(grid, "g").trials()
    grid["methods"] = [{"name": "lora", "rank": 64}, "full"]
    (results_of_a_grid / "grid.yaml").write_text(yaml.safe_dump(grid))
    new = parse(grid, "g").trials()
    assert old[0].id != new[0].id and old[1] == new[1]
    return results_of_a_grid, old, new


def test_without_a_row_the_trial_is_missing(moved):
    folder, _, new = moved
    assert [state.status for state in status(new, folder)] == ["missing", "done"]


def test_a_row_finds_the_old_result_for_the_new_trial(moved, capsys):
    folder, (old, kept), (new, _) = moved
    before = store.load(folder / f"{old.id}.json")
    aliases.write(folder, [Alias(old.id, new.id, "the rank never mattered")])

    results = store.load_all(folder)
    assert list(results) == sorted([old.id, kept.id]) and len(results) == 2
    assert results[new.id] == results.get(new.id) == results[old.id] == before
    assert new.id in results and NEW not in results and results.get(NEW) is None
    with pytest.raises(KeyError):
        results[NEW]
    assert store.finished(folder) == {old.id, new.id, kept.id}
    assert store.find(new.id[:8], [folder]) == folder / f"{old.id}.json"

    told = f"result of trial {old.id}: the rank never mattered"
    (state, _) = status([new, kept], folder)
    assert (state.status, state.note.split("; ")[1]) == ("done", told)
    assert check.check(folder) == []

    with pytest.raises(SystemExit) as caught:
        main(["report", str(folder / "grid.yaml"), "--out", str(folder)])
    out = capsys.readouterr().out
    assert not caught.value.code
    assert "missing" not in out and "other results" not in out
    assert f"trial {new.id} has the {told}" in " ".join(out.split())


def test_a_result_of_its_own_goes_first(moved, make_result):
    folder, (old, _), (new, _) = moved
    aliases.write(folder, [Alias(old.id, new.id, "why not")])
    own = store.load(folder / f"{old.id}.json").model_copy(
        update={"id": new.id, "spec": new.to_dict(), "predictions": {}}
    )
    store.save(own, folder)
    results = store.load_all(folder)
    assert results[new.id].id == new.id and not results.stands_in(new.id)
    assert store.find(new.id, [folder]) == folder / f"{new.id}.json"


def test_merging_takes_the_rows_along(moved, tmp_path):
    folder, (old, _), (new, _) = moved
    aliases.write(folder, [Alias(old.id, new.id, "why not")])
    merge([folder], tmp_path / "merged")
    assert aliases.read(tmp_path / "merged") == aliases.read(folder)
    aliases.write(tmp_path / "merged", [Alias(OLD, new.id, "not this one")])
    with pytest.raises(UserError, match=f"{OLD} stands for {new.id}, elsewhere {old.id}"):
        merge([folder], tmp_path / "merged")


def test_a_row_without_its_result_is_a_fault(moved):
    folder, *_ = moved
    aliases.write(folder, [Alias(OLD, NEW, "it was there once")])
    assert check.check(folder) == [f"{OLD}, which stands for {NEW} in aliases.csv, has no result"]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "the first line is , expected old,new,reason"),
        ("old,new\n", "the first line is old,new, expected"),
        (HEAD + "a,b\n", "line 2 has 2 cells, expected 3"),
        (HEAD + f"x,{NEW},why\n", 'line 2: old is "x", expected the 12 hex digits of an id'),
        (HEAD + f"{OLD},{OLD},why\n", f"line 2: {OLD} stands for itself"),
        (HEAD + f"{OLD},{NEW},\n", "line 2: the reason is missing"),
        (HEAD + f"{OLD},{NEW},a\n{'1' * 12},{NEW},b\n", f"line 3: {NEW} is there twice"),
        (HEAD + f'{OLD},{NEW},"a\n', "is no valid CSV"),
    ],
)
def test_a_table_that_is_none(tmp_path, text, part):
    (tmp_path / "aliases.csv").write_text(text)
    for use in (aliases.read, store.load_all):
        with pytest.raises(UserError) as caught:
            use(tmp_path)
        (line,) = caught.value.faults
        assert str(tmp_path / "aliases.csv") in line and part in line
    assert len(store.scan(tmp_path)[1]) == 1
