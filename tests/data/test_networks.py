"""The real networks of feature extraction against other people's implementations."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from pet_bench.data.features import DEVIATION, MEAN, clip_encoder, cropped, extract, find, squashed
from pet_bench.data.task import FEATURES
from pet_bench.errors import UserError
from pet_bench.tasks.vqa import VQA
from tests.data.test_features import RNG, code, grey, images, noise

if find_spec("open_clip") is None:
    claim = "features are what timm and transformers compute from the same weights; weights that do not fit are refused"
    pytest.skip(f"unchecked: {claim} (no open_clip: pip install 'pet-bench[features]')", allow_module_level=True)


@pytest.fixture(scope="module")
def open_clip():
    return import_module("open_clip")


def state_of(open_clip, model, seed=0):
    """An image encoder's weights as OpenAI keeps them: named as parts of the whole model, in half precision.

    Random, and normalisations too, so that no part of the network is without effect.
    """
    torch.manual_seed(seed)
    visual = open_clip.CLIP(**open_clip.get_model_config(model)).visual
    for module in visual.modules():
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.LayerNorm)):
            module.weight.data.uniform_(0.2, 0.8)
            module.bias.data.normal_(std=0.2)
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 1.5)
    return {f"visual.{key}": value.half() for key, value in visual.state_dict().items()}


@pytest.fixture(scope="module")
def rn101(open_clip, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "rn101.safetensors"
    save_file(state_of(open_clip, "RN101"), path)
    return path


@pytest.fixture(scope="module")
def vit(open_clip, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "vit.pt"
    torch.save(state_of(open_clip, "ViT-B-32"), path)
    return path


def normalised(*pictures):
    pixels = np.stack(pictures).astype(np.float32) / 255
    return torch.tensor((pixels - np.float32(MEAN)) / np.float32(DEVIATION)).permute(0, 3, 1, 2)


def close(found, expected):
    """Equal up to half precision."""
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3 * float(np.abs(expected).mean()))


def test_grids_are_what_the_model_pools_and_what_timm_computes(open_clip, rn101, tmp_path):
    """timm has a ResNet of its own for these weights; open_clip's attention pooling gives `encode_image`."""
    import timm

    raw = images(tmp_path / "raw", 2)
    extract(find(raw, "images"), tmp_path / "out", clip_encoder("images", str(rn101)))
    found = []
    for i in range(2):
        with h5py.File(tmp_path / "out" / f"{i:02d}.h5") as file:
            found.append(file[f"{i:02d}/features"][:])
            assert file[f"{i:02d}/features"].attrs["model"] == "RN101-quickgelu"
    found = np.stack(found)
    assert found.min() == 0 and (found > 0).mean() > 0.2
    pixels = normalised(*(squashed(Image.open(raw / f"{i:02d}.png")) for i in range(2)))
    state = {key: value.float() for key, value in load_file(rn101).items()}

    model = open_clip.CLIP(**open_clip.get_model_config("RN101-quickgelu")).eval()
    model.visual.load_state_dict({key.removeprefix("visual."): value for key, value in state.items()})
    other = timm.create_model("resnet101_clip", num_classes=512).eval()
    other.load_state_dict(timm.models.byobnet.checkpoint_filter_fn(state, other))
    with torch.inference_mode():
        map_ = torch.tensor(found, dtype=torch.float32).transpose(1, 2).unflatten(2, (7, 7))
        close(model.visual.attnpool(map_), model.encode_image(pixels))
        close(found, other.forward_features(pixels).flatten(2).transpose(1, 2))


def test_frame_features_are_what_transformers_computes(open_clip, vit, tmp_path):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    folder = tmp_path / "raw" / "a"
    folder.mkdir(parents=True)
    frames = [noise(300, 240) for _ in range(9)]
    for i, frame in enumerate(frames):
        frame.save(folder / f"{i}.png")
    extract(find(tmp_path / "raw", "frames"), tmp_path / "out", clip_encoder("frames", str(vit)))
    found = np.load(tmp_path / "out" / "a.npz")["features"]

    model = CLIPVisionModelWithProjection(CLIPVisionConfig(patch_size=32, hidden_act="quick_gelu")).eval()
    state = {key.removeprefix("visual."): value.float() for key, value in torch.load(vit).items()}
    model.load_state_dict(to_transformers(state, model.state_dict().keys()))
    with torch.inference_mode():
        pixels = CLIPImageProcessorPil()([frames[2], frames[6]], return_tensors="pt")["pixel_values"]
        expected = model(pixels).image_embeds
    assert found.shape == (2, 512)
    close(found, expected)


