"""A frozen tower sees one picture at a time, and what was kept of one is to the bit what it gives."""

from __future__ import annotations

import copy
import dataclasses
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file

import pet_bench
from pet_bench.backbone.known import find_backbone
from pet_bench.backbone.loading import load, read_stock
from pet_bench.data import outputs as kept_files
from pet_bench.data.outputs import Full, Outputs
from pet_bench.data.packing import taking_turns
from pet_bench.errors import Stop, UserError
from pet_bench.pet import attach, build_method, design_of
from pet_bench.registry import FAMILIES
from pet_bench.results import predictions as saved
from pet_bench.spec import MethodSpec, Runtime, Visual
from pet_bench.tasks.vqa import VQA
from pet_bench.trial.build import build_trial
from pet_bench.trial.measure import measure
from pet_bench.trial.resolve import resolve
from pet_bench.trial.run import run_trial
from pet_bench.trial.tower import keep_tower, key_of
from tests.conftest import part
from tests.data import roots
from tests.vlms import tiny

VISUAL = Visual(width=8, tokens=4, pooled=4, images=1)
SIDES = ((40, 50), (48, 45), (56, 40), (64, 35))
TEXTS = ("what is this ?", "what color is a red circle ?", "how many are there ?", "what is this ?")
CPU = torch.device("cpu")


def module_of(family):
    return f"tests.vlms.tiny.{family.replace('-', '_').replace('.', '_')}"


PIXELS = [family.name for family in FAMILIES if family.fed == "pixels" and find_spec(module_of(family.name))]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    made = {}

    def folder(family):
        if family not in made:
            made[family] = tiny.folder(family, tmp_path_factory.mktemp(family))
        return made[family]

    return folder


def picture(i):
    return np.random.default_rng(i).integers(0, 256, (*SIDES[i % 4], 3), np.uint8)


def loaded(path, scope=None, method="lora"):
    """(model with a method, its reader, inputs of four examples, their targets)"""
    backbone = find_backbone(str(path))
    torch.manual_seed(0)
    model, processor = load(backbone, VISUAL, read_stock(backbone), scope)
    if method:
        attach(model, design_of(build_method(MethodSpec(method), model.anatomy), model.anatomy), ("vqa",))
    reader = model.family.reader(processor)
    inputs = reader.inputs(torch.empty(4, 0), [[picture(i)] for i in range(4)], TEXTS)
    return model.eval(), reader, inputs, torch.tensor([[5, 6, 1]] * 4)


def seen_alone(model, reader, i):
    """What is kept of a picture."""
    return model.tower.see(model.taken(reader.inputs(torch.empty(1, 0), [[picture(i)]], ["a"])))


def of_rows(model, reader):
    """Have what the tower gives of the four pictures kept; returns what names them in a batch."""
    seen = [seen_alone(model, reader, i) for i in range(4)]
    model.tower.kept = lambda rows: [torch.cat(parts) for parts in zip(*(seen[i] for i in rows.flatten()), strict=True)]
    return {"pictures": torch.arange(4)[:, None]}


