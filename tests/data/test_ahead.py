"""Batches made ahead are the same ones."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from pet_bench.data.ahead import in_thread


def counted(n: int, made: list[int]) -> Any:
    for i in range(n):
        made.append(threading.get_ident())
        yield cast(Any, i)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 20])
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_the_same_in_their_order(n, depth):
    made = []
    assert [*in_thread(counted(n, made), depth)] == [*range(n)]
    assert threading.get_ident() not in made
    assert len(set(made)) <= 1


def test_no_more_are_made_than_wait():
    made = []
    batches = in_thread(counted(20, made), 2)
    assert next(batches) == 0
    batches.close()  # waits for what is under way
    assert len(made) <= 4


def test_what_fails_fails_in_its_turn():
    def failing():
        yield cast(Any, 0)
        raise OSError("gone")

    batches = in_thread(failing(), 3)
    assert next(batches) == 0
    with pytest.raises(OSError, match="gone"):
        next(batches)
