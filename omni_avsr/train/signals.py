"""Ctrl-C and SIGTERM as a wish to stop at the next step, not as an exception in the middle of one."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

_ASKING = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """While the block runs, the first signal sets `asked`; a second one of its kind acts as it always does.

    Outside the main thread, where python forbids handlers, nothing is caught.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._note) for s in _ASKING}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(number, self._before[signal.Signals(number)])
