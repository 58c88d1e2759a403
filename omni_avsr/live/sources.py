"""Where live sound and pictures come from; here a file that is played, in `devices` a camera and a microphone.

A source gives both streams on one clock, 16 kHz and 25 fps, sample 0 and frame 0 at the same instant. Its iterators
wait for what was not captured yet; each is read in a thread of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from omni_avsr.media.reader import open_media
from omni_avsr.types import FPS, SAMPLE_RATE

BLOCK = SAMPLE_RATE // 10  # samples that a file gives at a time


class LiveSource(Protocol):
    """What a session captures from."""

    name: str
    has_sound: bool
    has_picture: bool

    @property
    def seconds(self) -> float:
        """How long it has captured."""

    def sound(self) -> Iterator[np.ndarray]:
        """(n,) float32, 16 kHz, in pieces that join."""

    def pictures(self) -> Iterator[np.ndarray]:
        """(height, width, 3) uint8 RGB, 25 per second."""

    def close(self) -> None:
        """Ends both streams."""


class FileSource:
    """A file as if it were captured now: nothing is given before its time has come.

    Args:
        path: of any media file.
        speed: 1 = in real time, 2 = twice as fast, 0 = without waiting.

    Raises:
        MediaError: it cannot be read.
    """

    def __init__(self, path: str | Path, speed: float = 1.0) -> None:
        self.name = Path(path).name
        self._media = open_media(path)
        self.has_sound, self.has_picture = self._media.info.has_audio, self._media.info.has_video
        self._speed = speed
        self._stopped = threading.Event()
        self._began: float | None = None
        self._starting = threading.Lock()

    @property
    def seconds(self) -> float:
        """How long it has been playing."""
        if self._began is None or not self._speed:
            return 0.0
        return min((time.monotonic() - self._began) * self._speed, self._media.info.duration)

    def sound(self) -> Iterator[np.ndarray]:
        """Tenths of a second, each when it is over."""
        pieces = (block[i : i + BLOCK] for block in self._media.audio_blocks() for i in range(0, len(block), BLOCK))
        given = 0
        for piece in pieces:
            given += len(piece)
            if not self._wait(given / SAMPLE_RATE):
                return
            yield piece

    def pictures(self) -> Iterator[np.ndarray]:
        """Each when it is shown."""
        for number, picture in enumerate(self._media.frames()):
            if not self._wait(number / FPS):
                return
            yield picture

    def close(self) -> None:
        """Stops playing."""
        self._stopped.set()
        self._media.close()

    def _wait(self, until: float) -> bool:
        """Until `until` seconds of the file have passed; False where it was stopped."""
        with self._starting:
            if self._began is None:
                self._began = time.monotonic()
        left = self._began + until / self._speed - time.monotonic() if self._speed else 0.0
        return not self._stopped.wait(max(left, 0.0))
