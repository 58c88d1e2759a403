"""A thread that reads ahead: in order, up to a bound, with its errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import count

import pytest

from omni_avsr.live.relay import Relay


def test_everything_arrives_in_order() -> None:
    assert list(Relay(range(1000), lambda _: 1, 10)) == list(range(1000))
    relay, got = Relay(range(1000), lambda _: 1, 10), []
    while not relay.over:
        got += relay.drain(0.1)
    assert got == list(range(1000))


def test_it_reads_ahead_up_to_the_bound_and_no_further() -> None:
    read, enough = [], threading.Event()

    def items() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            if number == 5:
                enough.set()
            yield number

    relay = Relay(items(), lambda _: 10, 50)
    assert enough.wait(10)
    time.sleep(0.1)  # were there no bound, it would be through by now
    assert len(read) == 6  # five are held, and one waits to be
    assert list(relay) == list(range(100))


@pytest.mark.parametrize("way", ["drain", "iterate"])
def test_an_error_comes_after_what_came_before_it(way: str) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("unplugged")

    relay, got = Relay(items(), lambda _: 1, 10), []

    def read() -> None:
        while True:
            got.extend(relay.drain(1.0) if way == "drain" else relay)

    with pytest.raises(OSError, match="unplugged"):
        read()
    assert got == [1]


def test_a_closed_relay_lets_its_source_go() -> None:
    read, held = [], threading.Event()

    def items() -> Iterator[int]:
        for number in count():
            read.append(number)
            if number == 3:
                held.set()
            yield number

    relay = Relay(items(), lambda _: 1, 3)
    assert held.wait(10)
    relay.close()
    assert list(relay) == [0, 1, 2]
    assert relay.over
    assert len(read) == 4
