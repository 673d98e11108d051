from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pet_bench.errors import UserError
from pet_bench.results import store
from pet_bench.results.schema import SCHEMA_VERSION
from pet_bench.results.upgrade import STEPS
from pet_bench.spec import TrialSpec

OLD = sorted((Path(__file__).parent / "old").glob("v*.json"))
NUMBERS = ("metrics", "breakdowns", "average", "parameters", "cost", "curve", "selected")


def version_of(path):
    return int(re.match(r"v(\d+)-", path.name)[1])


def test_every_earlier_version_has_examples_and_a_step():
    assert {version_of(path) for path in OLD} == STEPS.keys() == set(range(1, SCHEMA_VERSION))


@pytest.mark.parametrize("old", OLD, ids=lambda path: path.stem)
def test_an_old_result_is_read_as_a_new_one(old, tmp_path):
    data = json.loads(old.read_text())
    assert data["schema_version"] == version_of(old)
    path = tmp_path / f"{data['id']}.json"
    path.write_bytes(old.read_bytes())

    result = store.load(path)
    assert path.read_bytes() == old.read_bytes()
    assert result.schema_version == SCHEMA_VERSION
    assert (result.id, result.status, result.error) == (data["id"], data["status"], data["error"])
    assert TrialSpec.from_dict(result.spec).id == result.id
    now = json.loads(result.model_dump_json())
    assert {key: now[key] for key in NUMBERS} == {key: data[key] for key in NUMBERS}

    assert store.load(store.save(result, tmp_path / "new")) == result
    assert store.save(result, tmp_path) == path
    assert json.loads(path.read_text())["schema_version"] == SCHEMA_VERSION


def test_version_1_was_made_in_one_attempt_with_whole_batches():
    for path in OLD:
        if version_of(path) == 1:
            run = store.parse(json.loads(path.read_text()), "it").run
            assert (run.accumulation, run.resumed, run.notes) == (1, [], [])


@pytest.mark.parametrize("version", [None, 0, -1, "1", 1.0, True])
def test_what_has_no_version_that_was_is_no_result(make_result, version):
    data = make_result().model_dump(mode="json") | {"schema_version": version}
    with pytest.raises(UserError, match="it is not a trial's: its schema_version is"):
        store.parse(data, "it")


@pytest.mark.parametrize("damage", [{"spec": 1}, {"cost": []}, {"metrics": None}, {"unknown": 1}])
def test_damage_of_an_old_result_is_named(damage):
    data = json.loads(OLD[0].read_text()) | damage
    with pytest.raises(UserError, match=f"it is not valid: {next(iter(damage))}"):
        store.parse(data, "it")
