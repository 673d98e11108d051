"""A trial that is interrupted and taken up again ends as one that was not, to the last bit."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pytest
import torch

from pet_bench.errors import Stop
from pet_bench.mini.write import Sizes, write_image_text
from pet_bench.registry import METHODS
from pet_bench.trial import checkpoint
from pet_bench.trial.checkpoint import NAME, Checkpoints, Unreadable, generators, set_generators
from pet_bench.trial.run import run_trial
from tests.conftest import EVERYTHING, one_each, part

SIZES = Sizes(
    coco_train=20, coco_restval=2, coco_val=4, coco_test=8, vg_train=10, vg_valid=2, gqa_testdev=4, nlvr_train=4,
    nlvr_valid=2, nlvr_test=4,
)  # fmt: skip
EPOCHS = 2
RECIPE = {
    "max_steps": None, "epochs": EPOCHS, "valid_every": 1, "selection": "best", "data_order": "seeded",
    "batch_size": 24,
}  # fmt: skip
ADALORA = {
    "name": "peft:adalora", "init_r": 4, "target_r": 2, "tinit": 1, "tfinal": 3, "deltaT": 2, "lora_dropout": 0.1,
    "target_modules": ["q", "v"],
}  # fmt: skip
ADAMSS = {
    "name": "peft:adamss", "use_asa": True, "asa_target_subspaces": 6, "init_warmup": 1, "final_warmup": 8,
    "mask_interval": 3,
}  # fmt: skip


POOLS = {"name": "prompt-pool", "pool": 3, "top_k": 2, "stages": 2}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "datasets"
    write_image_text(folder, seed=3, sizes=SIZES)
    return folder


def closes(progress):
    return bool(progress.points) and progress.epoch % 1 == 0


ORDER = {"update": 0, "validation": 1, "close": 2}


class Interrupts:
    """A trial's progress callback that raises `Stop` at some moments, each of them once.

    (step, "update"): after that update; (step, "validation"): in the validation, or the test, that follows it;
    (step, "close"): after the epoch that ends with it.
    """

    def __init__(self, *moments):
        self.moments, self.seen, self.step = list(moments), [], 0

    def __call__(self, progress):
        self.seen.append(progress)
        if progress.phase == "train":
            self.step = progress.step
        kind = {"train": "close" if closes(progress) else "update", "evaluate": "validation"}.get(progress.phase)
        if (self.step, kind) in self.moments:
            self.moments.remove((self.step, kind))
            raise Stop


def run_with_interrupts(spec, runtime, *moments):
    """The result after as many attempts as there are moments, and one more; and all that was reported."""
    interrupts = Interrupts(*moments)
    for _ in moments:
        with pytest.raises(Stop):
            run_trial(spec, runtime, interrupts)
        assert not (runtime.out / f"{spec.id}.json").exists()
    result = run_trial(spec, runtime, interrupts)
    assert not interrupts.moments
    return result, interrupts.seen


def leftovers(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith((NAME, "."))]


def assert_equal(result, out, other, other_out):
    """All that two attempts at one trial must have in common."""
    for field in ("id", "status", "error", "metrics", "breakdowns", "average", "curve", "selected", "parameters"):
        assert getattr(result, field) == getattr(other, field), field
    assert result.cost.steps == other.cost.steps
    for name in ("adapter.safetensors", *(f"predictions.{task}.jsonl.gz" for task in result.metrics)):
        assert (out / result.id / name).read_bytes() == (other_out / other.id / name).read_bytes(), name
    assert not leftovers(out / result.id)


@pytest.fixture(scope="module")
def undisturbed():
    """Result by trial and accumulation, each trained once."""
    return {}


@pytest.fixture
def whole(undisturbed, runtime, tmp_path_factory):
    def run(spec, accumulation=1):
        key = spec.id, accumulation
        if key not in undisturbed:
            out = tmp_path_factory.mktemp("whole")
            undisturbed[key] = run_trial(spec, replace(runtime, out=out, accumulation=accumulation)), out
        return undisturbed[key]

    return run


@pytest.fixture
def trial(mini_trial):
    def make(method, backbone="mini-bart", suite="mini-image-text/vqa+nlvr2", **recipe):
        return mini_trial(method, backbone, suite=suite, recipe=RECIPE | recipe)

    return make


@pytest.mark.parametrize(
    ("backbone", "method", "accumulation"),
    one_each(
        [
            (backbone, *case)
            for backbone in ("mini-bart", "mini-t5")
            for case in (({"name": "lora", "dropout": 0.1}, 1), ("vl-pet-large", 3), ("full", 1))
        ],
        lambda case: str(case[1]),
        "interrupted",
    ),
)
def test_interrupted_at_any_moment(method, accumulation, backbone, trial, whole, runtime):
    spec = trial(method, backbone)
    expected, out = whole(spec, accumulation)
    total = expected.cost.steps
    epoch = total // EPOCHS
    assert 0 < expected.curve[0].step < epoch  # the loss of a part of it
    draw = random.Random(f"{method} {backbone}")
    middle = sorted(draw.sample([step for step in range(1, total) if step % epoch], 2))
    ends = [(step, kind) for step in (epoch, total) for kind in ("update", "validation", "close")]
    moments = sorted([(step, "update") for step in middle] + draw.sample(ends, 3), key=lambda m: (m[0], ORDER[m[1]]))
    result, seen = run_with_interrupts(spec, replace(runtime, accumulation=accumulation), *moments)
    assert_equal(result, runtime.out, expected, out)
    assert result.run.resumed == [step for step, _ in moments]
    assert result.run.notes == []
    assert result.run.accumulation == accumulation
    steps = [p.step for p in seen if p.phase == "train" and not closes(p)]
    assert steps == list(range(1, total + 1))  # no update is made twice
    closed = [p for p in seen if closes(p)]
    assert [point for p in seen for point in p.points] == [point.model_dump() for point in result.curve]
    assert result.selected.score == max(p.score for p in closed)


@pytest.mark.parametrize(
    ("method", "backbone"),
    part(
        [({"name": "lst", "samples": 8}, "mini-bart"), (ADALORA, "mini-t5"), (ADAMSS, "mini-bart"), (POOLS, "mini-t5")],
        2,
    ),
)
def test_what_doors_have_gathered_is_kept(method, backbone, trial, whole, runtime):
    """LST's blocks are not pruned a second time, AdaLoRA's and AdaMSS's allocators remember, and so do the stages of
    coarse and fine prompts."""
    if method is ADAMSS:
        pytest.importorskip("sklearn", reason="unchecked: what AdaMSS has gathered is kept (no scikit-learn)")
    spec = trial(method, backbone, suite="mini-image-text/vqa")
    expected, out = whole(spec)
    total = expected.cost.steps
    epoch = total // EPOCHS
    moments = [(2, "update"), (epoch, "validation"), (total - 2, "update")]
    result, _ = run_with_interrupts(spec, runtime, *moments)
    assert_equal(result, runtime.out, expected, out)


@pytest.mark.parametrize("method", part(METHODS.names(), 3))
def test_every_method_goes_on_where_it_was(method, trial, whole, runtime):
    """Interrupted once, on one of the mini backbones; `make test-all`: every method, on both."""
    both = ["mini-bart", "mini-t5"]
    for backbone in both if EVERYTHING else [random.Random(method).choice(both)]:
        spec = trial(method, backbone, suite="mini-image-text/vqa", epochs=1, valid_every=0, selection="last")
        expected, out = whole(spec)
        result, _ = run_with_interrupts(spec, runtime, (random.Random(method).randrange(1, 3), "update"))
        assert_equal(result, runtime.out, expected, out)


def test_the_end_of_training_is_kept_for_the_test(trial, whole, runtime):
    """The test itself may be interrupted at no loss of training, if checkpoints are wanted at all."""
    spec = trial("lora")
    expected, out = whole(spec)
    total = expected.cost.steps

    class InTest(Interrupts):
        def __call__(self, progress):
            super().__call__(progress)
            if progress.phase == "evaluate" and self.closed():
                raise Stop

        def closed(self):
            return any(p.points and p.step == total for p in self.seen)

    for wanted in (None, 1000):
        settings = replace(runtime, out=runtime.out / str(wanted), checkpoint_seconds=None, checkpoint_steps=wanted)
        with pytest.raises(Stop):
            run_trial(spec, settings, InTest())
        assert (settings.out / spec.id / NAME).exists() == (wanted is not None)
        seen = []
        result = run_trial(spec, settings, seen.append)
        assert_equal(result, settings.out, expected, out)
        assert result.run.resumed == ([total] if wanted else [])
        assert any(p.phase == "train" for p in seen) == (wanted is None)


KILLED = """
import json, os, signal, sys
from pathlib import Path
from pet_bench.spec import Runtime, TrialSpec
from pet_bench.trial.run import run_trial

