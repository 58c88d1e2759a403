"""An iterator that works ahead of whoever asks it, in a thread, by a bounded number of items."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")
PATIENCE = 0.1  # seconds after which a full queue looks whether anybody still reads


def ahead(items: Iterator[T], most: int) -> Generator[T, None, None]:
    """The items of `items` in order, while the next ones are being made: reading and looking beside the model.

    Args:
        items: is asked in another thread, never in two at once; what it raises is raised here, in its turn.
        most: items that wait at most. Work begins with the first one asked for and ends with the consumer.
    """
    waiting: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(most)
    left = threading.Event()

    def put(item: T | None, error: BaseException | None) -> None:
        while not left.is_set():
            try:
                waiting.put((item, error), timeout=PATIENCE)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put(item, None)
                if left.is_set():
                    return
            put(None, StopIteration())
        except BaseException as error:
            put(None, error)

    thread = threading.Thread(target=copy_context().run, args=(work,), name="omni-avsr-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        left.set()
        thread.join()
