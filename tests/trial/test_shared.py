"""What trials read alike: once, and the same in another process."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pet_bench.backbone import find_backbone
from pet_bench.backbone.loading import read_stock
from pet_bench.data.store import FeatureStore
from pet_bench.spec import MethodSpec
from pet_bench.trial import shared as module
from pet_bench.trial.count import count_parameters
from pet_bench.trial.run import run_trial
from pet_bench.trial.shared import Shared
from tests.backbone.checkpoints import write


@pytest.fixture
def reads(monkeypatch):
    """What was read, in order."""
    log, read_data, read_stock = [], module.read_data, module.read_stock

    def data(spec, *rest, **named):
        log.append(spec.suite)
        return read_data(spec, *rest, **named)

    def stock(backbone):
        log.append(backbone.name)
        return read_stock(backbone)

    monkeypatch.setattr(module, "read_data", data)
    monkeypatch.setattr(module, "read_stock", stock)
    return log


def handed_over(value):
    """As a worker of Ray gets it: arrays apart from the rest, and none of them to be written to."""
    buffers = []
    rest = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(rest, buffers=[memoryview(bytes(buffer.raw())) for buffer in buffers])


def test_data_and_backbones_are_read_once_each(mini_trial, runtime, reads):
    vqa, gqa = "mini-image-text/vqa", "mini-image-text/gqa"
    shared = Shared()
    for suite, seed in ((vqa, 0), (gqa, 0), (vqa, 1)):
        spec = mini_trial(suite=suite, seed=seed)
        shared.data(spec, runtime)
        shared.stock(spec)
    assert reads == [vqa, "mini-bart", gqa]
    other = mini_trial(suite=vqa, protocol={"vqa": {"prompt": ""}})
    assert {example.text[:3] for example in shared.data(other, runtime).examples["vqa"]["test"]} != {"vqa"}
    assert reads == [vqa, "mini-bart", gqa, vqa]
    assert [key.split()[0] for key in shared.kept].count("data") == 2


def test_another_process_reads_nothing(mini_trial, runtime, reads):
    spec, here = mini_trial(suite="mini-image-text/vqa"), Shared()
    data, stock = here.data(spec, runtime), here.stock(spec)
    there = Shared(get=lambda key: handed_over(here.kept[key]))
    found = there.data(spec, runtime)
    assert (found.examples, found.fingerprint) == (data.examples, data.fingerprint)
    assert found.store.folder == data.store.folder
    assert there.stock(spec).copy()[0].state_dict().keys() == stock.lm.state_dict().keys()
    assert reads == ["mini-image-text/vqa", "mini-bart"]
    assert Shared(get=here.kept.__getitem__).data(mini_trial(suite="mini-image-text/gqa"), runtime).examples["gqa"]
    assert reads[2:] == ["mini-image-text/gqa"]  # which nobody had read


def test_a_node_without_the_packed_features_packs_its_own(mini_trial, runtime, reads, tmp_path, monkeypatch):
    spec, here = mini_trial(suite="mini-image-text/vqa"), Shared()
    data = here.data(spec, runtime)
    monkeypatch.setenv("PET_BENCH_CACHE", str(tmp_path / "cache of the node"))
    there = Shared(get=lambda key: replace(here.kept[key], store=None))
    found = there.data(spec, runtime)
    assert reads == ["mini-image-text/vqa"]
    assert found.store.folder.is_relative_to(tmp_path)
    assert found.store.fingerprint == data.store.fingerprint
    monkeypatch.setattr(FeatureStore, "pack", None)
    assert there.data(spec, runtime).store is found.store


@pytest.mark.parametrize("name", ["mini-bart", "mini-t5"])
def test_a_stock_backbone_arrives_as_it_was_sent(name):
    stock = read_stock(find_backbone(name))
    lm, tokenizer = (arrived := handed_over(stock)).copy()
    expected, found = stock.lm.state_dict(), lm.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert not (lm.training or arrived.lm.training)
    assert lm.generation_config == stock.lm.generation_config
    assert lm.config.to_dict() == stock.lm.config.to_dict()
    assert tokenizer.get_vocab() == stock.tokenizer.get_vocab()
    assert lm.get_input_embeddings().weight is lm.get_output_embeddings().weight
    assert [*dict(lm.named_parameters())] == [*dict(stock.lm.named_parameters())]
    size = sum(tensor.nbytes for tensor in {p.data_ptr(): p for p in expected.values()}.values())
    buffers = []
    pickle.dumps(stock, protocol=5, buffer_callback=buffers.append)
    assert sum(np.frombuffer(buffer.raw(), np.uint8).size for buffer in buffers) == size  # tied weights once
    before = handed_over(stock).lm.get_input_embeddings().weight.clone()
    with torch.no_grad():
        lm.get_input_embeddings().weight.zero_()  # a copy is the trial's own
    assert torch.equal(arrived.lm.get_input_embeddings().weight, before)


@pytest.mark.parametrize("kind", ["t5 gated own head", "bart own head"])
def test_a_trial_is_the_same_inline_and_in_a_worker(kind, mini_trial, runtime, tmp_path):
    """Losses, predictions and counts, of a trial that trains every weight."""
    folder = write(tmp_path / "checkpoint", kind, grown=False)
    spec = mini_trial("full", str(folder), suite="mini-image-text/nlvr2", recipe={"max_steps": 3})
    here = Shared()
    results = [
        run_trial(spec, replace(runtime, out=tmp_path / where), shared=shared)
        for where, shared in (("inline", here), ("worker", Shared(get=lambda key: handed_over(here.kept[key]))))
    ]
    inline, worker = (r.model_dump(include={"curve", "metrics", "parameters", "average"}) for r in results)
    for found in (inline, worker):
        for point in found["curve"]:
            point.pop("seconds", None)
    assert inline == worker
    meta = count_parameters(spec.backbone, MethodSpec("full"), spec.suite)
    assert (results[0].parameters.trainable, results[0].parameters.total) == (meta["trainable"], meta["total"])
    files = [load_file(tmp_path / where / spec.id / "adapter.safetensors") for where in ("inline", "worker")]
    assert files[0].keys() == files[1].keys() and all(torch.equal(files[0][key], files[1][key]) for key in files[0])
    assert "lm.lm_head.weight" in files[0]
