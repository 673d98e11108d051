"""Folders that stock transformers saved, from the front door to the table; and folders that are no checkpoint."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from safetensors.torch import load_file, save_file

from pet_bench.backbone.known import find_backbone
from pet_bench.backbone.loading import read_stock
from pet_bench.backbone.pixels import PixelFamily
from pet_bench.errors import UserError
from pet_bench.mini.write import Sizes, write_image_text
from pet_bench.registry import FAMILIES
from pet_bench.results import store
from tests.conftest import one_each, part
from tests.forms import drawn
from tests.test_end_to_end import call
from tests.vlms.tiny import folder

PIXELS = [family.name for family in FAMILIES if issubclass(family, PixelFamily)]
SHOWN = ("llava", "qwen2.5-vl", *part(("paligemma2", "gemma3", "florence2"), 1))
FEW = Sizes(
    coco_train=16, coco_restval=4, coco_val=4, coco_test=10, vg_train=16, vg_valid=4, gqa_testdev=10, nlvr_train=8,
    nlvr_valid=2, nlvr_test=6,
)  # fmt: skip
GRID = {
    "name": "mine",
    "suites": ["mini-image-text/nlvr2"],  # two pictures an example
    "methods": ["lora"],
    "seeds": [0],
    "recipe": {"lr": 1e-3, "max_steps": 2, "batch_size": 8, "valid_every": 0},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: folder(name, root / name) for name in PIXELS}


@pytest.fixture
def environment(tmp_path):
    cache = {"PET_BENCH_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return os.environ | cache | {"HF_HUB_OFFLINE": "1"}


@pytest.fixture
def run(environment, tmp_path):
    """`run` of a grid of these backbones on the mini world, and what else the command line is asked of it."""
    write_image_text(tmp_path / "data", seed=3, sizes=FEW)

    def call_it(backbones, command="run", *options):
        names = [str(backbone) for backbone in backbones]
        also = {key: value for key, value in GRID.items() if key != "name"}
        also |= {"backbones": names[:1], "methods": ["projector-only"]}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(GRID | {"backbones": names, "also": [also]}))
        if command == "run":
            options = ("--data", tmp_path / "data", "--executor", "inline")
        return call(environment, command, tmp_path / "mine.yaml", "--out", tmp_path / "out", *options)

    return call_it


def test_folders_train_and_report(folders, run, tmp_path):
    backbones, out = [folders[name] for name in SHOWN], tmp_path / "out"
    first = run(backbones)
    assert first.returncode == 0 and not first.stderr, first.stderr
    results = store.load_all(out).values()
    assert {(result.spec["backbone"], result.spec["method"]["name"]) for result in results} == {
        *((str(backbone), "lora") for backbone in backbones), (str(backbones[0]), "projector-only")
    }  # fmt: skip
    for result in results:
        assert (
            result.parameters
            and result.parameters.trainable
            and {*result.metrics} == {"nlvr2"}
            and result.run.tower == "kept"
        )
        text = (out / result.id / "README.md").read_text()
        assert "processor" in text and "200 extra words" not in text and "features" not in text

    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    again = run(backbones)
    assert again.returncode == 0 and f"{len(SHOWN) + 1} of {len(SHOWN) + 1} trials" in again.stdout
    assert {path: path.read_bytes() for path in before} == before

    report = run(backbones, "report")
    assert report.returncode == 0, report.stderr
    table = pd.read_csv(out / "report" / "table.csv")
    assert {*table.backbone} == {str(backbone) for backbone in backbones}
    told = " ".join(report.stdout.split())
    assert "language frozen, projector trained, vision frozen: projector-only" in told
    trained, frozen = (
        told.partition(f"language adapted, projector {state}, vision frozen: ")[2].partition(" language ")[0]
        for state in ("trained", "frozen")
    )
    assert f"lora on {folders['llava']}" in trained and f"lora on {folders['qwen2.5-vl']}" in frozen


def test_bad_folders_are_a_line_each_before_any_picture_is_read(folders, run, tmp_path):
    """Together, and with nothing packed."""
    bad = [Path(shutil.copytree(folders[name], tmp_path / f"bad-{name}")) for name in ("llava", "gemma3")]
    for path in bad:
        without_processor(path)
    tried = run([*bad, folders["paligemma2"]])
    assert tried.returncode == 2
    lines = tried.stderr.strip().splitlines()
    assert len(lines) == 2
    for line, path in zip(lines, bad, strict=True):
        assert line.startswith(f'pet-bench: error: backbone "{path}" cannot be loaded from {path}: it has no processor')
    assert not list((tmp_path / "out").iterdir()) and not (tmp_path / "cache" / "images").exists()


def without_processor(path):
    (path / "processor_config.json").unlink()
    return r"it has no processor \(possible: processor_config.json, preprocessor_config.json\)"


def without_tokenizer(path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path / name).unlink()
    return r"it has no tokenizer \(possible: tokenizer.json, "


def with_half_a_processor(path):
    text = (path / "processor_config.json").read_text()
    (path / "processor_config.json").write_text(text[: len(text) // 2])
    return r"processor_config.json cannot be read \(half-written\?\)"


def with_a_page_for_a_processor(path):
    (path / "processor_config.json").write_text("<!DOCTYPE html><html>Not found</html>")
    return "processor_config.json"


def with_another_models_processor(path):
    other = folder(kind := "florence2" if "gemma" in path.name else "gemma3", path.parent / kind)
    for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (path / name).unlink(missing_ok=True)
        if (other / name).exists():
            shutil.copy(other / name, path / name)
    return "its processor"


def without_a_template(path):
    (path / "chat_template.jinja").unlink()
    return r"its processor has no chat template \(chat_template.jinja\)"


def with_a_template_that_fails(path):
    (path / "chat_template.jinja").write_text("{% for m in %}")
    return "its processor cannot read a text behind a picture: "


def with_a_template_without_text(path):
    template = path / "chat_template.jinja"
    template.write_text(template.read_text().replace("{{ c.text }}", "a"))
    return "its processor leaves out the text"


def with_a_template_without_pictures(path):
    template = path / "chat_template.jinja"
    template.write_text(re.sub(r"(type == 'image' %\}).*?(\{% else)", r"\1\2", template.read_text()))
    return "its processor (cannot read a text behind a picture|puts nothing where an image is)"


def with_another_image_token(path):
    config = json.loads((path / "config.json").read_text())
    key = next(key for key in PixelFamily.image_ids if key in config)
    (path / "config.json").write_text(json.dumps(config | {key: 7}))
    return rf"its processor puts {config[key]} where an image is, and the model looks for 7"


def of_an_unknown_kind(path):
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"model_type": "fuyu"}))
    return "is a fuyu; possible: .*llava"


def without_weights(path):
    (path / "model.safetensors").unlink()
    return "no file named model.safetensors"


def without_the_towers_weights(path):
    family = FAMILIES.get(find_backbone(str(path)).family)
    tower = family.tower.rpartition(".")[2]
    tensors = load_file(path / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if f"{tower}." not in name}
    assert 0 < len(kept) < len(tensors)
    save_file(kept, path / "model.safetensors", metadata={"format": "pt"})
    return f"its checkpoint lacks tensors: .*{tower}"


OF_TURNS = (
    without_a_template, with_a_template_that_fails, with_a_template_without_text, with_a_template_without_pictures,
)  # fmt: skip
FAULTS = (
    without_processor, without_tokenizer, with_half_a_processor, with_a_page_for_a_processor,
    with_another_models_processor, with_another_image_token, of_an_unknown_kind, without_weights,
    without_the_towers_weights,
)  # fmt: skip


BAD = [(name, spoil) for name in PIXELS for spoil in (*FAULTS, *OF_TURNS * FAMILIES.get(name).turns)]
# of each family three, and of each fault two
FEW_BAD = {
    *drawn(BAD, 3),
    *(case for seed in ("one", "other") for case in one_each(BAD, lambda b: b[1].__name__, seed)),
}


@pytest.mark.parametrize(("name", "spoil"), sorted(FEW_BAD, key=BAD.index))
def test_a_bad_folder_is_one_line(folders, name, spoil, tmp_path):
    path = Path(shutil.copytree(folders[name], tmp_path / name))
    said = spoil(path)
    with pytest.raises(UserError) as refused:
        read_stock(find_backbone(str(path)))
    (fault,) = refused.value.faults
    assert "\n" not in fault and str(path) in fault and re.search(said, fault)
