"""Whatever may be transcribed, as one thing: a file, a file object or arrays, read by stretches on one clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from omni_avsr.errors import InputError
from omni_avsr.media.mouth import Mouth
from omni_avsr.media.reader import array_clip, open_media
from omni_avsr.types import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME, Clip, MediaInfo


@dataclass(frozen=True)
class Take:
    """Sound and mouths that are cut out already, as of a camera that goes on; both begin at the same instant."""

    audio: np.ndarray | None  # (S,) float32, 16 kHz
    mouths: Sequence[Mouth] | None  # at 25/s


Source = str | Path | BinaryIO | Clip | Take | np.ndarray


class Media(Protocol):
    """What `media.reader.MediaFile` offers."""

    @property
    def info(self) -> MediaInfo:
        """What the container says."""

    def audio_blocks(self, start: float = 0.0, end: float | None = None) -> Iterator[np.ndarray]:
        """Blocks of float32 samples at 16 kHz."""

    def frames(self, start: float = 0.0, end: float | None = None) -> Iterator[np.ndarray]:
        """(height, width, 3) uint8 pictures at 25/s."""

    def close(self) -> None:
        """Lets go of what was opened."""


class ClipMedia:
    """A clip or a take in memory, read like a file.

    Attributes:
        info: of the arrays.
        mouths: where nobody needs to look for them.
    """

    def __init__(self, clip: Clip | Take) -> None:
        self._audio = clip.audio
        self._frames = clip.frames if isinstance(clip, Clip) else None
        self.mouths = clip.mouths if isinstance(clip, Take) else None
        pictures = self._frames if self.mouths is None else self.mouths
        seconds = [0.0 if self._audio is None else len(self._audio) / SAMPLE_RATE]
        seconds += [0.0 if pictures is None else len(pictures) / FPS]
        self.info = MediaInfo(
            name="the given arrays",
            container="arrays",
            duration=max(seconds),
            has_audio=self._audio is not None,
            has_video=pictures is not None,
            sample_rate=None if self._audio is None else SAMPLE_RATE,
            channels=None if self._audio is None else 1,
            fps=None if pictures is None else float(FPS),
            height=None if self._frames is None else self._frames.shape[1],
            width=None if self._frames is None else self._frames.shape[2],
        )

    def audio_blocks(self, start: float = 0.0, end: float | None = None) -> Iterator[np.ndarray]:
        """One block with all that lies between `start` and `end`, taken to 1/25 s as from a file."""
        if self._audio is not None:
            first, last = _frame(start) * SAMPLES_PER_FRAME, None if end is None else _frame(end) * SAMPLES_PER_FRAME
            yield self._audio[first:last]

    def frames(self, start: float = 0.0, end: float | None = None) -> Iterator[np.ndarray]:
        """The pictures between `start` and `end`."""
        if self._frames is not None:
            yield from self._frames[_frame(start) : None if end is None else _frame(end)]

    def close(self) -> None:
        """Nothing to let go of."""


def open_input(
    source: Source | None = None,
    audio: np.ndarray | None = None,
    video: np.ndarray | None = None,
    fps: float | None = None,
) -> Media:
    """A file, a file object, a clip or arrays, ready to be read.

    Args:
        source: a path, a binary file object, a `Clip`, a `Take`, or audio as an array; instead of `audio` and `video`.
        audio: (S,) float32 in [-1, 1], 16 kHz.
        video: (T, height, width, 3) uint8 RGB.
        fps: frames per second of `video`; required with it.

    Raises:
        InputError: both a source and arrays, or neither.
        MediaError: the file cannot be read, or an array has a shape or type that does not fit.
    """
    both = isinstance(source, np.ndarray) and audio is not None
    if isinstance(source, np.ndarray):
        source, audio = None, source
    arrays = audio is not None or video is not None
    if both or arrays == (source is not None):
        raise InputError("give a file, a file object or a Clip, or else arrays as audio= and video=: one of the two")
    if source is None:
        return ClipMedia(array_clip(audio, video, fps))
    return ClipMedia(source) if isinstance(source, Clip | Take) else open_media(source)


def _frame(seconds: float) -> int:
    return round(seconds * FPS)
