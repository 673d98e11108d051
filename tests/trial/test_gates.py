"""Gates of finished trials, against the paper's formulas in NumPy on what goes in and out of the stock modules."""

from __future__ import annotations

import random
from dataclasses import replace

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file, save_file

from pet_bench.data.batches import TaskBatches
from pet_bench.errors import UserError
from pet_bench.mini.write_clips import ClipSizes, write_video_text
from pet_bench.pet import save_trained, trained_parameters
from pet_bench.report.figures.gates import read_gates
from pet_bench.results import predictions as saved
from pet_bench.results import store
from pet_bench.results.provenance import now, provenance
from pet_bench.results.schema import Run, TrialResult
from pet_bench.spec import Runtime
from pet_bench.trial.build import build_trial
from pet_bench.trial.gates import gate_values
from pet_bench.trial.run import run_trial
from pet_bench.trial.shared import Shared
from tests.report.conftest import call  # noqa: F401
from tests.vlms.tiny import folder

GRANULARITIES = ("large", "middle-x", "middle-y", "small")


@pytest.fixture(autouse=True)
def uncollected(monkeypatch):
    """Models this small may wait until the end: collecting them one by one takes longer than all else."""
    monkeypatch.setattr("gc.collect", lambda: 0)


@pytest.fixture(scope="module")
def shared():
    return Shared(most=8)


@pytest.fixture
def finish(runtime, mini_trial, shared):
    """A trial as one leaves it, its trained tensors drawn at random instead of trained: (path of its result, it)."""

    def make(*arguments, data=None, **changes):
        spec = mini_trial(*arguments, **changes)
        trial = build_trial(spec, runtime if data is None else Runtime(runtime.out, data, "cpu", 1), shared=shared)
        torch.manual_seed(17)
        for parameter in trained_parameters(trial.model).values():
            parameter.data += 0.1 * torch.randn_like(parameter)
        (runtime.out / spec.id).mkdir(parents=True)
        save_trained(trial.model, runtime.out / spec.id / "adapter.safetensors")
        trial.model.eval()
        result = TrialResult(
            id=spec.id, status="suspect", error="it was not trained", spec=spec.to_dict(), provenance=provenance(now()),
            run=Run(),
        )  # fmt: skip
        return store.save(result, runtime.out), trial

    return make


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def two_layers(tensors, path, x):
    hidden = x @ tensors[f"{path}.down.weight"].T + tensors[f"{path}.down.bias"]
    hidden = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))  # gelu_new
    return hidden @ tensors[f"{path}.up.weight"].T + tensors[f"{path}.up.bias"]


def gate_of(granularity, tensors, path, x, h):
    """G (T, d) of VL-PET, section 3.2, from X and H (T, d)."""
    y = h + two_layers(tensors, f"{path}.delta", h)
    if granularity == "middle-y":
        return np.broadcast_to(1 + tensors[f"{path}.gate.g"], y.shape)
    if granularity == "large":
        return sigmoid(two_layers(tensors, f"{path}.gate.project", x))
    read = x + y if granularity == "middle-x" else np.concatenate([x, y], axis=1)
    gate = sigmoid(read @ tensors[f"{path}.gate.project.weight"].T + tensors[f"{path}.gate.project.bias"])  # (T, 1)
    return np.broadcast_to(gate.mean(axis=0) if granularity == "small" else gate, y.shape)


def features(world, key):
    folder, name = key.split("/")
    with h5py.File(world / folder / "clip_features" / "data_clip_RN101_att" / f"{name}.h5") as file:
        return torch.from_numpy(file[f"{name}/features"][:].astype(np.float32))


