"""All eight tasks on a folder of the real layout, with features and backbones of the real sizes.

The weights of bart-base and t5-base are random and most words of their tokenizers made up: neither can be fetched here.
"""

from __future__ import annotations

import gc
import json
import math
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers.utils import logging

from pet_bench.backbone import EncoderDecoder, build, find_backbone
from pet_bench.backbone.known import EXTRA_WORDS
from pet_bench.cli import main
from pet_bench.pet import trained_parameters
from pet_bench.results import predictions, store
from pet_bench.spec import MethodSpec
from pet_bench.tasks.suites import IMAGE_TEXT
from pet_bench.trial import run
from pet_bench.trial.count import count_parameters
from pet_bench.trial.score import score_trial
from tests.conftest import EVERYTHING
from tests.data import roots

pytestmark = pytest.mark.xdist_group("real sizes")  # one process for all: the trials are run once

METHOD = "vl-pet-large"
# Trained and all parameters in the reference implementation; of t5-base on video-text there is no record.
COUNTS = {
    ("bart-base", "image-text"): (6_052_416, 145_606_464),
    ("bart-base", "video-text"): (4_872_768, 144_426_816),
    ("t5-base", "image-text"): (17_582_208, 240_521_856),
}
# What the hub's bart-base says of generation (TASKS.md section 0.5).
GENERATION = {"early_stopping": True, "no_repeat_ngram_size": 3, "num_beams": 4, "forced_bos_token_id": 0}
# Task → its test split and number of examples, the primary metric, the breakdowns, beams and length of predictions.
TASKS = {
    "image-text": {
        "vqa": ("karpathy_test", 4, "accuracy", {"question type", "answer type", "length"}, (1, 20)),
        "gqa": ("testdev", 3, "accuracy", {"length"}, (1, 20)),
        "nlvr2": ("test", 2, "accuracy", {"length"}, None),
        "coco-caption": ("test", 2, "CIDEr", {"length"}, (5, 40)),
    },
    "video-text": {
        "tvqa": ("val", 2, "accuracy", {"show", "length"}, (5, 20)),
        "how2qa": ("val", 1, "accuracy", {"length"}, (5, 20)),
        "tvc": ("val", 4, "CIDEr", {"length"}, (5, 20)),
        "yc2c": ("val", 2, "CIDEr", {"length"}, (5, 20)),
    },
}
# Updates in an epoch of batches of 4, 6, 1 and 3 examples, and of 4 each.
STEPS = {"image-text": 1 + 1 + 2 + 2, "video-text": 4}


# `make test-all`: each backbone on each suite.
CASES = [("bart-base", "image-text")]
if EVERYTHING:
    CASES += [("t5-base", "video-text"), ("bart-base", "video-text"), ("t5-base", "image-text")]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """As in TASKS.md section 0.1, a handful of examples a task, features drawn at random."""
    root, rng = tmp_path_factory.mktemp("real") / "datasets", np.random.default_rng(0)
    for write in (roots.vqa, roots.gqa, roots.nlvr2, roots.coco_caption, roots.video):
        write(root)
    for path in sorted(root.rglob("*.h5")):
        with h5py.File(path, "r+") as file:
            file[f"{path.stem}/features"][:] = np.maximum(rng.standard_normal((49, 2048)), 0)
    for path in sorted(root.rglob("*.npz")):
        frames = len(np.load(path)["features"])
        np.savez(path, features=rng.standard_normal((frames, 512)).astype(np.float16))
    return root


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """The folder of a backbone as the hub has it: the vocabulary has not grown, `config.json` has all settings."""
    home = tmp_path_factory.mktemp("backbones")
    logging.disable_progress_bar()

    @cache
    def write(name: str) -> Path:
        known, folder = find_backbone(name), home / name
        lm = build(replace(known, rows=None), IMAGE_TEXT.visual, device="meta").lm.to_empty(device="cpu")
        torch.manual_seed(0)
        lm.init_weights()
        lm.half().save_pretrained(folder)
        (folder / "generation_config.json").unlink()
        config = json.loads((folder / "config.json").read_text())
        roots.dump(folder / "config.json", config | (GENERATION if known.family == "bart" else {}))
        write_tokenizer(known.family, folder)
        return folder

    yield write
    shutil.rmtree(home)


def write_tokenizer(family: str, folder: Path) -> None:
    """The mini backbone's, with as many words as the real one has; the new ones occur in no text."""
    mini = Path(find_backbone(f"mini-{family}").source)
    shutil.copy(mini / "tokenizer_config.json", folder)
    content = json.loads((mini / "tokenizer.json").read_text())
    words, added = content["model"]["vocab"], content["added_tokens"]
    kept = [token for token in added if token["content"] not in EXTRA_WORDS]
    if family == "bart":
        words |= {f"Ġw{i}": i for i in range(len(words), 50_265)}
    else:  # the first hundred extra words are T5's own
        words += [[f"▁w{i}", -99.0] for i in range(len(words), 32_000)]
        kept += [added[-1] | {"id": 32_000 + i, "content": EXTRA_WORDS[i]} for i in range(100)]
    roots.dump(folder / "tokenizer.json", content | {"added_tokens": kept})


