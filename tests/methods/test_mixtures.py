"""What is special about mixtures: draws, what is folded, losses that read a pass, routers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pet_bench.errors import UserError
from pet_bench.methods.mixphm import first, mutual_information, redundancy
from pet_bench.methods.moe_adapter import RoutedModule
from pet_bench.pet.experts import DrawnExperts
from pet_bench.spec import MethodSpec
from pet_bench.trial.count import count_parameters
from pet_bench.trial.run import run_trial
from tests.conftest import part
from tests.pet.minis import FAMILIES, SUITE, batch, built, logits, mini, nudge
from tests.trial.conftest import cache, mini_trial, runtime, world  # noqa: F401  fixtures
from tests.trial.test_checkpoint import assert_equal, run_with_interrupts

families = pytest.mark.parametrize("family", FAMILIES)


def doors(family: str, method: str, **options):
    model = nudge(mini(family, method, **options)).train()
    return model, built(family, method, **options).design(model.anatomy).doors


# draws ---------------------------------------------------------------------------------------------------------------


def test_a_draw_is_torchs_own_and_of_all_experts():
    experts, x = DrawnExperts(lambda: nn.Linear(3, 3), 4), torch.randn(2, 3)
    for expert in experts.experts:
        nn.init.normal_(expert.weight)
    gives = [expert(x) for expert in experts.experts]
    torch.manual_seed(3)
    state, drawn = torch.get_rng_state(), [experts(x) for _ in range(40)]
    torch.set_rng_state(state)
    assert all(torch.equal(one, experts(x)) for one in drawn)
    assert {i for one in drawn for i in range(4) if torch.equal(one, gives[i])} == {0, 1, 2, 3}


@families
@pytest.mark.parametrize("method", ["mixphm", "adamix"])
def test_what_is_not_drawn_has_no_gradient(family, method):
    model = nudge(mini(family, method)).train()
    model(**batch(family)).sum().backward()
    mixtures = [module for module in model.modules() if isinstance(module, DrawnExperts)]
    assert {len(mixture.experts) for mixture in mixtures} == ({1, 4} if method == "mixphm" else {4})
    for mixture in mixtures:
        reached = [{parameter.grad is not None for parameter in each.parameters()} for each in mixture.experts]
        assert sorted(reached, key=str) == [{False}] * (len(mixture.experts) - 1) + [{True}]


@pytest.mark.parametrize(("inference", "each"), [("outputs", 0), ("sample", 1), ("token", 5)])
def test_other_evaluations(inference, each):
    samples, tokens = 40, 5  # so many that draws all alike are no luck
    experts, x = DrawnExperts(lambda: nn.Linear(3, 4), 6, inference).eval(), torch.randn(samples, tokens, 3)
    for expert in experts.experts:
        nn.init.normal_(expert.weight)
    y, gives = experts(x), torch.stack([expert(x) for expert in experts.experts])
    if not each:
        torch.testing.assert_close(y, gives.mean(0))
        return
    which = (gives - y).abs().sum(-1).argmin(0)
    assert torch.equal(gives.gather(0, which[None, ..., None].expand(1, samples, tokens, 4))[0], y)
    assert torch.equal(which, which[:, :each].expand(samples, tokens)) and len(which.unique()) > 1


def test_mixphm_has_as_many_parameters_as_published():
    counts = count_parameters("t5-base", MethodSpec("mixphm"), "image-text")
    assert counts["trainable"] - counts["groups"]["visual"] == 874_048  # METHODS_B 5.1


# MixPHM's losses -----------------------------------------------------------------------------------------------------


def test_the_losses_by_hand():
    z, h, c = torch.randn(2, 3, 4), torch.randn(2, 3, 4), torch.randn(2, 4)
    mask = torch.tensor([[True, False, True], [True, True, True]])
    rows = [(b, t) for b in range(2) for t in range(3) if t < mask[b].sum()]
    assert [tuple(row) for row in first(mask).nonzero().tolist()] == rows
    C = sum(torch.outer(z[b, t] / z[b, t].norm(), h[b, t] / h[b, t].norm()) for b, t in rows)
    expected = 0.0039 / 2 * sum(C[i, j] ** 2 for i in range(4) for j in range(4) if i != j)
    torch.testing.assert_close(redundancy(z, h, first(mask)), expected)
    expected = 0.0
    for b, t in rows:
        for other in range(2):
            score = z[b, t] @ c[other]
            if b == other:
                expected -= (math.log(2) - F.softplus(-score)) / len(rows)
            else:
                expected += (F.softplus(-score) + score - math.log(2)) / len(rows)
    torch.testing.assert_close(mutual_information(z, c, first(mask)), expected)
    assert mutual_information(z[:1], c[:1], mask[:1]).isfinite()


@families
@pytest.mark.parametrize("tokens", ["first", "unmasked"])
def test_the_door_reads_the_pass_that_was(family, tokens):
    model, (door,) = doors(family, "mixphm", tokens=tokens, dropout=0.0)
    given = batch(family)
    model(**given)
    told = dict(model.pet["redundancy"].by)
    assert {key for key in told if isinstance(key, str)} == {"encoder", "decoder"}
    mask, parts = model.context.mask, []
    for stack in ("encoder", "decoder"):
        pooled, of = told[stack].mean(1), [value for key, value in told.items() if key[0] == stack]
        there = torch.ones(told[stack].shape[:2], dtype=torch.bool)
        if stack == "encoder":
            there = mask if tokens == "unmasked" else first(mask)
        each = [(redundancy(z, h, there), mutual_information(z, pooled, there)) for h, z in of]
        assert len(each) == 2
        parts += [0.1 * sum(red for red, _ in each) / 2, 0.02 * sum(mi for _, mi in each) / 2]
    penalty = door.penalty(model)
    torch.testing.assert_close(penalty, sum(parts))
    penalty.backward()
    assert door.penalty(model) == 0.0  # it has been taken
    model.eval()(**given)
    assert not model.pet["redundancy"].by


# gates and routers ---------------------------------------------------------------------------------------------------


@families
def test_a_gate_takes_one_expert_a_position(family):
    """Its loss is 1 where probabilities and choices are even, and as many as there are experts where one takes all."""
    model, (*_, door) = doors(family, "mixphm", gate=True, shared="none", redundancy=0.0, information=0.0)
    gates = [module for name, module in model.named_modules() if name.endswith(".gate")]
    with torch.no_grad():
        for gate in gates:
            gate.weight.zero_()
    model(**batch(family))
    assert len(gates) == 8
    assert door.penalty(model).item() == pytest.approx(8.0)  # e Σ P f, P = 1/4 and all f at the first
    model(**batch(family))
    door.penalty(model).backward()
    assert all(gate.weight.grad is not None for gate in gates)


def test_experts_that_are_whole_adapters():
    """With a gate H' = p (H + E(H)), without one that of the adapter drawn."""
    h = torch.randn(2, 5, 64)
    for gate in (True, False):
        model = nudge(mini("bart", "mixphm", whole=True, gate=gate, dropout=0.0))
        mixture = model.pet["encoder"]["0"]["ffn"]["0"].delta
        gives = torch.stack([expert(h) for expert in mixture.experts])
        if gate:
            p, which = mixture.gate(h).softmax(-1).max(-1)
            taken = gives.gather(0, which[None, ..., None].expand(1, -1, -1, 64))[0]
            torch.testing.assert_close(h + mixture(h), p[..., None] * (h + taken))
        else:
            y = mixture.train()(h)
            assert [torch.equal(y, one) for one in gives].count(True) == 1