@pytest.mark.parametrize("backbone", ["mini-bart", "mini-t5"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_gates_are_those_of_the_paper(granularity, backbone, finish, world):
    path, trial = finish(f"vl-pet-{granularity}", backbone, suite="mini-image-text/nlvr2")
    found = gate_values(path, "nlvr2", 7, world)

    example, model = trial.data.examples["nlvr2"]["test"][7], trial.model
    assert found.example == example
    ids = trial.reader.tokenizer(example.text).input_ids
    visual = torch.stack([features(world, key) for key in example.images])
    sites, taken = model.anatomy.sites, {}

    def take(key, *names):
        def hook(module, args, kwargs, output=None):
            value = (args[0] if args else kwargs["hidden_states"]) if output is None else output
            taken[key] = (value[0] if isinstance(value, tuple) else value)[0].double().numpy()

        return hook

    for gate in found.values:
        paths, key = sites[gate.site], (gate.site, gate.layer)
        reader, writer = (model.at(name, gate.layer) for name in paths[:2])
        reader.register_forward_pre_hook(take((*key, "x")), with_kwargs=True)
        writer.register_forward_hook(take((*key, "h")), with_kwargs=True, prepend=True)  # before what is inserted
    with torch.no_grad():
        model.encode(torch.tensor([ids]), visual[None], task="nlvr2")

    tensors = {
        name: value.astype(float) for name, value in load_file(path.with_suffix("") / "adapter.safetensors").items()
    }
    assert [(gate.site, gate.layer) for gate in found.values] == [
        (site, layer)
        for site in ("encoder.self_attn", "encoder.ffn")
        for layer in range(model.anatomy.stacks["encoder"].layers)
    ]
    for gate in found.values:
        stack, site = gate.site.split(".")
        x, h = (taken[gate.site, gate.layer, which] for which in "xh")
        expected = gate_of(granularity, tensors, f"pet.{stack}.{gate.layer}.{site}.0", x, h)
        np.testing.assert_allclose(gate.mean, expected.mean(axis=1), rtol=1e-4)
        np.testing.assert_allclose(gate.std, expected.std(axis=1), rtol=1e-4, atol=1e-7)
        assert len(gate.mean) == len(ids) + 2 * 36
        if granularity == "middle-y":
            np.testing.assert_allclose(gate.vector, 1 + tensors[f"pet.{stack}.{gate.layer}.{site}.0.gate.g"], rtol=1e-6)
        else:
            assert gate.vector is None
        if granularity in ("middle-y", "small"):
            assert np.ptp(gate.mean) == pytest.approx(0, abs=1e-12)
        else:
            assert np.ptp(gate.mean) > 1e-3


def test_tokens_and_where_they_are(finish, world):
    path, _ = finish(suite="mini-image-text/nlvr2")
    found = gate_values(path, example=3, data=world)
    frame = found.to_frame()
    one = frame[(frame.site == "encoder.ffn") & (frame.layer == 1)]
    words, seen = one[one.part == "text"], one[one.part == "image"]
    assert list(words.token) == ["<s>", *found.example.text.replace(":", " :").replace(".", " .").split(), "</s>"]
    assert words.image.isna().all()
    assert [*zip(seen.image, seen.row, seen.column, strict=True)] == [
        (image, row, column) for image in range(2) for row in range(6) for column in range(6)
    ]
    assert list(one.position) == list(range(len(words) + 72))
    assert len(frame) == 4 * len(one)
    about = frame[["id", "backbone", "method", "task", "example", "kind"]].drop_duplicates()
    assert about.values.tolist() == [
        [path.stem, "mini-bart", "vl-pet-large", "nlvr2", found.example.id, "large"],
    ]
    assert found.dimensions().empty
    assert found.values[0].formula.startswith("H' = G ⊙ (H + ΔH)")


def test_batching_changes_nothing(finish, world):
    """Alone as beside longer texts, whose length it is padded to; with the trial's own batches."""
    path, trial = finish(suite="mini-image-text/gqa")
    seen = {}
    for name, module in trial.model.pet.named_modules():
        if name.endswith(".gate"):
            module.register_forward_hook(lambda gate, args, output, name=name: seen.__setitem__(name, output))
    batch = next(trial.batches(trial.data.tasks[0], "test").eval_batches(40))
    with torch.no_grad():
        trial.model.encode(**batch.inputs)
    row, length = len(batch) - 1, batch.tensors["text"].shape[1]
    words = int((batch.tensors["text"][row] != trial.reader.pad).sum())
    assert words < length
    for gate in gate_values(path, "gqa", batch.ids[row], world).values:
        stack, site = gate.site.split(".")
        together = seen[f"{stack}.{gate.layer}.{site}.0.gate"][row].double()
        own = torch.cat([together[:words], together[length:]])
        np.testing.assert_allclose(gate.mean, own.mean(dim=1), atol=1e-5)
        np.testing.assert_allclose(gate.std, own.std(dim=1, correction=0), atol=1e-5)


@pytest.mark.parametrize("control", ["text-only", "noise"])
def test_controls_see_what_they_saw(control, finish, world):
    path, trial = finish("vl-pet-middle-x", suite="mini-image-text/nlvr2", control=control)
    batches = trial.batches(trial.data.tasks[0], "test")
    batch, kept = batches.batch(np.array([5]), np.array([5])), []
    gate = trial.model.pet.get_submodule("encoder.0.ffn.0.gate")
    gate.register_forward_hook(lambda module, args, output: kept.append(output))
    with torch.no_grad():
        trial.model.encode(**batch.inputs)
    found = gate_values(path, "nlvr2", 5, world)
    (same,) = (gate for gate in found.values if (gate.site, gate.layer) == ("encoder.ffn", 0))
    np.testing.assert_allclose(same.mean, kept[0][0, :, 0], rtol=1e-5)


def test_the_prediction_is_the_trials_and_nothing_else_changes(mini_trial, runtime):
    spec = mini_trial(suite="mini-image-text/nlvr2", recipe={"max_steps": 2})
    run_trial(spec, runtime)
    path = runtime.out / f"{spec.id}.json"
    recorded = saved.read(runtime.out / saved.name(spec.id, "nlvr2"))
    files, states = sorted(runtime.out.rglob("*")), (random.getstate(), torch.get_rng_state())
    found = gate_values(path, "nlvr2", 11, runtime.data)
    assert found.prediction == recorded[found.example.id][0]
    again = gate_values(path, "nlvr2", found.example.id, runtime.data)
    pd.testing.assert_frame_equal(again.to_frame(), found.to_frame())
    assert sorted(runtime.out.rglob("*")) == files
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])


