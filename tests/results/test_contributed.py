"""What keeps results from being added to those that are kept, each damage by itself."""

from __future__ import annotations

import re

import numpy as np
import pytest

from pet_bench.cli import main
from pet_bench.results import store
from pet_bench.results.contributed import ABOUT, LARGEST, faults, outliers
from pet_bench.strict_yaml import parse_yaml
from tests.conftest import ROOT

METHODS = ("lora", "full", "bitfit", "lst")


@pytest.fixture
def folder(make_result, tmp_path):
    """Four methods of three seeds, spread normally, with all that is asked for."""
    generator = np.random.default_rng(0)
    for method in METHODS:
        for seed in range(3):
            store.save(make_result(method=method, seed=seed, vqa=60 + generator.normal(), gqa=40.0), tmp_path)
    (tmp_path / "grid.yaml").write_text("name: g\n")
    (tmp_path / ABOUT).write_text("by: somebody\n")
    assert not [*faults(tmp_path, {})]
    return tmp_path


def test_who(folder):
    (folder / ABOUT).unlink()
    (fault,) = faults(folder, {})
    assert "about.yaml is missing: who ran this?" in fault
    (folder / ABOUT).write_text("by: ' '\nseen: {'0123': 5}\nwho: me\n")
    assert len([*faults(folder, {})]) >= 3


def test_nobody_could_run_it_again(folder):
    (folder / "grid.yaml").unlink()
    (fault,) = faults(folder, {})
    assert "has no grid.yaml" in fault


@pytest.mark.parametrize("changed", [{"commit": None}, {"dirty": True}, {"dirty": None}])
def test_code_of_no_commit(folder, make_result, changed):
    result = make_result(seed=9)
    result.provenance = result.provenance.model_copy(update=changed)
    store.save(result, folder)
    (fault,) = faults(folder, {})
    assert result.id in fault and "its code is not that of a commit" in fault


def test_other_data_than_before(folder, make_result, tmp_path):
    """In this folder or in another; text-only trials read the same, another protocol others."""
    known = {}
    assert not [*faults(folder, known)]
    other = tmp_path / "other"
    for more in ({"control": "text-only"}, {"protocol": {"vqa": {"test": "dev"}}, "data": "d1"}):
        store.save(make_result(seed=7, **more), other)
    (other / "grid.yaml").write_text("name: g\n")
    (other / ABOUT).write_text("by: somebody else\n")
    assert not [*faults(other, known)]
    result = make_result(seed=8, data="d2")
    store.save(result, other)
    (fault,) = faults(other, known)
    assert result.id in fault and "it read other data of image-text" in fault and str(folder) in fault
    result = make_result(seed=8, data=None)
    (other / f"{result.id}.json").unlink()
    store.save(result, other)
    (fault,) = faults(other, known)
    assert "does not say which data" in fault


def test_what_is_not_finished(folder, make_result):
    store.save(make_result(seed=9, status="failed", error="it broke"), folder)
    (fault,) = faults(folder, {})
    assert "only finished trials are kept" in fault


def test_an_outlier_has_to_be_spoken_of(folder, make_result):
    result = make_result(method="lora", seed=9, vqa=20.0, gqa=40.0)
    store.save(result, folder)
    (fault,) = faults(folder, {})
    assert result.id in fault and "from the median of its seeds" in fault
    words = re.search(r"\((seen: .+)\)$", fault)[1].replace("…", "a seed that never leaves chance")
    for id in (result.id, "228e01748429", "012345678901"):  # the second would be a number without its quotes
        assert parse_yaml(words.replace(result.id, id), "advice")["seen"].keys() == {id}
    (folder / ABOUT).write_text(f"by: somebody\n{words}\n")
    assert not [*faults(folder, {})]
    (folder / f"{result.id}.json").unlink()
    (fault,) = faults(folder, {})
    assert "which is no outlier here" in fault


def test_normal_seeds_are_seldom_outliers_and_few_are_none(make_result):
    """Five standard deviations: of 1,200 trials hardly one, though the scale is estimated from 12 each time."""
    generator, found = np.random.default_rng(1), 0
    for _ in range(100):
        results = [
            make_result(method=method, seed=seed, vqa=60 + generator.normal(), gqa=40.0)
            for method in METHODS
            for seed in range(3)
        ]
        found += len(outliers({result.id: result for result in results}))
    assert found <= 12
    pair = [make_result(seed=seed, vqa=vqa) for seed, vqa in ((0, 10.0), (1, 90.0))]
    assert not outliers({result.id: result for result in pair})


def test_files_that_are_not_kept(folder):
    (folder / "0123456789ab").mkdir()
    (folder / "0123456789ab" / "predictions.vqa.jsonl.gz").write_bytes(b"0" * (LARGEST + 1))
    (folder / "link.json.d").symlink_to("/nowhere")
    first, second = sorted(fault for fault in faults(folder, {}) if "bytes" in fault or "link" in fault)
    assert f"has {LARGEST + 1:,} bytes" in first and "is a link" in second


def test_by_command(folder, capsys):
    (folder / ABOUT).unlink()
    for arguments, code in ((["--contribution"], 2), ([], 0)):
        with pytest.raises(SystemExit) as stopped:
            main(["results", "check", *arguments, str(folder)])
        said = capsys.readouterr().err
        assert ("who ran this?" in said) is (code == 2) and (stopped.value.code or 0) in (code, 2)


def test_what_is_kept_here_is_what_is_asked_of_others():
    known = {}
    said = [fault for path in sorted((ROOT / "results").glob("*/")) for fault in faults(path, known)]
    assert not said