# models ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", PIXELS)
class TestEveryFamily:
    def test_kept_is_what_the_tower_gives(self, checkpoints, family):
        model, reader, inputs, targets = loaded(checkpoints(family))
        before, said = model.logits(inputs, targets), model.generate(inputs, num_beams=3, max_length=6)
        chosen = model.choose(inputs, [5, 6])
        named = of_rows(model, reader)
        model.tower._run = lambda *_: pytest.fail("the tower ran")
        assert torch.equal(model.logits(inputs | named, targets), before)
        assert torch.equal(model.generate(inputs | named, num_beams=3, max_length=6), said)
        assert torch.equal(model.choose(inputs | named, [5, 6]), chosen)

    def test_the_kept_of_another_picture_matters(self, checkpoints, family):
        model, reader, _, targets = loaded(checkpoints(family))
        one = reader.inputs(torch.empty(1, 0), [[picture(0)]], TEXTS[:1])
        right = model.tower.see(model.taken(one))
        model.tower.kept = lambda rows: [states * (1 + rows.sum()) for states in right]
        same, other = (model.logits(one | {"pictures": torch.tensor([[row]])}, targets[:1]) for row in (0, 1))
        assert torch.equal(same, model.logits(one, targets[:1])) and not torch.equal(same, other)

    def test_a_picture_is_seen_as_if_alone(self, checkpoints, family):
        model, reader, inputs, targets = loaded(checkpoints(family))
        alone = [seen_alone(model, reader, i) for i in range(4)]
        model.logits(inputs, targets)
        together = [torch.cat(parts) for parts in zip(*alone, strict=True)]
        assert all(torch.equal(a, b) for a, b in zip(model.tower.made, together, strict=True))

    def test_what_is_behind_the_tower_trains_alike(self, checkpoints, family):
        model, reader, inputs, targets = loaded(checkpoints(family), ("language", "projector"))
        named, gradients = of_rows(model, reader), []
        for batch in (inputs, inputs | named):
            model.zero_grad()
            model.logits(batch, targets).square().sum().backward()
            gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        assert gradients[0].keys() == gradients[1].keys()
        assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])
        assert not gradients[0].keys() & model.tower.parameters.keys()
        assert any(model.anatomy.part_of(name) == "projector" for name in gradients[0])

    def test_a_tower_that_is_touched_is_the_stock_model(self, checkpoints, family):
        model, _, inputs, targets = loaded(checkpoints(family), ("vision", "projector", "language"))
        assert not model.tower.frozen
        named, stock = {"pictures": torch.arange(4)[:, None]}, model.tower.stock
        model.tower.kept = lambda rows: pytest.fail("what was kept was used")
        before = model.logits(inputs | named, targets)
        model.tower.module.forward = stock
        assert torch.equal(model.logits(inputs, targets), before)

    def test_so_is_one_that_trains(self, checkpoints, family):
        model, *_ = loaded(checkpoints(family))
        assert model.tower.frozen
        next(iter(model.tower.parameters.values())).requires_grad_(True)
        assert not model.tower.frozen
        assert not loaded(checkpoints(family), method=None)[0].tower.frozen

    def test_weights_in_half_precision(self, checkpoints, family):
        model, reader, inputs, targets = loaded(checkpoints(family))
        for module in model.modules():
            for parameter in module.parameters(recurse=False):
                if not parameter.requires_grad and not type(module).__name__.endswith("Norm"):
                    parameter.data = parameter.data.bfloat16()
        with torch.autocast("cpu", torch.bfloat16):
            before = model.logits(inputs, targets)
        named = of_rows(model, reader)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(model.logits(inputs | named, targets), before)

    def test_autocast_does_not_matter_to_the_tower(self, checkpoints, family):
        model, _, inputs, targets = loaded(checkpoints(family))
        model.logits(inputs, targets)
        before = model.tower.made
        with torch.autocast("cpu", torch.bfloat16):
            model.logits(inputs, targets)
        assert all(torch.equal(a, b) for a, b in zip(model.tower.made, before, strict=True))

    def test_a_copy_is_a_model_of_its_own(self, checkpoints, family):
        model, _, inputs, targets = loaded(checkpoints(family))
        twin = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in model.tower.parameters.values():
                parameter.zero_()
        assert not torch.equal(twin.logits(inputs, targets), model.logits(inputs, targets))


# trials ---------------------------------------------------------------------------------------------------------------

