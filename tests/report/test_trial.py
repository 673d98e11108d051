from __future__ import annotations

import subprocess
import sys

import pytest

from pet_bench.errors import UserError
from pet_bench.files import write_text
from pet_bench.report.tables.trial import size
from pet_bench.results import provenance, store
from pet_bench.results.schema import Point, Run, Selected
from tests.conftest import ROOT

OLD = ROOT / "tests" / "results" / "old"


@pytest.fixture
def shown(call, make_result, tmp_path, monkeypatch):
    """Save a result and show it; gives what is printed."""
    monkeypatch.setattr(provenance, "commit", lambda: ("b" * 40, False))

    def show(files=(), result=None, **keys):
        result = result or make_result(**keys)
        path = store.save(result, tmp_path)
        for name, text in dict(files).items():
            write_text(tmp_path / result.id / name, text)
        code, out, err = call("show", path)
        assert (code, err) == (0, "")
        assert max(map(len, out.splitlines())) <= max(100, len(str(tmp_path)) + 60)
        return " ".join(out.split())

    return show


def test_all_there_is_to_a_trial(shown, make_result):
    result = make_result(
        vqa=61.5, commit="a" * 40, control="noise", label="lora(rank=[8])", epochs=3, selection="best",
        run=Run(accumulation=2, resumed=[120, 1300], notes=["taken up [at] step 120"]), steps=20,
        protocol={"vqa": {"test": "other"}},
    )  # fmt: skip
    result.behaviour = {"gate": "published"}
    result.selected = Selected(step=10, epoch=1, score=55.0)
    result.curve = [
        point
        for step in (10, 20)
        for point in (
            Point(step=step, epoch=step / 10, split="train", task="gqa", loss=0.25 + step),
            Point(step=step, epoch=step / 10, split="train", task="vqa", loss=0.5 + step),
            Point(step=step, epoch=step / 10, split="valid", task="vqa", metrics={"accuracy": 30.0 + step, "x": 1.0}),
        )
    ]
    out = shown(result=result, files={"adapter.safetensors": "x" * 2048, "peft/a": "x" * 60, "peft/b/c": "x" * 4})
    for part in (
        "lora(rank=[8]) on bart-base, for image-text, seed 0, noise control", result.id, "done",
        "lr = 0.001, epochs = 3, batch_size = 500, selection = best; else as published", "vqa: test = other",
        "gate: published", "20 updates in 3 s", "cpu, 1 thread, peak memory 5 B", "each batch in 2 parts",
        "resumed at update 120, 1,300", "taken up [at] step 120", "at commit aaaaaaa",
        "made with another commit (aaaaaaa) than this code (bbbbbbb)", "data d0", "encoder.delta 10",
        "trainable 10 of 1,000 (1.00 %)", "update 10 (epoch 1), the best by validation: 55.00",
        f"{result.id}/adapter.safetensors 2 KiB", f"{result.id}/peft/ 64 B",
            "vqa accuracy 61.50 25.00 7 test", "extra 1.00", "average 50.75",
        "1 10 ← 10.500 10.250 40.00 2 20 20.500 20.250 50.00",
    ):  # fmt: skip
        assert part in out


def test_a_failure_with_its_traceback(shown, make_result):
    lost = {"metrics": {}, "average": None, "parameters": None, "cost": None}
    run = Run(peak_memory_bytes=3 * 2**30)
    failed = make_result(status="oom", error="no [bold]memory", run=run).model_copy(update=lost)
    out = shown(result=failed, files={"traceback.txt": "Traceback\n  loss[bold].backward()\n"})
    assert "oom: no [bold]memory" in out
    assert "peak memory 3.0 GiB" in out
    assert out.endswith("Traceback loss[bold].backward()")
    assert "scores" not in out


def test_a_finished_trial_shows_no_earlier_traceback_and_no_commit_that_is_ours(shown):
    out = shown(commit="b" * 40, status="suspect", error="collapsed", files={"traceback.txt": "Traceback"})
    assert "suspect: collapsed" in out
    assert "Traceback" not in out
    assert "another commit" not in out