def to_transformers(state, names):
    """open_clip's names for a ViT's parts, by those of transformers."""
    known = {
        "class_embedding": "embeddings.class_embedding",
        "positional_embedding": "embeddings.position_embedding.weight",
        "conv1.weight": "embeddings.patch_embedding.weight",
        "ln_pre": "pre_layrnorm",
        "ln_post": "post_layernorm",
        "transformer.resblocks": "encoder.layers",
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "attn.out_proj": "self_attn.out_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    found = {}
    for key, value in state.items():
        if key == "proj":
            found["visual_projection.weight"] = value.T
            continue
        for old, new in known.items():
            key = key.replace(old, new)
        parts = {key: value}
        if "in_proj_" in key:
            ending = key.rsplit("in_proj_", 1)[1]
            stem = key.replace("attn.in_proj_" + ending, "self_attn.")
            parts = {f"{stem}{p}_proj.{ending}": v for p, v in zip("qkv", value.chunk(3), strict=True)}
        found |= {f"vision_model.{key}": value for key, value in parts.items()}
    assert found.keys() >= {*names} - {"vision_model.embeddings.position_ids"}
    return found


def test_the_origin_of_weights_does_not_depend_on_their_file(open_clip, vit, tmp_path):
    state = torch.load(vit)
    counted = {f"module.{key}": value.float() for key, value in state.items()} | {"module.logit_scale": torch.ones(())}
    torch.save({"state_dict": counted, "epoch": 3}, tmp_path / "other.pt")
    (one, other) = (clip_encoder("frames", str(path)).origin for path in (vit, tmp_path / "other.pt"))
    assert one == other and re.fullmatch(r"sha256:[0-9a-f]{64}", one["weights"])
    state["visual.ln_pre.bias"][0] += 1
    torch.save(state, tmp_path / "third.pt")
    assert clip_encoder("videos", str(tmp_path / "third.pt")).origin["weights"] != one["weights"]


def test_random_weights(open_clip):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    encoders = [clip_encoder("frames", seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(3), expected)  # the caller's random numbers go on
    one, same, other = (encoder([cropped(grey(100))]) for encoder in encoders)
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    origins = [encoder.origin for encoder in encoders]
    assert origins[0] == {
        "model": "ViT-B-32-quickgelu",
        "weights": "random, seed 1",
        "open_clip": open_clip.__version__,
    }


@pytest.mark.parametrize(
    ("kind", "tag", "model"),
    [
        ("images", "openai", "RN101-quickgelu"),
        ("videos", "openai", "ViT-B-32-quickgelu"),
        ("frames", "laion2b_s34b_b79k", "ViT-B-32"),
    ],
)
def test_the_activation_that_a_tag_is_for(open_clip, request, monkeypatch, kind, tag, model):
    file = request.getfixturevalue("rn101" if kind == "images" else "vit")
    monkeypatch.setattr(open_clip, "download_pretrained", lambda entry: str(file))
    encoder = clip_encoder(kind, tag)
    assert encoder.origin["model"] == model
    assert encoder.origin["weights"] == clip_encoder(kind, str(file)).origin["weights"]


def test_weights_that_cannot_be_used(open_clip, rn101, vit, tmp_path, monkeypatch):
    class Code:
        def __reduce__(self):
            return print, ("ran",)

    torch.save({"visual.proj": Code()}, tmp_path / "code.pt")
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), str(tmp_path / "script.pt"))
    (tmp_path / "noise.safetensors").write_bytes(RNG.bytes(99))
    torch.save({"vision_model.x": torch.ones(1)}, tmp_path / "names.pt")
    monkeypatch.setattr(open_clip, "download_pretrained", lambda entry: Path("/nowhere/at/all").read_text())
    for kind, weights, said in (
        ("frames", tmp_path / "code.pt", "cannot be read"),
        ("frames", tmp_path / "script.pt", "TorchScript program, which is not run"),
        ("frames", tmp_path / "noise.safetensors", "cannot be read"),
        ("frames", tmp_path / "names.pt", "not those of ViT-B-32-quickgelu: visual.class_embedding is missing"),
        ("images", vit, "not those of RN101-quickgelu"),
        ("frames", rn101, "not those of ViT-B-32-quickgelu"),
        ("frames", "opnai", 'weights "opnai" are neither a file nor a tag of open_clip for ViT-B-32 (tags: openai, '),
        ("images", "openai", 'weights "openai" of RN101 cannot be fetched'),
    ):
        with pytest.raises(UserError) as error:
            clip_encoder(kind, str(weights))
        (line,) = error.value.faults
        assert said in line and len(line) < 800


def test_the_command_with_the_real_network(open_clip, tmp_path, capsys):
    raw, target = images(tmp_path / "raw", 2), tmp_path / "datasets" / "COCO" / FEATURES
    assert code(raw, target, "--kind", "images", "--random-weights", 3, "--device", "cpu") == 0
    assert "2 written" in capsys.readouterr().out
    found = VQA().feature(tmp_path / "datasets", "COCO/00")
    assert (found.shape, found.dtype) == ((49, 2048), np.float16) and found.max() > 0
    assert code(raw, target, "--kind", "images", "--random-weights", 4, "--device", "cpu") == 2
    assert "random, seed 3, not RN101-quickgelu with random, seed 4" in capsys.readouterr().err