@pytest.mark.parametrize(
    ("task", "backbone"), [("coco-caption", "mini-bart"), ("nlvr2", "mini-bart"), ("nlvr2", "mini-t5")]
)
def test_gates_in_the_decoder_read_the_models_own_prediction(task, backbone, finish, world):
    sites = {"cross_attn.value": "parallel", "ffn": "sequential"}
    method = {"name": "vl-pet-middle-x", "decoder": sites, "value_gate": "large"}
    path, _ = finish(method, backbone, suite=f"mini-image-text/{task}")
    found = gate_values(path, data=world)
    parts = {gate.site: [token.part for token in gate.tokens] for gate in found.values}
    texts = {gate.site: [token.text for token in gate.tokens] for gate in found.values}
    assert parts["decoder.cross_attn.value"] == parts["encoder.ffn"]
    assert {*parts["decoder.cross_attn.value"]} == {"text", "image"}
    assert {*parts["decoder.ffn"]} == {"answer"}
    start = {"mini-bart": ["</s>", "<s>"], "mini-t5": ["<pad>"]}[backbone]
    if task == "nlvr2":  # one pass, nothing written
        assert texts["decoder.ffn"] == start
    else:
        assert texts["decoder.ffn"][: len(start)] == start
        written = "".join(texts["decoder.ffn"][len(start) :])
        assert found.prediction.replace(" ", "").startswith(written)
        assert written


