"""Finished trials as people load them: in a fresh process, without a seed, with questions of their own."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pet_bench
from pet_bench.data.patches import patches
from pet_bench.data.suite import suite_by_name
from pet_bench.errors import UserError
from pet_bench.mini.write_clips import ClipSizes, write_video_text
from pet_bench.pet import FROZEN, count, trained_parameters
from pet_bench.results import predictions as saved
from pet_bench.results import store
from pet_bench.spec import MethodSpec, Visual
from pet_bench.trial.questions import prompted
from pet_bench.trial.run import ADAPTER, run_trial
from tests.conftest import ROOT, part
from tests.results.test_card import stock  # noqa: F401
from tests.tiny import tiny_model

TRIALS = [
    (backbone, method)
    for backbone in ("mini-bart", "mini-t5")
    for method in (
        "vl-pet-large", "lora", "peft:vera", {"name": "vl-pet-large", "visual": "frozen"}, "lst",
    )
]  # fmt: skip
SUITE = "mini-image-text/vqa+nlvr2"
FEW = {"vqa": {"test": "karpathy_test[:25%]"}}


@pytest.fixture(autouse=True, scope="module")
def uncollected():
    """Models this small may wait until the end: collecting them one by one takes longer than all else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gc.collect", lambda: 0)
        yield


@pytest.fixture(scope="module")
def make(world, tmp_path_factory):
    """Run a short trial into a folder that all trials of this module share: (its result, that folder)."""
    out = tmp_path_factory.mktemp("trials")

    def make(backbone="mini-bart", method="lora", suite=SUITE, seed=5, out=out, **changes):
        recipe = {"batch_size": 24, "max_steps": 3, "valid_every": 0, "lr": 3e-3} | changes.pop("recipe", {})
        names = {"backbone": backbone, "method": method, "suite": suite, "seed": seed, "recipe": recipe}
        return pet_bench.run_trial(**names, out=out, data=world, device="cpu", threads=1, **changes), out

    return make


@pytest.fixture(scope="module")
def lora(make):
    return make()


@pytest.fixture(scope="module")
def trial(lora, world):
    return pet_bench.load_trial(lora[0].id, out=lora[1], data=world)


def recorded(result, out):
    return {
        task: {id: text for id, (text, _) in saved.read(Path(out) / name).items()}
        for task, name in result.predictions.items()
    }


def test_a_fresh_process_predicts_what_was_saved(make, world, tmp_path):
    expected = {}
    for backbone, method in part(TRIALS, 3):
        result, _ = make(backbone, method, out=tmp_path, protocol=FEW)
        expected[result.id] = recorded(result, tmp_path)
    for control in ("noise", "text-only"):
        result, _ = make("mini-bart", control=control, out=tmp_path, protocol=FEW)
        expected[result.id] = recorded(result, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "tests.trial.fresh", tmp_path, world], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected
    assert len({json.dumps(answers) for answers in expected.values()}) > len(expected) / 2


@pytest.mark.parametrize("method", ["lora", "peft:vera"])
def test_words_that_the_backbone_lacked_are_kept_or_drawn_again(method, stock, make, world, tmp_path):  # noqa: F811
    result, _ = make(stock, method, out=tmp_path)
    frozen = tmp_path / result.id / FROZEN
    assert frozen.is_file()
    torch.manual_seed(99)
    kept = pet_bench.load_trial(result.id, out=tmp_path, data=world)
    assert kept.predict_test("vqa") == recorded(result, tmp_path)["vqa"]
    frozen.unlink()  # as trials were once left
    drawn = pet_bench.load_trial(result.id, out=tmp_path, data=world).model.state_dict()
    assert not [name for name, tensor in kept.model.state_dict().items() if not torch.equal(tensor, drawn[name])]


def test_the_adapter_holds_what_is_trained_and_nothing_else_is_written_in_vain(lora):
    result, out = lora
    assert not (out / result.id / FROZEN).exists()
    assert result.cost.adapter_bytes == (out / result.id / ADAPTER).stat().st_size


