"""The axes of an ablation: the settings in which trials differ that are otherwise equal but for the seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pet_bench.errors import UserError

if TYPE_CHECKING:
    from pet_bench.grid.plan.tuning import Tuning

NONE = "none"
UNSET = {"method.scope": "default"}  # what a missing value of a setting says, where it is not "none"


@dataclass(frozen=True)
class Line:
    """Setups that differ in one setting and in what always changes with it.

    values: of the setting, in the order of the trials; setups: which of the table; label: what they have in common;
    also: per value what else changes there.
    """

    label: str
    values: tuple[Any, ...]
    setups: tuple[str, ...]
    also: tuple[str, ...]


# of which method a line is, what changes with it, and the setup from which most others differ in one setting, if known
Panelled = tuple[str, Line, tuple[str, ...], str | None]


@dataclass(frozen=True)
class Axis:
    """One setting, of one suite and backbone: its lines, and the settings that change with it."""

    suite: str
    backbone: str
    setting: str
    lines: tuple[Line, ...]
    companions: tuple[str, ...] = ()
    reference: str | None = None  # the setup of its one method from which most others differ in one setting

    @property
    def numeric(self) -> bool:
        return all(_number(value) for line in self.lines for value in line.values)

    @property
    def values(self) -> list[Any]:
        """Numbers ascending, others in the order of the trials."""
        values = list(dict.fromkeys(value for line in self.lines for value in line.values))
        return sorted(values) if self.numeric else values


def _number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def axes_of(settings: pd.DataFrame) -> list[Axis]:
    """The settings (`pet_bench.load_settings`) in which trials differ that are otherwise equal but for the seed.

    Trials are set side by side within a suite, backbone and method. Options that say what is inserted where
    (`method.decoder.ffn`, `method.decoder.cross_attn.value`, …) are one setting, where several of them differ, but
    numbers (`method.encoder.ffn.rank`) stay on their own. A setting that another one determines throughout (a rate
    that was chosen for one value of it) changes with it. Raises UserError for trials of equal settings that are yet
    not the same.
    """
    panels: dict[tuple[str, str, str], list[Panelled]] = {}
    names = settings.groupby(["suite", "backbone"])["method.name"].nunique() if len(settings) else pd.Series(dtype=int)
    for key, trials in settings.groupby(["suite", "backbone", "method.name"], sort=False):
        suite, backbone, name = map(str, key)
        setups = trials.drop_duplicates("setup").set_index("setup")
        if len(setups) < 2:
            continue
        own = _varying(setups)
        if own.duplicated().any():
            raise UserError(f"trials of {name} on {backbone} differ in something that is no setting: filter the frames")
        lines = [(setting, *line) for setting in map(str, own) for line in _lines(own, setting)]
        near = Counter(setup for _, group, *_ in lines for setup in group.index for _ in group.index[1:])
        plain = setups.method == name  # all options as they come
        ranked = sorted(own.index, key=lambda setup: (near[setup], plain[setup]), reverse=True)
        reference, second = ranked[:2]
        known = plain[reference] or near[reference] > near[second]
        for setting, group, fixed, companions in lines:
            apart = [f"{short(one)} {text(own[one][group.index[0]])}" for one in fixed
                     if own[one][group.index[0]] != own[one][reference]]  # fmt: skip
            label = ", ".join([name] * bool(names[suite, backbone] > 1 or not apart) + apart)
            usual = own.loc[reference if reference in group.index else group.index[0]]
            also = tuple(_also(own.loc[setup], usual, companions) for setup in group.index)
            line = Line(label, tuple(group), tuple(map(str, group.index)), also)
            panels.setdefault((suite, backbone, setting), []).append(
                (name, line, companions, str(reference) if known else None)
            )
    axes = []
    for (suite, backbone, setting), panelled in panels.items():
        for panel in _together(panelled):
            one = len({name for name, *_ in panel}) == 1
            companions = tuple(dict.fromkeys(companion for _, _, own, _ in panel for companion in own))
            reference = panel[0][3] if one else None
            axes.append(Axis(suite, backbone, setting, tuple(line for _, line, _, _ in panel), companions, reference))
    return axes


def without_chosen(settings: pd.DataFrame, tunings: Iterable[Tuning]) -> pd.DataFrame:
    """Settings of tuned trials without what of the recipe was tuned: a rate belongs to the setting that it was chosen
    for, and two trials that are tuned alike are equal but for that one."""
    chosen = {key for tuning in tunings for one in tuning.chosen for key in one.values}
    return settings.drop(columns=[key for key in chosen if key.startswith("recipe.")], errors="ignore")


def _also(setup: pd.Series, usual: pd.Series, companions: Iterable[str]) -> str:
    """What else is not as usual in a setup."""
    changed = [one for one in companions if setup[one] != usual[one]]
    names = (short(one).split(".")[-1] if one.startswith("protocol.") else short(one) for one in changed)
    said = (f"{name} {text(setup[one])}" for name, one in zip(names, changed, strict=True))
    return ", ".join(dict.fromkeys(said))


def _together(lines: list[Panelled]) -> list[list[Panelled]]:
    """Lines that belong in one panel: all where they are of numbers, else those that share a value."""
    if all(_number(value) for _, line, *_ in lines for value in line.values):
        return [lines]
    panels: list[list[Panelled]] = []
    for line in lines:
        near = [panel for panel in panels if any(set(line[1].values) & set(other[1].values) for other in panel)]
        panels = [panel for panel in panels if panel not in near] + [[*chain(*near), line]]
    return panels


def _varying(setups: pd.DataFrame) -> pd.DataFrame:
    """The settings in which setups differ: a column each, missing values as `UNSET` has them."""
    columns = [column for column in map(str, setups) if column.startswith(("method.", "recipe.", "protocol."))]
    values = setups[columns].astype(object).fillna(UNSET)
    values = values.where(values.notna(), NONE).map(lambda value: repr(value) if isinstance(value, list) else value)
    values = values.loc[:, [values[column].map(_key).nunique() > 1 for column in values]]
    merged: dict[str, list[str]] = {}
    for column in map(str, values):
        numbers = all(value == NONE or _number(value) for value in values[column])
        nested = column.count(".") > 1 and not numbers
        merged.setdefault(".".join(column.split(".")[:2]) if nested else column, []).append(column)
    columns_of: dict[str, pd.Series] = {}
    for setting, parts in merged.items():
        if len(parts) == 1:
            columns_of[parts[0]] = values[parts[0]]
        else:
            columns_of[setting] = values[parts].apply(
                lambda row, setting=setting: (
                    ", ".join(
                        f"{column.removeprefix(setting + '.')} {text(value)}"
                        for column, value in row.items()
                        if value != NONE
                    )
                    or NONE
                ),
                axis=1,
            )
    return pd.DataFrame(columns_of, index=values.index, dtype=object)


def _key(value: Any) -> Any:
    return (type(value) is bool, value)  # True is not 1


def _lines(own: pd.DataFrame, setting: str) -> list[tuple[pd.Series, tuple[str, ...], tuple[str, ...]]]:
    """Values by setup, the settings held fixed and those that change with it, of each line along a setting."""
    names = list(map(str, own))
    follows = [other for other in names if other != setting and _determines(own, setting, other)]
    leads = [other for other in follows if _determines(own, other, setting)]
    if any(names.index(other) < names.index(setting) for other in leads):
        return []  # it is the other's companion
    if all(_number(value) for value in own[setting]):
        follows = leads  # a curve is of one setting alone, or of some that say the same
    fixed = tuple(other for other in names if other != setting and other not in follows)
    groups = own.groupby(list(fixed), sort=False)[setting] if fixed else [((), own[setting])]
    lines = []
    for _, group in groups:
        if len(group) > 1:
            companions = tuple(other for other in follows if own[other][group.index].map(_key).nunique() > 1)
            lines.append((group, fixed, companions))
    return lines


def _determines(own: pd.DataFrame, one: str, other: str) -> bool:
    pairs = set(zip(own[one].map(_key), own[other].map(_key), strict=True))
    return len(pairs) == len({first for first, _ in pairs})


def short(setting: str) -> str:
    """`method.gate` → gate, `recipe.lr` → lr."""
    kind, _, name = setting.partition(".")
    return name if kind in ("method", "recipe") else setting


def text(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(text, value)) or NONE
    if isinstance(value, str):
        return value or '""'
    return f"{value:g}" if _number(value) else str(value).lower()
