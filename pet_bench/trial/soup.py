"""A soup: a method's trials over seeds averaged into one model.

Wortsman et al., "Model soups" (ICML 2022, arXiv:2203.05482). Deliberate differences: of low-rank updates and their kin
ΔW is averaged, and not the factors (`pet.average`), and everything else only where it started at the same values in
all trials, which a grid has with `recipe.init_seed`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pet_bench.errors import UserError
from pet_bench.pet.average import Parts, average, differing
from pet_bench.pet.trained import group_of
from pet_bench.results import store
from pet_bench.results.schema import TrialResult
from pet_bench.spec import TrialSpec
from pet_bench.trial.loaded import Loaded, load_trial, untrained


def members_of(
    results: Mapping[str, TrialResult], method: str, backbone: str | None = None, suite: str | None = None
) -> list[TrialResult]:
    """The finished trials of a method, by name or as tables call it, that differ in their seeds only, by seed.

    Raises UserError where there are fewer than two, and where they differ in more, naming in what.
    """
    wanted = {key: value for key, value in (("backbone", backbone), ("suite", suite)) if value is not None}
    about = {
        id: store.base(result.spec) | {"name": result.spec["method"]["name"]}
        for id, result in results.items()
        if result.status in store.FINISHED and result.metrics
    }
    about = {id: one for id, one in about.items() if one["control"] == "none" and wanted.items() <= one.items()}
    labelled = {id: one for id, one in about.items() if one["method"] == method}
    found = labelled or {id: one for id, one in about.items() if one["name"] == method}
    if len(setups := {one["setup"]: one for one in found.values()}) > 1:
        said = dict.fromkeys("{method} on {backbone} for {suite}".format(**one) for one in setups.values())
        raise UserError(
            f'"{method}" is {len(setups)} methods, recipes or suites here ({"; ".join(said)}): name one with --method, '
            "as tables call it, --backbone and --suite, or the folder of one grid"
        )
    if len(found) < 2:
        there = ", ".join(sorted({one["method"] for one in about.values()})) or "none"
        raise UserError(
            f'a soup is of two finished trials at least, and "{method}" has {len(found) or "none"} here (methods that '
            f"have some: {there})"
        )
    return sorted((results[id] for id in found), key=lambda result: result.spec["seed"])


@dataclass(frozen=True)
class Member:
    """A trial and what of it enters a soup."""

    path: Path
    trial: Loaded
    parts: Parts


def read_member(path: Path, first: Member | None = None, *, data: Path | None = None, device: str = "cpu") -> Member:
    """A finished trial as a member. Raises UserError, beside what `load_trial` does, where something that does not
    train is not as in the first member: what was trained around it has no meaning beside that."""
    trial = load_trial(path, data=data, device=device)
    member = Member(path, trial, Parts.of(trial.model))
    if first and (odd := differing(first.parts.fixed, member.parts.fixed)):
        raise UserError(
            f"{odd[0]} does not train and is another one in trial {trial.spec.id} than in {first.trial.spec.id} "
            f"({len(odd)} tensors in all): there is no soup of them"
        )
    return member


def check_start(specs: Sequence[TrialSpec], *, unshared: bool = False) -> bool:
    """Whether all that is averaged parameter by parameter started at the same values in all trials.

    That is seen by building each anew from its seed. Raises UserError where it did not, unless `unshared` allows that.
    """
    first, *others = {spec.initial: spec for spec in specs}.values()
    if not others:
        return True
    model, _ = untrained(first)
    odd, start = set[str](), Parts.of(model).tensors
    for other in others:
        odd |= {*differing(start, Parts.of(untrained(other)[0]).tensors)}
    if odd and not unshared:
        groups = Counter(group_of(name, model.anatomy) for name in odd)
        said = ", ".join(f"{group} ({count})" for group, count in sorted(groups.items()))
        raise UserError(
            f"trained tensors start at other values in each seed: {said}. Their mean is of no model: run trials with "
            "one recipe.init_seed for all seeds, as the grid mini-soup does, or average them all the same by --unshared"
        )
    return not odd


def averaged(members: Sequence[Member]) -> Loaded:
    """The mean of members as a model that can be asked, with all else as of the first: ΔW is averaged where there is
    one, and parameters elsewhere. Of one member, and of equal ones, it is that member."""
    first = members[0].trial
    again = load_trial(members[0].path, data=first.runtime.data, device=first.runtime.device)
    average(again.model, [member.parts for member in members])
    return again
