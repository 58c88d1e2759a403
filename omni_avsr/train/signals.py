"""Ctrl-C and SIGTERM as a wish to stop at the next step, not as an exception in the middle of one."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType

_ASKING = (signal.SIGINT, signal.SIGTERM)
PATIENCE = 3.0  # seconds


class StopRequest:
    """While the block runs, the first signal sets `asked`; one that comes PATIENCE later acts as it always does.

    One that comes sooner is the same wish: a terminal's Ctrl-C reaches torchrun and its processes, and torchrun
    passes it on to them once more.

    Outside the main thread, where python forbids handlers, nothing is caught.
    """

    def __init__(self) -> None:
        self.asked = False
        self._since = 0.0
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._note) for s in _ASKING}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.asked:
            self.asked, self._since = True, now
        elif now - self._since > PATIENCE:
            signal.signal(number, self._before[signal.Signals(number)])
            signal.raise_signal(number)