COUNT = 8  # pictures of the training and test splits


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Annotations of VQA, with pictures."""
    monkeypatch.setenv("PET_BENCH_CACHE", str(tmp_path / "cache"))
    root = roots.vqa(tmp_path / "datasets")
    (root / "COCO" / "images").mkdir()
    keys = sorted({key for split in ("train", "test") for e in VQA().examples(root, split) for key in e.images})
    for i, key in enumerate(keys):
        Image.fromarray(picture(i)).save(root / "COCO" / "images" / f"{key.split('/')[1]}.png")
    return root


@pytest.mark.parametrize("family", part(sorted(PIXELS), 4))
def test_a_trial_does_not_depend_on_it(checkpoints, family, data, tmp_path):
    results, tensors = [], []
    for out, keep in ((tmp_path / "kept", True), (tmp_path / "run", False)):
        spec = trial_of(checkpoints(family))
        results.append(run_trial(spec, Runtime(out, data, "cpu", 1, keep_tower=keep)))
        tensors.append(load_file(out / spec.id / "adapter.safetensors"))
    kept, run = results
    assert (kept.run.tower, run.run.tower) == ("kept", "run") and kept.run.notes == run.run.notes == []
    assert kept.id == run.id and kept.metrics == run.metrics
    assert [point.loss for point in kept.curve] == [point.loss for point in run.curve]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


def trial_of(path, seed=0, control="none", batch_size=3, **method):
    recipe = {"lr": 1e-2, "max_steps": 2, "batch_size": batch_size, "valid_every": 0}
    return resolve(str(path), MethodSpec("lora", **method), "image-text/vqa", seed, control=control, recipe=recipe)


class Watch:
    """Counts what is prepared, and stops where it is told."""

    def __init__(self, stop=None):
        self.stop, self.seen = stop, []

    def __call__(self, progress):
        if progress.phase == "prepare" and progress.total_steps:
            self.seen.append(progress.step)
            if len(self.seen) == self.stop:
                raise Stop


@pytest.fixture
def go(checkpoints, data, tmp_path):
    def go(watch=lambda progress: None, out="out", keep=True, **spec):
        runtime = Runtime(tmp_path / out, data, "cpu", 1, keep_tower=keep)
        return run_trial(trial_of(checkpoints("llava"), **spec), runtime, watch)

    return go


def test_a_second_trial_finds_what_the_first_kept(go, tmp_path):
    first, second = Watch(), Watch()
    assert go(first).run.tower == "kept"
    assert first.seen == [*range(1, COUNT + 1)] * 2  # packed, then seen by the tower
    assert go(second, seed=1).run.tower == "kept" and second.seen == []
    (folder,) = (tmp_path / "cache" / "towers").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["index.jsonl", "outputs.bin"]


def test_measuring_a_trial_looks_at_the_pictures_of_its_batches_alone(checkpoints, data, tmp_path):
    runtime, spec = Runtime(tmp_path / "out", data, "cpu", 1), trial_of(checkpoints("llava"), batch_size=1)
    measure(spec, runtime, steps=1)
    (folder,) = (tmp_path / "cache" / "towers").iterdir()
    seen = len((folder / "index.jsonl").read_bytes().splitlines())
    assert 1 <= seen <= 3  # of two updates and a test
    trial = build_trial(spec, dataclasses.replace(runtime, keep_tower=False))
    looked, left = keep_tower(trial, runtime, [0, 1, 1, 2, 3])
    assert looked <= 4 and left == COUNT - seen - looked and trial.run.tower == "kept"
    assert keep_tower(trial, runtime, [0, 1]) == (0, left)
    assert keep_tower(trial, runtime) == (left, 0)


def test_one_that_was_stopped_goes_on(go):
    with pytest.raises(Stop):
        go(Watch(stop=COUNT + 3))
    again = Watch()
    stopped = go(again)
    assert again.seen == [*range(4, COUNT + 1)]
    fresh = go(out="fresh", keep=False)
    assert stopped.metrics == fresh.metrics and stopped.curve[-1].loss == fresh.curve[-1].loss


@pytest.mark.parametrize("control", ["text-only", "noise"])
def test_a_control_runs_the_tower(go, tmp_path, control):
    assert go(control=control).run.tower == "run"
    assert not (tmp_path / "cache" / "towers").exists()


def test_a_method_in_the_tower_switches_it_off(go, tmp_path):
    assert go(scope=("language", "vision")).run.tower is None
    assert not (tmp_path / "cache" / "towers").exists()


def test_where_there_is_no_room_it_runs_and_says_so(go, monkeypatch):
    def full(self, size):
        raise Full("it needs 1.0 GB")

    monkeypatch.setattr(Outputs, "_check_space", full)
    result = go()
    assert result.run.tower == "run"
    assert result.run.notes == ["what the vision tower gives of a picture was not kept: it needs 1.0 GB"]
    monkeypatch.undo()


def test_where_the_cache_cannot_be_written_too(go, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "towers").write_text("")
    assert go().run.tower == "run"


def test_what_is_kept_belongs_to_the_tower_as_it_is(checkpoints):
    model, reader, *_ = loaded(checkpoints("llava"))
    keys = {key_of(model.tower, reader, CPU)}
    with torch.no_grad():
        model.lm.model.multi_modal_projector.linear_1.weight.add_(1)
        assert key_of(model.tower, reader, CPU) in keys
        next(iter(model.tower.parameters.values())).add_(1)
    keys.add(key_of(model.tower, reader, CPU))
    reader.processor.image_processor.image_mean = [0.1, 0.2, 0.3]
    keys.add(key_of(model.tower, reader, CPU))
    model.tower.read = (1,)
    keys.add(key_of(model.tower, reader, CPU))
    assert len(keys) == 4 and all(len(key) == 24 for key in keys)


# files ----------------------------------------------------------------------------------------------------------------


def test_tensors_come_back_to_the_bit(tmp_path):
    types = (torch.float32, torch.bfloat16, torch.float16)
    made = [[torch.randn(1, 3 + i, 4).to(dtype), torch.randn(2, 2)] for i, dtype in enumerate(types)]
    store = Outputs("key", tmp_path)
    store.fill(["a", "b", "c"], made.__getitem__, lambda *_: None)
    for i, digest in enumerate("abc"):
        assert all(torch.equal(one, other) for one, other in zip(store[digest], made[i], strict=True))
        assert [one.dtype for one in store[digest]] == [types[i], torch.float32]
    calls = []
    again = Outputs("key", tmp_path)
    again.fill(["c", "d", "a", "d"], lambda i: calls.append(i) or made[i], lambda *_: None)
    assert calls == [1]
    assert torch.equal(again["d"][0], made[1][0]) and torch.equal(again["b"][0], made[1][0])


@pytest.mark.parametrize("name", ["outputs.bin", "index.jsonl"])
@pytest.mark.parametrize("size", [0, 20, 60])
def test_wherever_it_was_cut_off(tmp_path, name, size):
    made = [[torch.full((1, 5), float(i))] for i in range(4)]
    Outputs("key", tmp_path).fill([*"abcd"], made.__getitem__, lambda *_: None)
    path = tmp_path / kept_files.WHAT / "key" / name
    path.write_bytes(path.read_bytes()[:size])
    store = Outputs("key", tmp_path)
    store.fill([*"abcd"], made.__getitem__, lambda *_: None)
    assert [float(store[digest][0][0, 0]) for digest in "abcd"] == [0, 1, 2, 3]


def test_what_fits_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 30})())
    with pytest.raises(Full, match="GB are free"):
        Outputs("key", tmp_path).fill([*"abcd"], lambda i: [torch.ones(1, 5)], lambda *_: None)


def test_processes_take_turns(tmp_path):
    folder, waited = tmp_path / "towers" / "key", []
    (tmp_path / ".locks").mkdir()
    with (
        (lock := FileLock(tmp_path / ".locks" / "key")),
        taking_turns(folder, lambda: (waited.append(1), lock.release())),
    ):
        assert waited == [1]


# people's own pictures ------------------------------------------------------------------------------------------------


@pytest.fixture
def trial(go, tmp_path, data):
    result = go()
    return pet_bench.load_trial(tmp_path / "out" / f"{result.id}.json", data=data)


def test_questions_about_peoples_own_pictures(trial, tmp_path):
    example = trial.test_examples()[0]
    path = tmp_path / "datasets" / "COCO" / "images" / f"{example.images[0].split('/')[1]}.png"
    with Image.open(path) as image:
        image.load()
    ways = (path, str(path), image, np.asarray(image), image.convert("RGBA"))
    asked = [{"text": example.text, "image": way} for way in ways]
    assert trial.predict(asked) == trial.predict([example]) * len(ways)
    assert len(trial.predict([{"text": "what is this ?", "images": [path, image]}, example, asked[0]])) == 3


def test_predictions_of_the_test_split_are_those_of_the_trial(trial, tmp_path):
    (name,) = (tmp_path / "out").glob("*/predictions.vqa.jsonl.gz")
    assert trial.predict_test() == {id: text for id, (text, _) in saved.read(name).items()}


def test_what_is_no_picture_is_one_line(trial, tmp_path):
    (tmp_path / "page.png").write_text("<!DOCTYPE html>")
    (tmp_path / "text.png").write_text("no picture")
    wrong = {
        "missing.png": "cannot be read: No such file",
        str(tmp_path / "page.png"): "is a web page",
        str(tmp_path / "text.png"): "is no picture (possible: ",
    }
    others = [np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), torch.zeros(3, 4, 4), np.zeros((0, 4, 3), np.uint8), 5]
    with pytest.raises(UserError) as error:
        trial.predict([{"text": "a", "image": one} for one in [*wrong, *others]] + [{"text": "a", "images": []}])
    lines = error.value.faults
    assert len(lines) == len(wrong) + len(others) + 1
    assert all(said in line for said, line in zip(wrong.values(), lines, strict=False))
    expected = "expected the path of a picture, a PIL image or an array (height, width, 3) of uint8, found "
    assert all(expected in line for line in lines[len(wrong) : -1])
    assert "found an array (4, 4) of float64" in lines[len(wrong)]
    assert "has 0 images" in lines[-1]
    assert [line.split(":")[0].split(" ")[:2] for line in lines] == [["example", str(i)] for i in range(len(lines))]


def test_a_trial_on_clips_says_that_there_are_no_pictures(checkpoints, tmp_path):
    spec = resolve(str(checkpoints("llava")), MethodSpec("lora"), "video-text/tvqa", 0, recipe={"lr": 1e-3})
    with pytest.raises(UserError, match="tvqa: there are features of clips and no pictures"):
        run_trial(spec, Runtime(tmp_path, roots.video(tmp_path / "datasets")))
    assert dataclasses.asdict(spec)["suite"] == "video-text/tvqa"
