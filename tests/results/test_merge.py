from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pet_bench.cli import main
from pet_bench.errors import UserError
from pet_bench.files import write_text
from pet_bench.results import store
from pet_bench.results.merge import merge

STARTED = "2026-01-01T00:00:00+00:00"


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def put(make_result):
    """Save a result and what belongs to it."""

    def put(folder, *, files=("predictions.vqa.jsonl",), text="{}\n", **keys):
        result = make_result(**keys)
        if result.status in ("failed", "oom"):
            result = result.model_copy(update={"metrics": {}, "average": None})
        store.save(result, folder)
        for name in files:
            write_text(folder / result.id / name, text)
        return result

    return put


def test_results_of_several_folders_with_what_belongs_to_them(put, make_spec, tmp_path):
    a, b, out = tmp_path / "a", tmp_path / "b", tmp_path / "out"
    first = put(a)
    store.save_failure(make_spec(seed=1), a, "no", started=STARTED)
    second = put(b, seed=1, files=["predictions.vqa.jsonl", "peft/adapter_config.json"])
    third = put(out, seed=2)
    put(b, seed=2)
    merged = merge([a, b], out)
    assert (merged.copied, merged.present, merged.grid) == ({first.id: a, second.id: b}, (third.id,), None)
    assert store.load_all(out) == {result.id: result for result in (first, second, third)}
    assert (out / second.id / "peft" / "adapter_config.json").read_text() == "{}\n"

    before = contents(out)
    again = merge([a, b], out)
    assert (again.copied, set(again.present)) == ({}, {first.id, second.id, third.id})
    assert contents(out) == before


def test_what_only_a_running_trial_needs_stays(put, tmp_path):
    files = [store.CHECKPOINT, f".{store.CHECKPOINT}.abc", "x.lock", "traceback.txt", f"{store.CHECKPOINT}.unreadable"]
    failed = put(tmp_path / "a", files=files, status="failed", error="no")
    write_text(tmp_path / "a" / ".locks" / failed.id, "")
    merge([tmp_path / "a"], tmp_path / "out")
    assert contents(tmp_path / "out").keys() == {f"{failed.id}.json", f"{failed.id}/traceback.txt"}


@pytest.mark.parametrize("first", ["a", "b"])
def test_the_higher_rank_wins_with_its_folder(put, tmp_path, first):
    a, b, out = tmp_path / "a", tmp_path / "b", tmp_path / "out"
    put(a, status="failed", error="no", files=["traceback.txt"])
    put(out, status="oom", error="no memory", files=["traceback.txt", store.CHECKPOINT])
    suspect = put(b, status="suspect", error="collapsed")
    merge(sorted([a, b], key=lambda folder: folder.name != first), out)
    assert store.load_all(out) == {suspect.id: suspect}
    assert contents(out).keys() == {f"{suspect.id}.json", f"{suspect.id}/predictions.vqa.jsonl"}


def test_of_two_failures_the_newer(put, tmp_path):
    older, newer = (put(tmp_path / name, status="failed", error=name, files=[]) for name in "ab")
    newer.provenance.finished, older.provenance.finished = "2026-01-03T00:00:00+00:00", "2026-01-02T00:00:00+00:00"
    for name, result in zip("ab", (older, newer), strict=True):
        store.save(result, tmp_path / name)
    merge([tmp_path / "b", tmp_path / "a"], tmp_path / "out")
    assert store.load_all(tmp_path / "out") == {newer.id: newer}


@pytest.mark.parametrize("status", ["done", "suspect"])
def test_different_scores_missing_folders_and_damage_are_refused_together(put, tmp_path, status):
    a, b = tmp_path / "a", tmp_path / "b"
    put(a, vqa=1.0)
    put(b, vqa=2.0, status=status, error=None if status == "done" else "collapsed")
    (b / "0123456789ab.json").write_text("half")
    with pytest.raises(UserError) as caught:
        merge([a, b, tmp_path / "c"], tmp_path / "out")
    faults = "\n".join(caught.value.faults)
    assert len(caught.value.faults) == 3
    name = next(a.glob("*.json")).name
    assert f'scored differently in "{a / name}" and in "{b / name}"' in faults
    assert "(metrics.vqa.accuracy.value: 1.0 and 2.0)" in faults
    assert '0123456789ab.json" cannot be read' in faults
    assert f'"{tmp_path / "c"}" does not exist' in faults
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "texts, kept, copied, says",
    [
        (("x", "x"), None, "x", True),
        (("x", "x"), "x", "x", True),
        (("x", "y"), None, None, None),
        (("x", None), None, None, None),
        (("x", "x"), "y", "y", False),
        ((None, None), None, None, None),
    ],
)
def test_the_grid_comes_along_where_it_is_that_of_all(put, tmp_path, texts, kept, copied, says):
    for name, text in zip(("a", "b", "out"), (*texts, kept), strict=True):
        (tmp_path / name).mkdir()
        if text:
            (tmp_path / name / "grid.yaml").write_text(text)
    put(tmp_path / "a"), put(tmp_path / "b")
    assert merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out").grid is says
    grid = tmp_path / "out" / "grid.yaml"
    assert (grid.read_text() if grid.exists() else None) == copied


class Killed(BaseException):
    """As by SIGKILL: nothing is cleaned up after it."""


