"""A trial in several processes is that of one."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pet_bench.backbone import find_backbone
from pet_bench.errors import Stop, UserError
from pet_bench.grid.execute.place import check_place
from pet_bench.grid.plan.spec import Resources
from pet_bench.pet import build_method
from pet_bench.pet.method import why_skipped
from pet_bench.registry import METHODS
from pet_bench.results.predictions import name as file_of
from pet_bench.spec import MethodSpec
from pet_bench.trial import ranks, train
from pet_bench.trial.build import build_trial
from pet_bench.trial.divided import check_divided, check_ranks
from pet_bench.trial.ranks import Ranks, together
from pet_bench.trial.run import run_trial
from pet_bench.trial.shared import Shared
from pet_bench.trial.train import Training
from tests.conftest import part

pytestmark = pytest.mark.xdist_group("ranks")
LORA = {"name": "lora", "dropout": 0.0}
VQA = {"suite": "mini-image-text/vqa"}
RELATIVE = 1e-5  # of a gradient's norm, to which float32 adds up a batch's rows in another order


def options(**recipe):
    return {"suite": "mini-image-text/vqa+coco-caption", "recipe": {"max_steps": 4, "batch_size": 7, **recipe}}


@pytest.fixture
def gradients(monkeypatch):
    """Of this process's updates, as they are before they are clipped, each as one vector."""
    kept: list[Tensor] = []

    def keep(parameters, clip):
        kept.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))
        return clip_grad_norm_(parameters, clip)

    clip_grad_norm_ = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(train.torch.nn.utils, "clip_grad_norm_", keep)
    return kept


def assert_alike(spec, more, one, ours, theirs, relative=RELATIVE):
    """Counts, losses and predictions of two runs, and of their first updates the gradient.

    Not the tensors after several: a gradient that is zero but for rounding, as of a key's bias, which softmax does not
    see, is made as large as any other by m / (√v + eps), so that its tensor has no digit that means anything.
    """
    assert (more.result.status, more.result.parameters, more.result.average, more.result.metrics) == (
        one.result.status, one.result.parameters, one.result.average, one.result.metrics
    )  # fmt: skip
    assert more.result.cost.steps == one.result.cost.steps
    assert len(ours) == len(theirs) == one.result.cost.steps
    assert (ours[0] - theirs[0]).norm() <= relative * theirs[0].norm()
    for a, b in zip(more.result.curve, one.result.curve, strict=True):
        assert (a.split, a.task, a.step, a.epoch, a.metrics) == (b.split, b.task, b.step, b.epoch, b.metrics)
        assert b.loss is None or a.loss == pytest.approx(b.loss, rel=10 * relative)
    for task in spec.tasks:
        same = more.predictions(task) == one.predictions(task)
        assert same, task  # said by itself: pytest would show how the bytes of two archives differ
    assert more.examples == one.examples


@dataclass
class Ran:
    """What a trial came to, and how many examples it has seen."""

    spec: Any
    runtime: Any
    result: Any
    examples: int

    def predictions(self, task):
        return (self.runtime.out / file_of(self.spec.id, task)).read_bytes()


@pytest.fixture
def ran(gradients):
    def run(spec, runtime, **changes):
        runtime = replace(runtime, **changes)
        gradients.clear()
        result = run_trial(spec, runtime)
        examples = round(result.cost.examples_per_second * result.cost.train_seconds)
        return Ran(spec, runtime, result, examples), list(gradients)

    return run


@pytest.mark.parametrize(
    ("method", "count", "changes"),
    part(
        [
            ("hyperformer", 3, options(batch_size=61)),
            (LORA, 2, options(batch_size=150, max_steps=6, epochs=2, valid_every=1, selection="best") | VQA),
        ],
        1,
    ),
)
def test_two_are_one(method, count, changes, mini_trial, runtime, ran):
    """Parts of a batch count by their words or rows; of validations all processes take the same for the best."""
    spec = mini_trial(method, **changes)
    one, theirs = ran(spec, runtime)
    more, ours = ran(spec, runtime, out=runtime.out / "several", ranks=count)
    assert_alike(spec, more, one, ours, theirs)
    assert more.result.selected == one.result.selected


HALVES = {"precision": "bfloat16", "frozen": "bfloat16"}


@pytest.mark.parametrize(
    ("backbone", "recipe", "relative"),
    part([(name, {}, RELATIVE) for name in ("mini-bart", "mini-t5", "mini-llama")] + [("mini-bart", HALVES, 2**-8)], 1),
    ids=str,
)
def test_frozen_weights_in_parts(backbone, recipe, relative, mini_trial, runtime, ran):
    """As whole ones; in a layer of two types too, whose activations are computed again. The last batch has one row, so
    that one process has none, and what is saved of frozen tensors is whole."""
    spec = mini_trial(LORA, backbone, **options(batch_size=337, max_steps=6, **recipe))
    whole, theirs = ran(spec, runtime, ranks=2)
    changed = {"shard": True, "gradient_checkpointing": bool(recipe)}
    parts, ours = ran(spec, runtime, out=runtime.out / "parts", ranks=2, **changed)
    assert_alike(spec, parts, whole, ours, theirs, relative)
    ours, theirs = (
        {file.name: load_file(file) for file in (run.runtime.out / spec.id).glob("*.safetensors")}
        for run in (parts, whole)
    )
    assert {name: [*kept] for name, kept in ours.items()} == {name: [*kept] for name, kept in theirs.items()}
    for name, tensor in theirs.get("frozen.safetensors", {}).items():
        assert torch.equal(ours["frozen.safetensors"][name], tensor)