@families
def test_the_balance_of_routers(family):
    model, (door,) = doors(family, "moe-adapter", experts=5, top_k=2, balance=0.01)
    model(**batch(family))
    even = door.penalty(model)
    assert even > 0
    even.backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached and all(".router.of.vqa." in name or "visual." in name or ".experts." in name for name in reached)
    assert not doors(family, "moe-adapter")[1]


@families
def test_routers_by_task_and_all_alike_for_a_sample(family):
    model = nudge(mini(family, "moe-adapter", experts=5, top_k=2), seed=2)
    seen = []
    for module in model.modules():
        if isinstance(module, RoutedModule):
            route = module.route
            module.route = lambda pooled, route=route: seen.append(route(pooled)[0]) or route(pooled)
    vqa, gqa = (logits(model, batch(family, task=task)) for task in ("vqa", "gqa"))
    assert not torch.allclose(vqa, gqa)
    assert all(gates.shape == (3, 5) and ((gates > 0).sum(1) == 2).all() for gates in seen)
    torch.testing.assert_close(seen[0].sum(1), torch.ones(3))


def test_a_decoder_only_router_reads_the_prompt_alone():
    from tests.vlms.attached import attached
    from tests.vlms.attached import batch as talk

    model = nudge(attached("llama", "moe-adapter"))
    inputs, targets = talk("llama")
    (mixture, *_) = [module for module in model.modules() if isinstance(module, RoutedModule)]
    seen = []
    mixture.prompt.register_forward_hook(lambda module, args, pooled: seen.append(pooled))
    model.logits(inputs, targets)
    model.logits(inputs, targets.flip(1).clamp(min=5))
    torch.testing.assert_close(*seen)
    model.generate(inputs, num_beams=3, max_length=6)
    assert len(seen) > 4
    for pooled in seen[2:]:
        torch.testing.assert_close(pooled, seen[0].repeat_interleave(3, 0))