spec, out, data, writes = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
sync, count = os.fsync, [0]

def fsync(file):
    count[0] += 1
    if count[0] == writes:
        os.kill(os.getpid(), signal.SIGKILL)
    sync(file)

os.fsync = fsync
runtime = Runtime(out=out, data=data, device="cpu", threads=1, checkpoint_seconds=None, checkpoint_steps=2)
run_trial(TrialSpec.from_dict(spec), runtime)
"""


def test_killed_while_it_writes_a_checkpoint(trial, whole, runtime):
    """The one before it holds: updates 5 and 6 are made again."""
    spec = trial({"name": "lora", "dropout": 0.1})
    expected, out = whole(spec)
    assert expected.cost.steps > 6 * EPOCHS
    arguments = [json.dumps(spec.to_dict()), str(runtime.out), str(runtime.data), "3"]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], env=os.environ, capture_output=True)
    assert killed.returncode == -9, killed.stderr.decode()
    assert len(leftovers(runtime.out / spec.id)) == 2  # a whole one and a torn one
    result = run_trial(spec, runtime)
    assert result.run.resumed == [4]
    assert_equal(result, runtime.out, expected, out)


def test_when_a_checkpoint_is_written(trial, runtime, monkeypatch):
    """After so many updates, or so much time, since the last; at the end; never, unless told to stop."""
    spec, written, now = trial("projector-only", epochs=1, valid_every=0, selection="last"), [], [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(checkpoint, "write", lambda path, about, state: written.append(about["step"]))
    total = run_trial(spec, replace(runtime, checkpoint_seconds=None)).cost.steps
    assert written == []
    run_trial(spec, replace(runtime, checkpoint_seconds=None, checkpoint_steps=3))
    assert written == [*range(3, total + 1, 3), total]
    written.clear()

    def tick(progress):
        now[0] += 4.0 * (progress.phase == "train")

    run_trial(spec, replace(runtime, checkpoint_seconds=7.0), tick)
    assert written == [*range(2, total + 1, 2), *([] if total % 2 == 0 else [total]), total]


# damage --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def stopped(trial, runtime):
    """A trial that was interrupted after update 3, and the folder with its checkpoint."""
    spec = trial("lora")
    with pytest.raises(Stop):
        run_trial(spec, runtime, Interrupts((3, "update")))
    return spec, runtime.out / spec.id


def flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", part([flip, lambda content: content[: len(content) // 2], lambda content: b""], 1))
def test_a_damaged_one_is_set_aside(damage, stopped, whole, runtime):
    spec, folder = stopped
    expected, out = whole(spec)
    damaged = damage((folder / NAME).read_bytes())
    (folder / NAME).write_bytes(damaged)
    result = run_trial(spec, runtime)
    (note,) = result.run.notes
    assert note.startswith("the checkpoint was unreadable (")
    assert note.endswith(f') and is now "{NAME}.unreadable": the trial began anew')
    aside = folder / f"{NAME}.unreadable"
    assert aside.read_bytes() == damaged
    assert result.run.resumed == []
    aside.unlink()
    assert_equal(result, runtime.out, expected, out)


@pytest.mark.parametrize(
    "about",
    [
        {}, [], {"of": {}, "step": 3}, {"of": {}, "step": "3", "made with": {}}, {"of": [], "step": 3, "made with": {}},
        {"of": {}, "step": True, "made with": {}}, {"of": {}, "step": 3, "made with": None},
    ],
)  # fmt: skip
def test_one_that_does_not_say_what_it_is_of_is_no_checkpoint(tmp_path, about):
    checkpoint.write(tmp_path / NAME, about, {})
    with pytest.raises(Unreadable):
        checkpoint.read(tmp_path / NAME)
    state, (note,) = checkpoint.Checkpoints(tmp_path, {}).read()
    assert state is None
    assert "unreadable" in note
    assert [path.name for path in tmp_path.iterdir()] == [f"{NAME}.unreadable"]


def test_one_of_another_micro_batch_is_not_taken_up(stopped, whole, runtime):
    spec, _ = stopped
    expected, out = whole(spec, 2)
    result = run_trial(spec, replace(runtime, accumulation=2))
    assert result.run.notes == ["the checkpoint of step 3 does not fit (accumulation 1, now 2): the trial began anew"]
    assert result.run.resumed == []
    assert_equal(result, runtime.out, expected, out)


@pytest.mark.parametrize("key", ["trial", "data", "tensors", "format"])
def test_one_of_something_else_is_not_taken_up(key, stopped):
    folder = stopped[1]
    about, state = checkpoint.read(folder / NAME)
    now = about["of"][key]
    about["of"][key] = "else"
    checkpoint.write(folder / NAME, about, state)
    about["of"].pop("format")
    checkpoints = Checkpoints(folder, about["of"] | {key: now} if key != "format" else about["of"])
    found, (note,) = checkpoints.read()
    assert found is None
    assert note == f"the checkpoint of step 3 does not fit ({key} else, now {now}): the trial began anew"
    assert (folder / NAME).exists()


def test_one_of_other_software_is_taken_up_and_said(stopped, whole, runtime):
    spec, folder = stopped
    expected, out = whole(spec)
    about, state = checkpoint.read(folder / NAME)
    about["made with"]["torch"] = "1.0"
    checkpoint.write(folder / NAME, about, state)
    result = run_trial(spec, runtime)
    assert result.run.notes == [
        f"taken up at step 3 with other software than before (torch 1.0, now {version('torch')})"
    ]
    assert result.run.resumed == [3]
    assert_equal(result, runtime.out, expected, out)


def test_a_full_disk_leaves_the_last_one(stopped, runtime, monkeypatch):
    spec, folder = stopped
    before = (folder / NAME).read_bytes()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run_trial(spec, replace(runtime, checkpoint_steps=1))
    assert (folder / NAME).read_bytes() == before
    assert leftovers(folder) == [NAME]


# the file ------------------------------------------------------------------------------------------------------------


ABOUT = {"of": {}, "step": 1, "made with": {}}


def test_every_flipped_bit_is_found(tmp_path):
    path, state = tmp_path / NAME, {"a": torch.arange(6.0).reshape(2, 3), "b": [1, None, {"c": torch.ones(())}]}
    checkpoint.write(path, ABOUT, state)
    content, draw = path.read_bytes(), random.Random(0)
    about, found = checkpoint.read(path)
    assert (about, found["b"][:2]) == (ABOUT, [1, None])
    assert torch.equal(found["a"], state["a"]) and found["b"][2]["c"].shape == ()
    for place in draw.sample(range(len(content)), 200):
        damaged = bytearray(content)
        damaged[place] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(Unreadable):
            checkpoint.read(path)


def test_generators_go_on_where_they_were(tmp_path):
    def draws():
        return random.random(), random.gauss(0, 1), np.random.normal(), torch.rand(3).tolist()

    device = torch.device("cpu")
    random.gauss(0, 1), np.random.normal()  # each keeps a second number for the next call
    checkpoint.write(tmp_path / NAME, ABOUT, generators(device))
    expected = draws()
    assert draws() != expected
    set_generators(checkpoint.read(tmp_path / NAME)[1], device)
    assert draws() == expected
