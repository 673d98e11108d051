"""Updates that are compiled: the same within rounding, one graph for each task and shape, or else as without."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from pet_bench.backbone import Reader
from pet_bench.data.batches import Batch, labels_of
from pet_bench.data.reading import read_data
from pet_bench.pet.parts import ask_part
from pet_bench.results import store
from pet_bench.spec import MethodSpec
from pet_bench.trial import compiled, train
from pet_bench.trial.build import Trial
from pet_bench.trial.compiled import Compiled, fixed, unfixed
from pet_bench.trial.resolve import resolve
from pet_bench.trial.run import run_trial
from pet_bench.trial.train import loss_of
from tests.conftest import EVERYTHING, part
from tests.pet.minis import CASES, batch, built, mini, nudge, stock

# what is no one graph, by method, and why
NOT_CAPTURED = {
    "adamix": "which expert is drawn, the host has to know",
    "mixphm": "which expert is drawn, the host has to know",
    "fishmask": "whether what is made of the mask is stale, its version says",
    "pafi": "whether what is made of the mask is stale, its version says",
}
COUNTS = {"compacter+small", "mixphm", "vl-adapter+small", "vl-pet-small"}  # padding
VQA = "mini-image-text/vqa"
SMALL = {"recipe": {"batch_size": 24, "max_steps": 3}}


def a_batch(family) -> Batch:
    tensors = batch(family)
    targets, task = tensors.pop("targets"), tensors.pop("task")
    scores = torch.tensor([0.3, 1.0, 0.6])
    return Batch(task, ("a", "b", "c"), tensors, targets, labels_of(targets), scores, torch.arange(3))


def step(loss, model, doors, batch, reduction="score-weighted"):
    """The loss, penalties included, and all gradients, in one row."""
    torch.manual_seed(7)
    model.zero_grad()
    value = loss(model, batch, reduction, "float32") + sum(ask_part(door, "penalty", model) for door in doors)
    value.backward()
    return value.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def same(one, other):
    torch.testing.assert_close(one[0], other[0], rtol=1e-5, atol=0)
    assert (one[1] - other[1]).norm() < 1e-5 * other[1].norm()


# lengths --------------------------------------------------------------------------------------------------------------


def test_lengths_are_of_a_few_kinds():
    given = a_batch("bart")
    short = replace(given, tensors=given.tensors | {"text": given.tensors["text"][:, :3]})
    for one, text in ((given, 12), (short, 8)):
        padded = fixed(one, 1, text=12, target=6)
        assert padded.tensors["text"].shape == (3, text) and padded.targets.shape == (3, 7)
        width = one.tensors["text"].shape[1]
        assert torch.equal(padded.tensors["text"][:, :width], one.tensors["text"])
        assert (padded.tensors["text"][:, width:] == 1).all()
        flat, n = padded.targets.flatten(), len(one.labels)
        assert torch.equal(flat[padded.labels[:n]], one.targets.flatten()[one.labels])
        assert len(padded.labels) == 12 and n == 10 and (flat[padded.labels[n:]] == -100).all()


@pytest.mark.parametrize(("family", "method"), part(CASES, 10))
def test_padding_changes_nothing_but_where_it_is_said_to(family, method):
    """In evaluation mode: dropout draws otherwise for another shape."""
    model, given = nudge(mini(family, method)), a_batch(family)
    doors = built(family, method).design(model.anatomy).doors
    assert bool(unfixed(model, built(family, method), doors)) == (method in COUNTS)
    if method not in COUNTS:
        for reduction in ("score-weighted", "sample-mean", "token-mean"):
            padded = step(loss_of, model, doors, fixed(given, model.pad, text=14, target=6), reduction)
            same(padded, step(loss_of, model, doors, given, reduction))


def test_what_counts_padding_is_not_compiled():
    for method, why in (("vl-pet-small", "how far a batch is padded"), ("mixphm", "how far a batch is padded")):
        model = mini("t5", method)
        assert why in unfixed(model, built("t5", method), built("t5", method).design(model.anatomy).doors)
    sherl = built("t5", "sherl", distill=0.5)
    model = mini("t5", "sherl", distill=0.5)
    assert unfixed(model, sherl, sherl.design(model.anatomy).doors)


# graphs ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def trial(mini_trial, runtime):
    """Of a method on a mini, as it trains."""

    def make(family="bart", method="lora", **changes):
        spec = resolve(f"mini-{family}", MethodSpec(method), VQA, 0, recipe=SMALL["recipe"])
        model = nudge(mini(family, method)).train()
        doors = built(family, method).design(model.anatomy).doors
        reader = Reader(stock(family)[1])
        return Trial(spec, model, reader, read_data(spec, runtime), torch.device("cpu"), print, doors, **changes)

    return make


@pytest.mark.parametrize(("family", "method"), part(CASES, 3))
def test_a_method_is_one_graph(family, method, trial, monkeypatch):
    """With its backward pass; or is one of those that are not."""
    monkeypatch.setattr(compiled, "unfixed", lambda *_: "")
    trial = trial(family, method)
    captured = Compiled(loss_of, trial, "aot_eager" if EVERYTHING else "eager")
    (task,) = trial.data.tasks
    given = next(trial.batches(task, "train").train_batches(0, 24, 0))
    lengths = [trial.batches(task, "train").texts.lengths.max(), trial.batches(task, "train").targets.lengths.max()]
    padded = fixed(given, trial.model.pad, text=int(lengths[0]), target=int(lengths[1]))
    expected = step(loss_of, trial.model, trial.doors, given if method in NOT_CAPTURED else padded)
    same(step(captured, trial.model, trial.doors, given), expected)
    assert captured.possible == (method not in NOT_CAPTURED)
    assert len(trial.run.notes) == (method in NOT_CAPTURED)
    assert all(note.startswith("not compiled: ") and "\n" not in note for note in trial.run.notes)


def test_a_graph_for_each_shape_of_whole_batches(trial, monkeypatch):
    graphs = []

    def counted(graph, inputs):
        graphs.append(graph)
        return graph.forward

    trial = trial()
    captured = Compiled(loss_of, trial, counted)
    (task,) = trial.data.tasks
    batches = [*trial.batches(task, "train").train_batches(0, 24, 0)]
    assert len(batches[-1]) < 24

    def losses(of):
        return [captured(trial.model, one, "score-weighted", "float32") for one in of]

    losses(batches)
    first = len(captured.shapes)
    assert len(graphs) == first <= 3
    losses(batches)
    assert len(graphs) == first
    monkeypatch.setattr(compiled, "GRAPHS", first)
    longer = replace(batches[0], tensors=batches[0].tensors | {"text": batches[0].tensors["text"].repeat(1, 3)})
    losses([longer])
    assert len(graphs) == first and captured.possible


def test_a_compiled_trial_says_so(mini_trial, runtime, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "Compiled", partial(Compiled, backend="aot_eager"))
    spec = mini_trial("lora", suite=VQA, **SMALL)
    plain = run_trial(spec, runtime)
    result = run_trial(spec, replace(runtime, out=tmp_path / "compiled", compile=True))
    assert result.id == plain.id and result.run.compile and not plain.run.compile
    assert result.run.notes == plain.run.notes == []
    assert "compile" not in plain.model_dump()["run"]
    losses = [[point.loss for point in each.curve] for each in (result, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)  # draws of dropout are others


@pytest.mark.parametrize("fault", ["no compiler", "vl-pet-small", "a model fed with pixels"])
def test_what_cannot_be_compiled_is_as_without(fault, mini_trial, runtime, tmp_path, monkeypatch):
    """To the bit, with one line."""

    def broken(graph, inputs):
        raise RuntimeError("no compiler is there\nat all")

    monkeypatch.setattr(train, "Compiled", partial(Compiled, backend=broken))
    method = fault if fault.startswith("vl") else "lora"
    spec = mini_trial(method, "mini-llava" if "pixels" in fault else "mini-bart", VQA, **SMALL)
    result = run_trial(spec, replace(runtime, compile=True))
    expected = run_trial(spec, replace(runtime, out=tmp_path / "plain"))
    (note,) = result.run.notes
    assert note.startswith("not compiled: ") and {"n": "no compiler", "v": "padded", "a": "fed with"}[fault[0]] in note
    assert store.difference(result, expected) == ""
