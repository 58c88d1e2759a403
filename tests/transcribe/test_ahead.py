from __future__ import annotations

import threading
from itertools import count, islice

import pytest

from omni_avsr.transcribe.ahead import ahead


def workers():
    return [t for t in threading.enumerate() if t.name == "omni-avsr-ahead"]


def test_items_come_in_order_and_all():
    assert list(ahead(iter(range(50)), 3)) == list(range(50))
    assert list(ahead(iter([None, 0]), 1)) == [None, 0]
    assert not workers()


def test_work_runs_ahead_but_not_far():
    made = []
    enough = threading.Event()

    def make():
        for i in count():
            made.append(i)
            if i == 3:
                enough.set()
            yield i

    items = ahead(make(), 2)
    assert not made  # nothing happens before the first item is asked for
    assert next(items) == 0
    assert enough.wait(10)  # two wait, one is in hand
    assert len(made) <= 4
    items.close()
    assert not workers()


def test_an_error_comes_in_its_turn():
    def make():
        yield 1
        raise OSError("the file ended")

    items = ahead(make(), 4)
    assert next(items) == 1
    with pytest.raises(OSError, match="the file ended"):
        next(items)
    assert not workers()


def test_whoever_leaves_ends_the_work():
    assert list(islice(ahead(count(), 2), 5)) == [0, 1, 2, 3, 4]
    assert not workers()