@pytest.mark.parametrize("shard", part([False, True], 1))
def test_what_interrupts_it_changes_no_bit(shard, mini_trial, runtime, monkeypatch):
    """A process that is lost, which is named, and a stop; dropout and all, as each update draws from its own seed."""
    spec, started = mini_trial({"name": "lora", "dropout": 0.3}, **options(batch_size=31) | VQA), []
    popen = ranks.subprocess.Popen

    def noted(*arguments, **more):
        started.append(popen(*arguments, **more))
        return started[-1]

    def kill(progress):
        if progress.phase == "train" and progress.step == 2:
            os.kill(started[0].pid, signal.SIGKILL)

    def stop(progress):
        if progress.phase == "train" and progress.step == 3:
            raise Stop

    runtime = replace(runtime, ranks=2, checkpoint_steps=1, shard=shard)
    expected = run_trial(spec, replace(runtime, out=runtime.out / "whole"))
    monkeypatch.setattr(ranks.subprocess, "Popen", noted)
    with pytest.raises(RuntimeError, match=r"lost process 1 \(-9\) of 2 of the trial"):
        run_trial(spec, runtime, kill)
    with pytest.raises(Stop):
        run_trial(spec, runtime, stop)
    result = run_trial(spec, runtime)
    assert result.run.resumed == [2, 3]
    assert (result.status, result.metrics, result.curve) == (expected.status, expected.metrics, expected.curve)
    whole = load_file(runtime.out / "whole" / spec.id / "adapter.safetensors")
    for name, tensor in load_file(runtime.out / spec.id / "adapter.safetensors").items():
        assert torch.equal(tensor, whole[name]), name


def test_each_may_have_other_gradients(monkeypatch):
    """As where each has drawn another expert; what none has stays without one."""
    sent: list[Tensor] = []

    def exchange(flat):
        sent.append(flat.clone())
        flat.copy_(sum(sent))

    monkeypatch.setattr(ranks.dist, "all_reduce", exchange)
    for rank in range(2):
        three = [torch.nn.Parameter(torch.zeros(2, 2)) for _ in range(3)]
        three[rank].grad = torch.full((2, 2), rank + 1.0)
        loss = torch.tensor(0.25, dtype=torch.float64)
        Ranks(rank, 2).add_up(three, loss)
    assert [p.grad is not None for p in three] == [True, True, False]
    assert [p.grad[0, 0].item() for p in three[:2]] == [1.0, 2.0]
    assert loss == 0.5


def test_who_cannot_begin_is_not_waited_for(mini_trial, runtime):
    spec = mini_trial("lora")
    with (
        pytest.raises(RuntimeError, match="lost process 1"),
        together(spec, replace(runtime, ranks=2, plugins=("nowhere.py",))),
    ):
        pytest.fail("it began")


# one process by turns -------------------------------------------------------------------------------------------------


class Exchanged(Exception):
    """What a process would now add to the others'."""


@dataclass(frozen=True)
class Turn(Ranks):
    """One of several processes, in this one. Experts are drawn alike; `seed` is what makes them differ."""

    own: list = field(default_factory=list)

    def seed(self, trial, step):
        torch.manual_seed(step)

    def add_up(self, parameters, loss):
        self.own.append([loss.clone(), *(torch.zeros_like(p) if p.grad is None else p.grad for p in parameters)])
        raise Exchanged


@pytest.fixture(scope="module")
def shared():
    return Shared(most=8)


@pytest.fixture
def nothing_is_drawn(monkeypatch):
    """No dropout; a router's noise is 1, what Poly draws of an example is its middle."""
    rand = torch.rand
    monkeypatch.setattr(torch, "rand", lambda *shape, **more: rand(*shape, **more).fill_(0.5))
    monkeypatch.setattr(torch.nn.functional, "dropout", lambda x, *arguments, **more: x)
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)


def summed(training, batch, turns):
    """The loss and the gradients of a batch, added up over these turns."""
    for training.trial.ranks in turns:
        with pytest.raises(Exchanged):
            training.update(batch)
        training.optimizer.zero_grad(set_to_none=True)
    return [sum(parts) for parts in zip(*(parts for turn in turns for parts in turn.own), strict=True)]


@cache
def methods():
    anatomy = find_backbone("mini-bart").anatomy
    names = [*METHODS.names(), *(f"peft:{name}" for name in ("adalora", "boft", "hra", "oft", "poly", "vera"))]
    return [name for name in dict.fromkeys(names) if not why_skipped(build_method(MethodSpec(name), anatomy), anatomy)]