def test_loading_draws_from_no_generator(make, world):
    result, out = make("mini-t5", "peft:vera")
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    pet_bench.load_trial(result.id, out=out, data=world)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_what_is_loaded(trial, lora):
    assert trial.result == lora[0]
    assert trial.spec.id == lora[0].id
    assert not trial.model.training
    assert count(trial.model)["trainable"] == lora[0].parameters.trainable
    assert len(trial.tokenizer) == trial.model.lm.config.vocab_size
    assert [trial.task(name).name for name in (None, "nlvr2")] == ["vqa", "nlvr2"]


@pytest.mark.parametrize("form", ["id", "part", "file", "folder", "path", "known"])
def test_ways_to_name_a_trial(form, lora, monkeypatch):
    result, out = lora
    name = {
        "id": result.id, "part": result.id[:4], "file": f"{out}/{result.id}.json", "folder": f"{out}/{result.id}/",
        "path": Path(result.id), "known": result.id,
    }[form]  # fmt: skip
    if form == "path":
        monkeypatch.chdir(out)
    if form == "known":
        (out / "home" / "results").mkdir(parents=True)
        (out / "home" / "results" / "mine").symlink_to(out)
        monkeypatch.chdir(out / "home")
    place = {"out": out} if form in ("id", "part") else {}
    assert pet_bench.load_trial(name, **place).result == result


# questions of one's own


def picture_of(world, key):
    folder, name = key.split("/")
    return world / folder / "images" / f"{name}.png"


def pixels_of(world, key):
    with Image.open(picture_of(world, key)) as image:
        return patches(image)


def bare(example, prompt):
    return example.text.removeprefix(prompt)


@pytest.mark.parametrize("form", ["path", "text path", "numpy", "float64", "torch", "stacked"])
def test_own_questions_are_answered_as_the_readers(form, trial, world):
    for task, prompt in (("vqa", "vqa: "), ("nlvr2", "nlvr: ")):
        examples = trial.test_examples(task)[:30]
        given = {
            "path": lambda key: picture_of(world, key),
            "text path": lambda key: str(picture_of(world, key)),
            "numpy": lambda key: pixels_of(world, key),
            "float64": lambda key: pixels_of(world, key).astype(float),
            "torch": lambda key: torch.from_numpy(pixels_of(world, key)).float(),
            "stacked": lambda key: pixels_of(world, key),
        }[form]
        own = [{"text": bare(one, prompt), "images": [given(key) for key in one.images]} for one in examples]
        if form == "stacked":
            own = [{"text": one["text"], "image": np.stack(one["images"])} for one in own]
        assert trial.predict(own, task) == trial.predict(examples, task)


def test_answers_come_in_the_order_of_the_questions(trial, world):
    examples = trial.test_examples("nlvr2")[:12]
    one = {"text": "is there a circle?", "image": picture_of(world, examples[0].images[0])}
    mixed = [one, *examples[:5], one, *examples[5:], {**one, "text": "nlvr: is there a circle?"}]
    answers = trial.predict(mixed, "nlvr2")
    assert len(answers) == 15
    assert answers[1:6] + answers[7:14] == trial.predict(examples, "nlvr2")
    assert answers[0] == answers[6] == answers[14]
    assert trial.predict([], "nlvr2") == []
    twice = trial.predict([examples[0], examples[1], examples[0]], "nlvr2")
    assert twice[0] == twice[2]


BAD = [
    ("who?", r'example 0: expected an Example or {"text": …, "image": …}, found \'who\?\''),
    ({"txt": "a", "image": "x.png"}, 'unknown key of example 0 "txt": did you mean "text"'),
    ({"text": "a"}, 'example 0: give either "image" or "images"'),
    ({"text": 3, "image": "x.png"}, "example 0: text is no text, found 3"),
    ({"text": "a", "images": "x.png"}, "example 0: images is a list, found 'x.png'"),
    ({"text": "a", "images": []}, r"example 0 has 0 images \(possible: 1 to 2\)"),
    ({"text": "a", "image": np.zeros((3, 36, 192))}, r"example 0 has 3 images \(possible: 1 to 2\)"),
    (
        {"text": "a", "image": np.zeros((49, 2048))},
        r"example 0: features have shape \(49, 2048\), expected \(36",
    ),
    (
        {"text": "a", "image": np.zeros((36, 192), int)},
        r"example 0: expected an array of features \(36, 192\), or",
    ),
    ({"text": "a", "image": np.full((36, 192), 1e9)}, "example 0: features hold NaN, infinity or a value beyond half"),
    ({"text": "a", "image": "nowhere.png"}, 'example 0: picture "nowhere.png" cannot be read: No such file'),
]