@pytest.fixture(
    scope="module",
    params=CASES,
    ids=" on ".join,
)
def trial(request, root, folder_of, tmp_path_factory):
    """A trial by the command line: an epoch, validation, test. Its result, and what was seen while it ran.

    Without validation on video-text, whose validation splits are the test splits too.
    """
    (backbone, suite), out = request.param, tmp_path_factory.mktemp("out")
    validated = suite == "image-text"
    seen = SimpleNamespace(backbone=backbone, suite=suite, root=root, out=out, validated=validated, decoded={})
    train, generate = run.train, EncoderDecoder.generate

    def watched(trial):
        before = {name: parameter.detach().clone() for name, parameter in trial.model.named_parameters()}
        train(trial)
        after = trial.model.named_parameters()
        seen.changed = {name for name, parameter in after if not torch.equal(parameter, before[name])}
        seen.trained = trained_parameters(trial.model).keys()
        seen.generation = trial.model.lm.generation_config.to_dict()
        seen.words = trial.model.lm.get_input_embeddings().num_embeddings
        seen.features = trial.data.store.array.shape

    def listened(model, inputs, **options):
        ids = generate(model, inputs, **options)
        lengths = options["num_beams"], options["max_length"]
        seen.decoded.setdefault(inputs["task"], []).append((inputs["text"], *lengths, ids))
        return ids

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(run, "train", watched)
        patch.setattr(EncoderDecoder, "generate", listened)
        main([
            "run", "--suite", suite, "--backbone", str(folder_of(backbone)), "--method", METHOD,
            "--data", str(root), "--out", str(out), "--executor", "inline", "--device", "cpu",
            "--set", "recipe.epochs=1", "--set", "recipe.batch_size=4",
            "--set", f"recipe.valid_every={int(validated)}",
        ])  # fmt: skip
    gc.collect()  # the model is in cycles
    assert not ended.value.code
    (seen.result,) = store.load_all(out).values()
    return seen


def test_sizes_are_the_published_ones(trial):
    found, case = trial.result.parameters, (trial.backbone, trial.suite)
    expected = count_parameters(trial.backbone, MethodSpec(METHOD), trial.suite)
    assert found.model_dump() == {
        key: expected[key] for key in ("trainable", "total", "percent", "groups", "parts", "stacks")
    }
    assert (found.trainable, found.total) == COUNTS.get(case, (found.trainable, found.total))
    assert trial.words == {"bart-base": 50_465, "t5-base": 32_200}[trial.backbone]
    assert trial.features[1:] == {"image-text": (49, 2048), "video-text": (64, 512)}[trial.suite]


def test_it_trains_what_the_method_trains(trial):
    result = trial.result
    assert result.status in ("done", "suspect")  # few updates teach little
    assert result.cost.steps == STEPS[trial.suite]
    assert trial.changed == trial.trained
    saved = load_file(trial.out / result.id / "adapter.safetensors")
    assert sum(tensor.size for tensor in saved.values()) == result.parameters.trainable
    losses = {point.task: point.loss for point in result.curve if point.split == "train"}
    assert losses.keys() == TASKS[trial.suite].keys()
    # No better than guessing among all words at first, and better than that soon.
    assert all(0 < loss < math.log(trial.words) + 2 for loss in losses.values())
    assert min(losses.values()) < math.log(trial.words)


def test_it_is_scored_as_published(trial):
    result, published = trial.result, TASKS[trial.suite]
    assert result.metrics.keys() == result.breakdowns.keys() == result.predictions.keys() == published.keys()
    for task, (split, n, metric, groups, _) in published.items():
        name, score = next(iter(result.metrics[task].items()))
        assert (name, score.split, score.n) == (metric, split, n)
        assert result.breakdowns[task].keys() == groups
        for parts in result.breakdowns[task].values():
            assert sum(part.n for part in parts.values()) == n
            assert sum(part.n * part.value for part in parts.values()) / n == pytest.approx(score.value)
        rows = predictions.read(trial.out / result.predictions[task])
        assert len(rows) == n
        assert sum(score for _, score in rows.values()) / n == pytest.approx(score.value)
        assert task != "nlvr2" or {text for text, _ in rows.values()} <= {"true", "false"}
    primary = [next(iter(scores.values())).value for scores in result.metrics.values()]
    assert result.average == pytest.approx(sum(primary) / 4)
    validated = [point.task for point in result.curve if point.split == "valid"]
    assert validated == (list(published) if trial.validated else [])


def test_it_is_decoded_as_published(trial):
    """Beams and lengths as each task has them; of the rest, the checkpoint's settings hold (TASKS.md section 0.5)."""
    expected = {task: (n, decoding) for task, (_, n, _, _, decoding) in TASKS[trial.suite].items() if decoding}
    assert trial.decoded.keys() == expected.keys()
    for task, (n, (beams, length)) in expected.items():
        assert {(found[1], found[2]) for found in trial.decoded[task]} == {(beams, length)}
        assert sum(len(ids) for *_, ids in trial.decoded[task]) == (2 * n if trial.validated else n)
        assert all(ids.shape[1] <= length for *_, ids in trial.decoded[task])
    longest = {task: max(text.shape[1] for text, *_ in found) for task, found in trial.decoded.items()}
    assert longest.get("vqa", 0) <= 20 and longest.get("how2qa", 600) == 600
    expected = GENERATION if trial.backbone == "bart-base" else {"early_stopping": None, "no_repeat_ngram_size": None}
    assert {key: trial.generation.get(key) for key in expected} == expected


def test_the_saved_predictions_give_the_scores_again(trial):
    found = score_trial(trial.out / f"{trial.result.id}.json", trial.root)
    assert [one.what for one in found] == list(TASKS[trial.suite])
    assert all(one.scores.values == one.old for one in found)