def test_learned_prompts_come_first_and_images_may_be_none(finish, world):
    prompted = {
        "name": "design",
        "inserts": [{"sites": ["encoder.ffn"], "gate": {"kind": "vector", "offset": 1.0}}],
        "doors": [{"kind": "prompt", "length": 3, "hidden": 4}],
    }
    path, _ = finish(prompted, suite="mini-image-text/gqa")
    found = gate_values(path, data=world)
    parts = [token.part for token in found.values[0].tokens]
    assert parts == ["prompt"] * 3 + ["text"] * (len(parts) - 39) + ["image"] * 36
    dimensions = found.dimensions()
    assert [*dimensions.groupby(["site", "layer"]).size()] == [64, 64]
    assert list(dimensions.gate) == [value for gate in found.values for value in gate.vector]

    path, _ = finish({"name": "vl-pet-small", "visual": "none"}, suite="mini-image-text/gqa")
    assert {token.part for gate in gate_values(path, data=world).values for token in gate.tokens} == {"text"}


def test_one_stack_that_reads_and_writes(finish, world, tmp_path):
    """[begin; images; prompt; text; answer], each with the gate of that place."""
    gated = {
        "name": "design",
        "inserts": [{"sites": ["decoder.ffn"], "gate": {"kind": "middle-x"}}],
        "doors": [{"kind": "prompt", "length": 2, "hidden": 4}],
    }
    backbone = str(folder("llama", tmp_path / "llama"))
    path, trial = finish(gated, backbone, suite="mini-image-text/vqa", recipe={"lr": 1e-3})
    seen = []
    for layer in range(2):
        gate = trial.model.get_submodule(f"pet.decoder.{layer}.ffn.0.gate")
        gate.register_forward_hook(lambda module, args, output: seen.append(output[0, :, 0]))
    found = gate_values(path, data=world)
    parts = [token.part for token in found.values[0].tokens]
    images = trial.spec.visual.pooled
    assert parts[: images + 4] == ["text", *["image"] * images, "prompt", "prompt", "text"]
    assert found.values[0].tokens[0].text == "<bos>"
    task = trial.data.tasks[0]
    batches, decoding = TaskBatches(task, [found.example], trial.reader, trial.data.store), task.decoding
    batch = next(batches.eval_batches(1))
    with torch.no_grad():
        said = trial.model.generate(batch.inputs, num_beams=decoding.num_beams, max_length=decoding.max_length)
        seen.clear()
        trial.model.logits(batch.inputs, said)
    for gate, whole in zip(found.values, seen, strict=True):
        assert [token.part for token in gate.tokens[-said.shape[1] + 1 :]] == ["answer"] * (said.shape[1] - 1)
        assert len(gate.tokens) == len(whole)
        np.testing.assert_allclose(gate.mean, whole, rtol=1e-5)


def test_what_a_processor_lays_out_is_not_shown(mini_trial, runtime, tmp_path):
    """Refused before anything else is read."""
    spec = replace(mini_trial("vl-pet-small"), backbone=str(folder("llava", tmp_path / "llava")))
    result = TrialResult(
        id=spec.id, status="suspect", error="it was not trained", spec=spec.to_dict(), provenance=provenance(now()),
        run=Run(),
    )  # fmt: skip
    with pytest.raises(UserError, match="is fed with pixels"):
        gate_values(store.save(result, runtime.out))


@pytest.mark.parametrize(("padded", "frames"), [("attended", 64), ("masked", None)])
def test_frames_of_a_clip_are_a_row(padded, frames, finish, tmp_path):
    write_video_text(tmp_path / "clips", seed=1, sizes=ClipSizes(2, 1, 2, 1, 2, 2, per_clip=2))
    changes = {"suite": "mini-video-text/yc2c", "protocol": {"yc2c": {"padded_frames": padded}}}
    path, _ = finish("vl-pet-middle-x", data=tmp_path / "clips", **changes)
    found = gate_values(path, data=tmp_path / "clips")
    if frames is None:
        clip = found.example.images[0].split("/")[1]
        with np.load(tmp_path / "clips" / "video" / "vis_features" / "yc2" / "clip-vit" / f"{clip}.npz") as file:
            frames = len(file["features"])
        assert 0 < frames < 64
    seen = [token for token in found.values[0].tokens if token.part == "image"]
    assert [(token.image, token.row, token.column) for token in seen] == [(0, 0, i) for i in range(frames)]
    assert len(found.values[0].mean) == len(found.values[0].tokens)