@pytest.mark.parametrize(("given", "message"), BAD)
def test_what_is_no_question(given, message, trial):
    with pytest.raises(UserError, match=message) as error:
        trial.predict([given])
    assert len(error.value.faults) == 1


def test_all_faults_of_questions_at_once(trial):
    with pytest.raises(UserError) as error:
        trial.predict([given for given, _ in BAD])
    assert len(error.value.faults) == len(BAD)
    assert {f"example {i}" in fault for i, fault in enumerate(error.value.faults)} == {True}


def test_a_suite_without_an_extractor_says_what_it_takes(trial):
    other = replace(trial, spec=replace(trial.spec, suite="image-text", visual=Visual(2048, 49, 36)))
    message = (
        r"suite image-text makes no features of pictures, found 'a.png'; give an array of features \(49, 2048\) \("
    )
    with pytest.raises(UserError, match=message):
        other.predict([{"text": "what?", "image": "a.png"}])


def test_clips_of_any_length_and_masked_frames(tmp_path):
    clips = tmp_path / "clips"
    write_video_text(clips, sizes=ClipSizes(24, 8, 24, 8, 24, 8))
    names = {"backbone": "mini-bart-clips", "method": "lora", "suite": "mini-video-text/tvqa+tvc"}
    recipe = {"batch_size": 8, "max_steps": 2, "valid_every": 0, "lr": 1e-3}
    result = pet_bench.run_trial(
        **names, recipe=recipe, protocol={"tvc": {"padded_frames": "masked"}}, out=tmp_path, data=clips, device="cpu"
    )
    trial = pet_bench.load_trial(result.id, out=tmp_path, data=clips)
    assert trial.model.masks_empty == {"tvc"}
    for task in ("tvqa", "tvc"):
        reader, (example, *_) = trial.task(task), trial.test_examples(task)
        assert prompted(reader, example.text) == example.text
        with np.load(reader.feature_path(clips, example.images[0])) as archive:
            frames = archive["features"]
        assert len(frames) < 64
        text = example.text.removesuffix(" " + reader.prompt)
        assert prompted(reader, text) == example.text
        assert trial.predict([{"text": text, "image": frames}], task) == trial.predict([example], task)


# what cannot be loaded


