from __future__ import annotations

import pytest

from pet_bench.errors import Faults, UserError, unknown


@pytest.mark.parametrize(
    "name, possible, expected",
    [
        ("lroa", ["lora", "full"], 'unknown method "lroa": did you mean "lora"? (possible: full, lora)'),
        ("zzz", ["lora", "full"], 'unknown method "zzz": (possible: full, lora)'),
        ("zzz", [], 'unknown method "zzz": (possible: none)'),
    ],
)
def test_unknown_suggests_the_nearest(name, possible, expected):
    assert unknown("method", name, possible).faults == (expected,)


def test_a_fault_is_one_line():
    assert UserError("a\n  b\tc").faults == ("a b c",)


def test_many_flattens_and_drops_repeats():
    error = UserError.many(["a", UserError("b", "a"), "c"])
    assert error.faults == ("a", "b", "c")
    assert str(error) == "a\nb\nc"


def test_faults_are_raised_together():
    faults = Faults()
    faults.check()
    with faults:
        raise UserError("a", "b")
    faults.add("c")
    with pytest.raises(UserError) as caught:
        faults.check()
    assert caught.value.faults == ("a", "b", "c")


def test_faults_hide_nothing_but_user_errors():
    with pytest.raises(ZeroDivisionError), Faults():
        1 / 0  # noqa: B018