def test_the_most_used_experts_freeze_after_a_task():
    model, (door,) = doors("bart", "moe-adapter", experts=5, top_k=2, freeze=2)
    mixtures = [module for module in model.modules() if isinstance(module, RoutedModule)]
    counts = [torch.zeros(5) for _ in mixtures]
    for i, mixture in enumerate(mixtures):
        route = mixture.route

        def counted(pooled, i=i, route=route):
            gates, load = route(pooled)
            counts[i] += (gates > 0).sum(0)
            return gates, load

        mixture.route = counted
    for _ in range(3):
        model(**batch("bart", task="vqa"))
    assert all(p.requires_grad for mixture in mixtures for p in mixture.parameters())
    used = [set(each.topk(2).indices.tolist()) for each in counts]
    state = door.state(model)
    model(**batch("bart", task="gqa"))
    for mixture, frozen in zip(mixtures, used, strict=True):
        for e, expert in enumerate(mixture.experts):
            assert {p.requires_grad for p in expert.parameters()} == {e not in frozen}
        assert all(p.requires_grad for p in mixture.router.parameters())
    with pytest.raises(UserError, match='"vqa" is back: experts freeze after a task'):
        model(**batch("bart", task="vqa"))
    door.restore(model, state)
    assert all(p.requires_grad for p in model.pet.parameters())


# training ------------------------------------------------------------------------------------------------------------


INTERRUPTED = {
    "mixphm": ("mixphm", "vqa", {"max_steps": 6}),
    "adamix": ("adamix", "vqa", {"max_steps": 6}),
    "mixphm-gate": ({"name": "mixphm", "gate": True, "shared": "none"}, "vqa", {"max_steps": 6}),
    "moe-adapter": ({"name": "moe-adapter", "experts": 4, "top_k": 2, "balance": 0.01}, "vqa", {"max_steps": 6}),
    "moe-adapter-freeze": (
        {"name": "moe-adapter", "experts": 6, "freeze": 2}, "nlvr2+gqa", {"max_steps": None, "epochs": 2},
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("method", "tasks", "recipe"), [pytest.param(*INTERRUPTED[name], id=name) for name in part([*INTERRUPTED], 2)]
)
def test_interrupted_it_ends_as_it_would_have(method, tasks, recipe, mini_trial, runtime, tmp_path):  # noqa: F811
    if recipe["max_steps"] is None:
        recipe = recipe | {"task_order": "sequence"}
    spec = mini_trial(method, "mini-bart", suite=f"{SUITE.name}/{tasks}", recipe=recipe)
    expected = run_trial(spec, replace(runtime, out=tmp_path / "whole"))
    ours, steps = replace(runtime, out=tmp_path / "parts"), expected.cost.steps
    result, _ = run_with_interrupts(spec, ours, (2, "update"), (steps - 1, "update"))
    assert_equal(expected, tmp_path / "whole", result, ours.out)