def test_what_cannot_be_loaded(make, world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result, _ = make(out=tmp_path, method="peft:vera", suite="mini-image-text/nlvr2", recipe={"max_steps": 1})
    id, folder = result.id, tmp_path / result.id

    def refused(message, name=id, **options):
        with pytest.raises(UserError, match=message) as error:
            pet_bench.load_trial(name, **({"out": tmp_path, "data": world} | options))
        assert len(error.value.faults) == 1

    refused(r'"lora" is no trial \(a result\'s path, or the first 4 digits or more of an id in .*/\)', "lora")
    refused(r"is no trial .* of an id in results/\*/\)", out=None)
    refused(r"is no trial", "nowhere/0123.json")
    refused('device "gpu" cannot be used', device="gpu")
    trial = pet_bench.load_trial(id, out=tmp_path, data=world)
    with pytest.raises(UserError, match=f'unknown task of trial {id} "vqa"'):
        trial.predict_test("vqa")

    kept = (folder / FROZEN).read_bytes()
    (folder / FROZEN).write_bytes(kept.replace(id.encode(), b"0123456789ab"))
    refused(f"{FROZEN} is of trial 0123456789ab")
    (folder / FROZEN).write_bytes(kept[:-9])
    refused(f"{FROZEN} is no readable safetensors file")
    (folder / FROZEN).write_bytes(kept)
    (folder / ADAPTER).unlink()
    refused(rf"{ADAPTER} is missing: .* run the trial again \(pet-bench rerun {tmp_path} --trial {id}\)")
    (tmp_path / f"{id}.json").unlink()
    store.save_failure(trial.spec, tmp_path, "no memory", started=result.provenance.started)
    refused(f"trial {id} has no model: it is failed")


def test_data_are_needed_for_readers_examples_alone(lora, world):
    trial = pet_bench.load_trial(lora[0].id, out=lora[1], data=world / "elsewhere")
    picture = next((world / "COCO" / "images").glob("*.png"))
    assert len(trial.predict([{"text": "what color is the circle?", "image": picture}])) == 1
    with pytest.raises(UserError, match=r"data folder .* does not exist"):
        trial.test_examples()


# trials and methods by name


def test_a_trial_by_names_is_the_grids(mini_trial, runtime):
    spec = mini_trial({"name": "lora", "rank": 4}, recipe={"max_steps": 1}, suite="mini-image-text/nlvr2")
    expected = run_trial(spec, runtime)
    recipe = {"batch_size": 24, "max_steps": 1, "valid_every": 0, "lr": 3e-3}
    common = {"out": runtime.out / "again", "data": runtime.data, "device": "cpu", "threads": 1}
    for method in ({"name": "lora", "rank": 4}, MethodSpec("lora", {"rank": 4})):
        found = pet_bench.run_trial(
            backbone="mini-bart", method=method, suite="mini-image-text/nlvr2", recipe=recipe, **common
        )
        assert store.difference(found, expected) == ""
        assert found.id == spec.id and (runtime.out / "again" / f"{spec.id}.json").is_file()
    assert store.difference(pet_bench.run_trial(spec, **common), expected) == ""


def test_a_trial_that_is_none(tmp_path, mini_trial):
    with pytest.raises(UserError) as error:
        pet_bench.run_trial(backbone="mini-bart", out=tmp_path / "out")
    assert error.value.faults == ("method is missing", "suite is missing")
    with pytest.raises(UserError, match='unknown backbone "mini-brat": did you mean "mini-bart"'):
        pet_bench.run_trial(backbone="mini-brat", method="lora", suite="mini-image-text", out=tmp_path / "out")
    with pytest.raises(UserError, match="a resolved trial is given"):
        pet_bench.run_trial(mini_trial(), recipe={"lr": 1e-3}, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_method_on_a_model():
    named = pet_bench.attach("mini-bart", "lora", suite="mini-image-text", rank=2)
    model, tokenizer = pet_bench.load_backbone("mini-bart", "mini-image-text")
    same = pet_bench.attach(model, {"name": "lora", "rank": 2})
    assert same is model and count(model) == count(named)
    assert named.visual.visual == suite_by_name("mini-image-text").visual
    assert len(tokenizer) == model.lm.config.vocab_size
    assert trained_parameters(named).keys() == trained_parameters(model).keys()
    per_task = pet_bench.attach(tiny_model("t5"), "hyperformer", suite="mini-image-text")
    assert (
        count(per_task)["trainable"]
        > count(pet_bench.attach(tiny_model("t5"), "hyperformer", suite="vqa"))["trainable"]
    )
    with pytest.raises(UserError, match="the model has a method already"):
        pet_bench.attach(model, "lora")
    with pytest.raises(UserError, match='unknown method "lora" key "rnak": did you mean "rank"'):
        pet_bench.attach("mini-bart", "lora", rnak=2)


def test_the_package_offers_what_it_names_and_imports_nothing_heavy():
    assert sorted(pet_bench.__all__) == pet_bench.__all__
    for name in pet_bench.__all__:
        assert callable(getattr(pet_bench, name)) and getattr(pet_bench, name).__doc__
    code = "import sys, pet_bench; print({*sys.modules} & {'torch', 'pandas', 'transformers', 'numpy'})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"
    with pytest.raises(AttributeError, match="no attribute 'load_trail'"):
        getattr(pet_bench, "load_trail")  # noqa: B009
