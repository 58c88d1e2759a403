"""A thread that reads ahead of its reader: what cannot wait is taken at once and held, up to a bound of memory.

At the bound the thread waits, and whoever feeds it with it: a file stands still; a device fills its own buffers, and
what it then loses shows in its timestamps, which the clock of `media` obeys.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Relay(Generic[T]):
    """An iterator read by a thread of its own.

    Args:
        items: what is read; an error in it is raised in the reader, after what came before it.
        size: bytes of an item.
        most: bytes that are held.
    """

    def __init__(self, items: Iterable[T], size: Callable[[T], int], most: int) -> None:
        self._items, self._size, self._most = items, size, most
        self._held: deque[T] = deque()
        self._bytes = 0
        self._over = self._closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def drain(self, patience: float = 0.0) -> list[T]:
        """All that is there; waits at most `patience` seconds for the first."""
        with self._changed:
            self._changed.wait_for(lambda: self._held or self._over, patience)
            items = list(self._held)
            self._held.clear()
            self._bytes = 0
            self._changed.notify_all()
            self._raise_if_empty(items)
            return items

    @property
    def over(self) -> bool:
        """Whether nothing is there and nothing will come."""
        with self._changed:
            return self._over and not self._held

    def close(self) -> None:
        """Lets the thread end with the item it is at."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        """One by one, as they come."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._held or self._over)
                self._raise_if_empty(self._held)
                if not self._held:
                    return
                item = self._held.popleft()
                self._bytes -= self._size(item)
                self._changed.notify_all()
            yield item

    def _raise_if_empty(self, items: deque[T] | list[T]) -> None:
        if not items and self._error is not None:
            error, self._error = self._error, None
            raise error

    def _read(self) -> None:
        try:
            for item in self._items:
                with self._changed:
                    self._changed.wait_for(lambda: self._bytes < self._most or self._closed)
                    if self._closed:
                        return
                    self._held.append(item)
                    self._bytes += self._size(item)
                    self._changed.notify_all()
        except BaseException as error:
            self._error = error
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()
