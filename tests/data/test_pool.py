"""Processes that die take only their item with them."""

from __future__ import annotations

import os

import pytest

from omni_avsr.data.pool import cores, each


def double_or_die(number: int) -> int:
    if number == 3:
        os._exit(9)
    return 2 * number


def complain(number: int) -> int:
    raise ValueError(f"{number} is odd")


def test_a_dying_process_takes_only_its_item() -> None:
    results = dict(each(double_or_die, range(6), workers=2))
    assert results == {0: 0, 1: 2, 2: 4, 3: None, 4: 8, 5: 10}


def test_in_this_process() -> None:
    assert list(each(str, [1, 2], workers=1)) == [(1, "1"), (2, "2")]
    assert list(each(double_or_die, [], workers=4)) == []
    with pytest.raises(ValueError, match="1 is odd"):
        list(each(complain, [1], workers=1))
    assert cores() >= 1
