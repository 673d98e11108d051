"""Soups of trials: what is averaged, what is refused, and what they are compared with, from the command line."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import yaml

from pet_bench.cli import main
from pet_bench.errors import UserError
from pet_bench.pet import trained_parameters
from pet_bench.pet.average import MeanOf, Parts, differing
from pet_bench.pet.inserted import Inserted
from pet_bench.results import evaluations, store
from pet_bench.results import predictions as saved
from pet_bench.results.soups import Soup
from pet_bench.trial.loaded import untrained
from pet_bench.trial.soup import averaged, check_start, members_of, read_member
from tests.trial.test_loaded import uncollected  # noqa: F401  of this module too

SHORT = {"lr": 1e-2, "max_steps": 4, "batch_size": 24, "valid_every": 0}
TEST = {"vqa": {"test": "karpathy_test[:25%]"}}
GRID = {
    "name": "soups",
    "suites": ["mini-image-text/vqa+nlvr2"],
    "backbones": ["mini-bart"],
    "methods": ["lora"],
    "seeds": [0, 1, 2],
    "recipe": SHORT | {"init_seed": 0, "data_order": "seeded"},
    "protocol": TEST,
    "also": [
        {
            "suites": ["mini-image-text/vqa"],
            "backbones": ["mini-bart"],
            "methods": [{"name": "lora", "rank": 2}],
            "seeds": [0, 1],
            "recipe": SHORT,
            "protocol": {"vqa": TEST["vqa"] | {"valid": "karpathy_test"}},
        }
    ],
}


def call(*arguments):
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return caught.value.code or 0


@pytest.fixture(scope="module")
def grid(world, tmp_path_factory):
    """A grid that has run: its file, the folder of its results and where its data are."""
    folder = tmp_path_factory.mktemp("soups")
    (file := folder / "soups.yaml").write_text(yaml.safe_dump(GRID))
    assert call("run", file, "--data", world, "--out", folder / "out", "--executor", "inline") == 0
    return file, folder / "out", world


@pytest.fixture(scope="module")
def lora(grid):
    """The members of its soup."""
    _, out, world = grid
    results = members_of(store.load_all(out), "lora")
    return [read_member(out / f"{result.id}.json", data=world) for result in results]


def test_with_an_initial_seed_trials_start_alike_and_go_on_differently(lora):
    starts = [untrained(member.trial.spec)[0] for member in lora]
    assert not differing(Parts.of(starts[0]).tensors, Parts.of(starts[1]).tensors)
    assert differing(lora[0].parts.tensors, lora[1].parts.tensors)
    assert len({member.trial.spec.id for member in lora}) == 3
    assert check_start([member.trial.spec for member in lora])


def answers(trial):
    return {task: trial.predict_test(task) for task in trial.spec.tasks}


def test_the_soup_of_one_trial_or_of_equal_ones_is_the_trial(lora):
    own = answers(lora[0].trial)
    assert answers(averaged(lora[:1])) == answers(averaged([lora[0], lora[0]])) == own


def test_of_lora_the_soup_has_the_mean_update_and_else_mean_parameters(lora):
    soup, models = averaged(lora).model, [member.trial.model for member in lora]
    found = 0
    for path, module in soup.named_modules():
        if isinstance(module, Inserted) and isinstance(module.delta, MeanOf):
            own = [model.get_submodule(path).delta for model in models]
            factor = own[0].spec.alpha / own[0].spec.rank
            updates = [factor * one.B @ one.A for one in own]
            expected = sum(updates) / len(own)
            torch.testing.assert_close(module.delta.weight(), expected, atol=1e-7, rtol=1e-5)
            of_factors = factor * sum(one.B for one in own) / 3 @ (sum(one.A for one in own) / 3)
            found += not torch.allclose(of_factors, expected, atol=1e-5)
    assert found > 4
    trained, others = trained_parameters(soup), [trained_parameters(model) for model in models]
    names = [name for name in trained if ".delta." not in name]
    assert any("visual" in name for name in names)
    for name in names:
        torch.testing.assert_close(trained[name], sum(other[name] for other in others) / 3, atol=1e-7, rtol=1e-5)
    assert {*trained} - {*names} != {*others[0]} - {*names}, "the updates of all members are there"


def test_members_are_those_of_one_set_up(grid):
    results = store.load_all(grid[1])
    assert [result.spec["seed"] for result in members_of(results, "lora")] == [0, 1, 2]
    assert len(members_of(results, "lora(rank=2)")) == 2
    with pytest.raises(UserError, match='"adapter" has none here'):
        members_of(results, "adapter")
    with pytest.raises(UserError, match='"lora" has none here'):
        members_of(results, "lora", backbone="mini-t5")
    one = {id: result for id, result in results.items() if result.spec["seed"] == 0}
    with pytest.raises(UserError, match='"lora" has 1 here'):
        members_of(one, "lora")
    several = {result.id: result for result in results.values() if store.base(result.spec)["method"] == "lora"}
    for result in several.values():
        result.spec["label"] = f"lora {result.spec['seed']}"
    with pytest.raises(UserError, match='"lora" is 2 methods, recipes or suites'):
        members_of(results, "lora")


def test_a_soup_from_the_command_line(grid, capsys, tmp_path):
    file, out, world = grid
    code = call("soup", file, "--method", "lora", "--out", out, "--data", world)
    printed = capsys.readouterr().out
    assert code == 0
    (path,) = (out / "report").glob("soup-lora-mini-bart-*.json")
    record = evaluations.read(Soup, path)
    results = members_of(store.load_all(out), "lora")
    assert [one.trial for one in record.ingredients] == [result.id for result in results]
    assert record.shared and record.updates and record.tensors
    for one, result in zip(record.ingredients, results, strict=True):
        assert one.scores == {task: next(iter(scores.values())).value for task, scores in result.metrics.items()}
        assert one.average == pytest.approx(sum(one.scores.values()) / 2) and one.validation is not None
    best = max(record.ingredients, key=lambda one: one.validation)
    assert record.greedy.members[0] == best.trial and record.greedy.validation >= best.validation
    assert record.uniform.members == [one.trial for one in record.ingredients]
    for outcome in (record.uniform, record.greedy, record.ensemble):
        for task, name in outcome.predictions.items():
            rows = saved.read(path.with_name(name))
            assert sum(score for _, score in rows.values()) / len(rows) == pytest.approx(outcome.scores[task])
    members = [saved.read(out / saved.name(result.id, "vqa")) for result in results]
    voted = saved.read(path.with_name(record.ensemble.predictions["vqa"]))
    for id, (text, _) in voted.items():
        counts = Counter(member[id][0] for member in members)
        assert counts[text] == max(counts.values())
    for word in ("mean of the trials", "uniform soup", "greedy soup", "ensemble", f"{record.uniform.average:.2f}"):
        assert word in printed
    assert f"ΔW of {record.updates} modules" in printed and "seeds 0, 1, 2" in printed


def test_other_starts_and_a_validation_on_the_test_are_refused(grid, capsys, tmp_path):
    file, out, world = grid
    arguments = "soup", file, "--method", "lora(rank=2)", "--out", out, "--data", world, "--to", tmp_path / "here"
    assert call(*arguments) == 2
    error = capsys.readouterr().err
    assert 'vqa has "karpathy_test" in its valid and in its test split' in error and "--kind uniform" in error
    assert call(*arguments, "--kind", "uniform") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "visual (" in error and "init_seed" in error and "delta" not in error
    assert not (tmp_path / "here").exists()
    assert call(*arguments, "--unshared", "--kind", "uniform") == 0
    printed = capsys.readouterr().out
    assert "a mean of no model" in printed and "greedy" not in printed
    (path,) = (tmp_path / "here").glob("*.json")
    record = evaluations.read(Soup, path)
    assert not record.shared and record.updates
    assert record.greedy is None and record.uniform.validation is None