@pytest.fixture
def kill(monkeypatch):
    """Let the merge die before its `at`-th step on disk, and clean nothing up; gives the number of steps."""

    def arm(at):
        count = [0]

        def counted(real):
            def step(*arguments, **keys):
                if at is not None and count[0] >= at:
                    raise Killed
                count[0] += 1
                return real(*arguments, **keys)

            return step

        for owner, name in ((os, "fsync"), (shutil, "copyfile"), (shutil, "rmtree")):
            monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
        for name in ("rename", "replace", "unlink"):
            monkeypatch.setattr(Path, name, counted(getattr(Path, name)))
        return count

    return arm


@pytest.mark.parametrize("held", [None, "failed", "suspect"])
def test_a_merge_that_is_killed_anywhere_leaves_whole_trials_and_is_completed_by_repeating_it(
    put, tmp_path, kill, monkeypatch, held
):
    source = tmp_path / "source"
    done = [put(source, seed=seed, files=["predictions.vqa.jsonl", "adapter.safetensors"]) for seed in range(2)]
    (source / "grid.yaml").write_text("name: g\n")

    def start(out):
        if held:
            put(out, status=held, error="no", files=["traceback.txt"])
        return out

    out = start(tmp_path / "whole")
    steps = kill(None)
    merge([source], out)
    monkeypatch.undo()
    whole = contents(out)
    assert steps[0] > 20
    for at in range(steps[0]):
        out = start(tmp_path / f"out{at}")
        kill(at)
        with pytest.raises(Killed):
            merge([source], out)
        monkeypatch.undo()
        for id, result in store.load_all(out).items():
            if result == next(one for one in done if one.id == id):
                assert contents(out / id) == contents(source / id)
        merge([source], out)
        assert contents(out) == whole


def test_the_command_says_what_it_did(put, tmp_path, capsys):
    def merge(*sources, out):
        with pytest.raises(SystemExit) as caught:
            main(["merge", *map(str, sources), "--out", str(out)])
        return caught.value.code or 0, *capsys.readouterr()

    a, b, c, out = (tmp_path / name for name in ("a", "b", "c", "out"))
    put(a), put(a, seed=1), put(b, seed=2), put(c, seed=3, vqa=1.0)
    for source in (a, b):
        (source / "grid.yaml").write_text("x")
    code, text, _ = merge(a, b, out=out)
    assert (code, text) == (0, f"2 results copied from {a}\n1 result copied from {b}\n")
    assert merge(a, b, out=out) == (0, f"3 already in {out}\n", "")
    code, text, _ = merge(c, out=out)
    assert (code, text.splitlines()[0]) == (0, f"1 result copied from {c}")
    assert "grid.yaml is not that of all sources" in text
    code, text, _ = merge(a, c, out=tmp_path / "other")
    assert "has no grid.yaml: the sources' differ" in text
    put(b, seed=3, vqa=2.0)
    code, text, err = merge(b, c, out=tmp_path / "another")
    assert (code, text, len(err.splitlines())) == (2, "", 1)
    assert "scored differently" in err


def test_a_full_disk_is_one_line_and_leaves_nothing_half(put, tmp_path, monkeypatch):
    put(tmp_path / "a")
    held = put(tmp_path / "out", status="failed", error="no", files=["traceback.txt"])
    before = contents(tmp_path / "out")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(UserError, match=r"cannot be copied to .*: .*No space left on device") as caught:
        merge([tmp_path / "a"], tmp_path / "out")
    assert len(caught.value.faults) == 1
    assert contents(tmp_path / "out") == before
    assert store.load_all(tmp_path / "out") == {held.id: held}


@pytest.mark.parametrize("prefer, kept", [("first", 1.0), ("newest", 3.0)])
def test_of_different_scores_those_that_are_preferred(put, tmp_path, prefer, kept):
    sources = [tmp_path / name for name in "abc"]
    for day, (source, vqa) in enumerate(zip(sources, (1.0, 3.0, 2.0), strict=True)):
        result = put(source, vqa=vqa, text=f"{vqa}\n")
        result.provenance.finished = f"2026-02-0{3 - abs(day - 1)}T00:00:00+00:00"
        store.save(result, source)
    before = [contents(source) for source in sources]
    with pytest.raises(UserError, match="prefer"):
        merge(sources, tmp_path / "out")
    merge(sources, tmp_path / "out", prefer)
    (found,) = store.load_all(tmp_path / "out").values()
    assert found.metrics["vqa"]["accuracy"].value == kept
    assert (tmp_path / "out" / found.id / "predictions.vqa.jsonl").read_text() == f"{kept}\n"
    assert [contents(source) for source in sources] == before
    higher = put(tmp_path / "d", vqa=9.0, status="suspect", error="collapsed")
    merge([tmp_path / "d"], tmp_path / "out", "newest")  # newer, but worth less
    assert store.load_all(tmp_path / "out")[higher.id] == found


def test_what_cannot_be_merged_is_said_together(put, tmp_path):
    out, empty = tmp_path / "out", tmp_path / "empty"
    put(out)
    empty.mkdir()
    (tmp_path / "link").symlink_to(out)
    before = contents(out)
    with pytest.raises(UserError) as caught:
        merge([empty, out, tmp_path / "link", tmp_path / "nowhere"], out)
    assert list(caught.value.faults) == [
        f'"{empty}" has no results',
        f'"{out}" is the folder to copy to: name others',
        f'"{tmp_path / "link"}" is the folder to copy to: name others',
        f'results folder "{tmp_path / "nowhere"}" does not exist',
    ]
    assert contents(out) == before