def test_faults_are_said_in_a_line(finish, world):
    path, _ = finish("lora", suite="mini-image-text/gqa")
    with pytest.raises(UserError, match=f"trial {path.stem} is of lora, which has no gate"):
        gate_values(path, data=world)
    path, _ = finish(suite="mini-image-text/vqa+gqa")
    with pytest.raises(UserError, match=r'unknown task of trial \w+ "vqaa": did you mean "vqa"\?'):
        gate_values(path, "vqaa", data=world)
    first = gate_values(path, data=world).example.id
    with pytest.raises(
        UserError, match=f'unknown test example "{first}0" of vqa, which has .*: did you mean "{first}"'
    ):
        gate_values(path, "vqa", f"{first}0", world)
    with pytest.raises(UserError, match=f'"#" of vqa, which has 200: the first is "{first}"'):
        gate_values(path, "vqa", "#", world)
    for number in (-1, 200):
        with pytest.raises(UserError, match=f"vqa has the test examples 0 to 199, found number {number}"):
            gate_values(path, "vqa", number, world)
    adapter = path.with_suffix("") / "adapter.safetensors"
    save_file(load_file(adapter), adapter, {"pet-bench": '{"trial": "0123456789ab"}'})
    with pytest.raises(UserError, match=r"adapter.safetensors is of trial 0123456789ab"):
        gate_values(path, data=world)
    adapter.unlink()
    with pytest.raises(UserError, match=f"is missing: adapters are not kept in git; run .* --trial {path.stem}"):
        gate_values(path, data=world)


def test_the_command_prints_means_and_writes_figure_and_values(call, finish, world, tmp_path):  # noqa: F811
    path, _ = finish("vl-pet-middle-y", suite="mini-image-text/nlvr2")
    code, out, err = call("gates", path, "--index", 4, "--data", world)
    assert (code, err) == (0, "")
    found = gate_values(path, "nlvr2", 4, world)
    stem = path.parent / "report" / f"gates-{path.stem}-nlvr2-{found.example.id}"
    pd.testing.assert_frame_equal(read_gates(stem.with_suffix(".csv")), found.to_frame())
    assert len(pd.read_csv(f"{stem}-dimensions.csv")) == 4 * 64
    for suffix in (".png", ".svg"):
        assert stem.with_suffix(suffix).stat().st_size > 5_000
        assert f"wrote {stem}{suffix}" in out
    means = found.to_frame().groupby(["site", "layer"])["mean"].mean()
    assert all(f"{mean:.4f}" in out for mean in means)
    assert f"prediction: {found.prediction} (right: {found.example.targets[0][0]})" in out
    assert "encoder.ffn: H' = G ⊙" in out

    target = tmp_path / "x.png"
    options = ["--data", world, "--out", target]
    code, out, _ = call("gates", path, "--example", found.example.id, "--site", "encoder.ffn", *options)
    assert code == 0
    assert "self_attn" not in out
    assert {*read_gates(target.with_suffix(".csv")).site} == {"encoder.ffn"}

    for arguments, message in (
        (["--site", "encoder.fn"], 'unknown site with a gate "encoder.fn": did you mean "encoder.ffn"?'),
        (["--index", 1, "--example", "x"], "--example and --index both say which example"),
        (["--out", "x.jpg"], '--out is a file that ends in .png or a folder of results, found "x.jpg"'),
    ):
        code, _, err = call("gates", path, "--data", world, *arguments)
        assert code == 2
        assert message in err
    code, _, err = call("gates", "0123")
    assert (code, '"0123" is no trial' in err) == (2, True)