@pytest.fixture
def copies(make_result, tmp_path):
    """Copies of a result in two folders, with these scores and the days on which they finished: their paths."""

    def save(*scores_and_days):
        paths = []
        for name, (vqa, day) in zip("abc", scores_and_days, strict=False):
            result = make_result(vqa=vqa)
            result.provenance.finished = f"2026-02-0{day}T00:00:00+00:00"
            paths.append(store.save(result, tmp_path / name))
        return paths

    return save


def test_of_equal_copies_the_newest_and_one_with_the_file(copies, tmp_path):
    old, new, older = copies((60.0, 2), (60.0, 3), (60.0, 1))
    folders, beside = [tmp_path / name for name in "abc"], "adapter.safetensors"
    assert store.find(old.stem[:4], folders) == new
    assert store.find(old.stem, folders[::2]) == old
    assert store.find(old.stem, folders, beside) == new  # none has it
    write_text(older.with_suffix("") / beside, "")
    assert store.find(old.stem[:4], folders, beside) == older
    write_text(old.with_suffix("") / beside, "")
    assert store.find(old.stem, folders, beside) == old
    (tmp_path / "b" / f"{old.stem[:4]}{'0' * 8}.json").write_text("{}")
    with pytest.raises(UserError, match="give one of these paths"):  # another trial
        store.find(old.stem[:4], folders, beside)


def test_copies_that_differ_are_both_named(copies, tmp_path):
    one, other = copies((60.0, 1), (61.0, 2))
    folders, beside = [tmp_path / "a", tmp_path / "b"], "adapter.safetensors"
    says = (
        rf"may be {one}, {other} \(they differ in metrics.vqa.accuracy.value: 60.0 and 61.0\): give one of these paths"
    )
    for options in ({}, {"beside": beside}):
        with pytest.raises(UserError, match=says):
            store.find(one.stem, folders, **options)
    write_text(one.with_suffix("") / beside, "")
    assert store.find(one.stem, folders, beside) == one


@pytest.mark.parametrize("old", sorted(OLD.glob("*.json")), ids=lambda path: path.stem)
def test_results_of_earlier_versions(call, tmp_path, old):
    id = old.read_text().split('"id": "')[1][:12]
    (tmp_path / f"{id}.json").write_bytes(old.read_bytes())
    code, out, _ = call("show", tmp_path / f"{id}.json")
    assert code == 0
    assert id in out
    assert max(map(len, out.splitlines())) <= 100


def test_a_trial_by_path_by_folder_and_by_id(call, make_result, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = make_result()
    path = store.save(result, tmp_path / "results" / "demo")
    write_text(path.with_suffix("") / "adapter.safetensors", "")
    elsewhere = store.save(make_result(seed=1), tmp_path / "elsewhere")
    for name in (path, path.with_suffix(""), f"{path.with_suffix('')}/", result.id, result.id[:4]):
        code, out, _ = call("show", name)
        assert code == 0
        assert result.id in out
    assert elsewhere.stem in call("show", elsewhere.stem[:4], "--out", "elsewhere")[1]

    for name in (result.id[:3], elsewhere.stem, "results/demo/none.json", "lroa", "0123456789abc"):
        code, out, err = call("show", name)
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert f'"{name}" is no method' in err
        assert "no trial" in err
    assert 'did you mean "lora"?' in call("show", "lroa")[2]

    copy = store.save(result, tmp_path / "results" / "copy")
    assert call("show", result.id[:4])[0] == 0
    copy.unlink()
    store.save(make_result(vqa=1.0), tmp_path / "results" / "copy")
    code, _, err = call("show", result.id[:4])
    assert code == 2
    assert f"results/copy/{result.id}.json, results/demo/{result.id}.json" in err


def test_a_method_of_the_name_wins(call, make_result, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path / "lora.json", "{}")
    code, out, _ = call("show", "lora")
    assert code == 0
    assert "rank = " in out


def test_showing_a_trial_loads_no_network_library(make_result, tmp_path):
    path = store.save(make_result(), tmp_path)
    code = (
        "import sys\nfrom pet_bench.cli import main\n"
        f"try: main(['show', {str(path)!r}])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'ray', 'matplotlib'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"


def test_sizes():
    assert [size(n) for n in (0, 999, 1500, 2**20, 711 * 2**20, 3 * 2**30)] == [
        "0 B", "999 B", "1 KiB", "1 MiB", "711 MiB", "3.0 GiB",
    ]  # fmt: skip
