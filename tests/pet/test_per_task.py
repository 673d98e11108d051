"""Parts that every task has for itself: the right copy runs and learns, and nothing else does."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args, get_type_hints

import pytest
import torch

from pet_bench.errors import UserError
from pet_bench.pet import Bottleneck, Design, Insert, attach, trained_parameters
from pet_bench.registry import METHODS
from tests.pet.minis import FAMILIES, SUITE, batch, built, logits, mini, nudge


def _values(method: type) -> list:
    """What the option `per_task` can be, apart from "none" and False."""
    kind = get_type_hints(method)["per_task"]
    return [True] if kind is bool else [value for value in get_args(kind) if value != "none"]


COPIES = [
    (family, name, value)
    for family in FAMILIES
    for name in METHODS.names()
    if any(field.name == "per_task" for field in fields(METHODS.get(name)))
    for value in _values(METHODS.get(name))
]
copies = pytest.mark.parametrize(("family", "method", "value"), COPIES)


def of_task(model, task: str) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in trained_parameters(model).items() if task in name.split(".")}


@copies
def test_gradients_reach_the_tasks_own_copy(family, method, value):
    model = nudge(mini(family, method, per_task=value))
    model(**batch(family, images=2, task="gqa")).logsumexp(-1).square().sum().backward()
    own = of_task(model, "gqa")
    others = {name for task in SUITE.tasks if task != "gqa" for name in of_task(model, task)}
    assert len(others) == (len(SUITE.tasks) - 1) * len(own) > 0
    assert all(parameter.grad.abs().max() > 0 for parameter in own.values())
    assert {name for name, p in trained_parameters(model).items() if p.grad is None} == others


@copies
def test_a_task_is_the_shared_method_with_its_copy(family, method, value):
    """For each task: its tensors, put into the method without copies, give the same logits."""
    model, shared = nudge(mini(family, method, per_task=value)), nudge(mini(family, method), seed=6)
    found = {}
    for task in SUITE.tasks:
        names = {name.replace(f".of.{task}.", "."): p for name, p in trained_parameters(model).items()}
        with torch.no_grad():
            for name, parameter in trained_parameters(shared).items():
                parameter.copy_(names[name])
        found[task] = logits(model, batch(family, task=task))
        assert torch.equal(found[task], logits(shared, batch(family, task=task)))
    first, *rest = found.values()
    assert all(not torch.equal(first, other) for other in rest)


@copies
def test_half_shared_is_what_it_says(family, method, value):
    model, shared = mini(family, method, per_task=value), mini(family, method)
    own, plain = of_task(model, "vqa"), {name for name, _ in shared.named_parameters() if name.startswith("pet.")}
    names = {name.replace(".of.vqa.", ".") for name in own}
    assert names <= plain
    assert names == {name for name in plain if value not in ("down", "up") or f".{value}." in name}


@copies
def test_unknown_tasks_are_errors(family, method, value):
    model = mini(family, method, per_task=value)
    for task in ("vqqa", None):
        with pytest.raises(UserError, match=f'^task "{task}": the method was built for vqa, gqa, nlvr2, coco-caption$'):
            logits(model, batch(family, task=task))


@copies
def test_copies_need_names_of_tasks(family, method, value):
    model = mini(family)
    with pytest.raises(UserError, match="a part for each task, but no tasks were named"):
        attach(model, built(family, method, per_task=value).design(model.anatomy))


@pytest.mark.parametrize("family", FAMILIES)
def test_hyperformer_tells_tasks_apart_by_their_vectors(family):
    model = nudge(mini(family, "hyperformer"))
    before = {task: logits(model, batch(family, task=task)) for task in SUITE.tasks}
    with torch.no_grad():
        model.pet["shared"]["task_vectors"].vectors["gqa"].add_(1.0)
    changed = {task for task in SUITE.tasks if not torch.equal(before[task], logits(model, batch(family, task=task)))}
    assert changed == {"gqa"}
    with pytest.raises(UserError, match='task "tvqa": the method was built for'):
        logits(model, batch(family, task="tvqa"))


@pytest.mark.parametrize("family", FAMILIES)
def test_shared_parts_without_a_task(family):
    """A method that tells no tasks apart needs no name of one."""
    model = nudge(mini(family, Design((Insert(("encoder.ffn",), Bottleneck(4)),))))
    assert torch.equal(logits(model, batch(family, task=None)), logits(model, batch(family, task="gqa")))


@pytest.mark.parametrize("rank", [None, 1, 3])
@pytest.mark.parametrize("per_task", ["none", "both"])
@pytest.mark.parametrize("family", FAMILIES)
def test_compacters_shared_rule_and_factors(family, per_task, rank):
    """One A for everything, M = Σ_i A_i ⊗ W_i by its definition, W_i of the rank asked for."""
    n, r = 4, 16
    model = nudge(mini(family, "compacter", n=n, bottleneck=r, rank=rank, shared_rule=True, per_task=per_task))
    d = model.anatomy.d
    rules = {name: p for name, p in trained_parameters(model).items() if name.endswith(".A")}
    assert list(rules) == ["pet.shared.phm_rule.A"]
    rule = rules["pet.shared.phm_rule.A"]
    down = model.pet["encoder"]["0"]["ffn"]["0"].delta.down
    layer = down.of["gqa"] if per_task == "both" else down
    factors = list(layer.W)
    assert [tuple(w.shape) for w in factors] == (
        [(n, d // n, r // n)] if rank is None else [(n, d // n, rank), (n, rank, r // n)]
    )
    blocks = [factors[0][i] if rank is None else factors[0][i] @ factors[1][i] for i in range(n)]
    if rank is not None:
        assert all(torch.linalg.matrix_rank(block, tol=1e-5) == min(rank, r // n) for block in blocks)
    matrix = sum(torch.kron(rule[i], blocks[i]) for i in range(n))
    x = torch.randn(5, d)
    torch.testing.assert_close(layer(x), x @ matrix + layer.b)
    model(**batch(family, task="gqa")).logsumexp(-1).square().sum().backward()
    assert rule.grad.abs().max() > 0