AS_WHOLES = [
    ("mixphm", 'door "redundancy"'),
    ({"name": "mixphm", "redundancy": 0.0, "information": 0.0, "gate": True}, 'door "expert-balance"'),
    ({"name": "moe-adapter", "balance": 0.01}, 'door "expert-balance"'),
    ({"name": "moe-adapter", "freeze": 1}, 'door "activate-freeze"'),
    ({"name": "prompt-pool", "pool": 4, "batchwise": True}, 'door "prompt-pool"'),
]
CHOSEN = [
    {"name": "mixphm", "redundancy": 0.0, "information": 0.0},
    {"name": "moe-adapter", "experts": 4},
    {"name": "prompt-pool", "pool": 4, "top_k": 2, "fine": "key"},
    {"name": "vl-pet-small", "gate_padding": "counted"},
    {"name": "peft:adalora", "orth_reg_weight": 5.0},
]
DIVIDED = [*part([name for name in methods() if name != "mixphm"], 8), *part(CHOSEN, 2)]


@pytest.mark.parametrize("method", DIVIDED, ids=str)
def test_shares_add_up_to_the_whole_batch(method, mini_trial, runtime, shared, nothing_is_drawn):
    """Gradient and loss, penalties too, of one, two and three processes, whose losses are by rows and by words."""
    spec = mini_trial(method, **options())
    check_divided([spec], replace(runtime, ranks=2))
    training = Training(build_trial(spec, runtime, shared=shared))
    with torch.no_grad():
        for parameter in training.trained.values():  # away from where a gradient is zero by symmetry
            parameter.add_(0.05 * torch.randn_like(parameter))
    training.begin()
    batches = {batch.task: batch for batch in islice(training.joint.epoch(0), 12)}
    assert batches.keys() == {*spec.tasks}
    for batch in batches.values():
        loss, *whole = summed(training, batch, [Turn()])
        norm = torch.cat([gradient.flatten() for gradient in whole]).norm()
        assert norm > 0
        for count in (2, 3):
            other, *gradients = summed(training, batch, [Turn(rank, count) for rank in range(count)])
            assert other.item() == pytest.approx(loss.item(), rel=RELATIVE)
            for name, ours, theirs in zip(training.trained, gradients, whole, strict=True):
                assert (ours - theirs).norm() <= RELATIVE * norm, name


@pytest.mark.parametrize(("method", "said"), AS_WHOLES)
def test_what_looks_at_a_whole_batch_is_refused(method, said, mini_trial, runtime):
    spec = mini_trial(method, **options())
    runtime = replace(runtime, ranks=2)
    for refused in (lambda: check_divided([spec, spec], runtime), lambda: run_trial(spec, runtime)):
        with pytest.raises(UserError, match=r"looks at a batch as a whole, which 2 ranks divide") as error:
            refused()
        (line,) = error.value.faults
        assert line.startswith(f"{spec.label} on mini-bart: the {said}")
    assert not runtime.out.exists()
    check_divided([spec], replace(runtime, ranks=1))


@pytest.mark.parametrize(
    ("method", "said"),
    [("dora", "reads the weights themselves"), ("full", "every layer trains"), ("lora", "it has one")],
)
def test_what_cannot_be_in_parts_is_refused(method, said, mini_trial, runtime):
    runtime = replace(runtime, shard=True, ranks=1 if method == "lora" else 2)
    with pytest.raises(UserError, match=said):
        run_trial(mini_trial(method), runtime)
    assert not runtime.out.exists()


def test_more_gpus_than_there_are(runtime, monkeypatch):
    for name, value in (("is_available", True), ("device_count", 2)):
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    for device in ("auto", "cuda"):
        check_ranks(replace(runtime, device=device, ranks=2))
        with pytest.raises(UserError, match=r"a trial asks for 3 gpus, this machine has 2$"):
            check_ranks(replace(runtime, device=device, ranks=3))
    with pytest.raises(UserError, match=r"a trial asks for 2 gpus, this machine has 1$"):
        check_ranks(replace(runtime, device="cuda:1", ranks=2))
    check_place(Resources(gpus=2), replace(runtime, device="auto"), "inline")
    with pytest.raises(UserError, match=r"a trial asks for 3 gpus, this machine has 2$"):
        check_place(Resources(gpus=3), replace(runtime, device="auto"), "inline")


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_every_row_is_somebodys(count, mini_trial, runtime, shared):
    """Of weights in parts each has as many parts as the others."""
    training = Training(build_trial(mini_trial("lora", **options()), runtime, shared=shared))
    batch = next(training.joint.epoch(0))
    for parts in (1, 3):
        everybody = [[*Ranks(rank, count, sharded=True).parts(batch, parts)] for rank in range(count)]
        assert len({len(own) for own in everybody}) == 1
        assert [id for own in everybody for one, counts in own if counts for id in one.ids] == list(batch.ids)
        assert all(counts for rank in range(count) for _, counts in Ranks(rank, count).parts(batch, parts))
