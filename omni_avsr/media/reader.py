"""Any audio or video file on one clock: 16 kHz mono samples and 25 fps RGB frames, resampled by timestamps.

Sample 0 and frame 0 are the same instant: the earlier of the two streams' first timestamps. What a stream
lacks against that clock (a late start, a gap) becomes silence or a repeated picture, so that sound and lips
stay in step however long the file is. Reading is lazy; memory does not grow with the file.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import av
import numpy as np
import soxr
from av.container import InputContainer

from omni_avsr.errors import MediaError
from omni_avsr.media.clock import AudioClock, VideoClock, bounded, decoded, floats, timestamp
from omni_avsr.media.source import Probe, Source, Stream, Track, probe
from omni_avsr.types import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME, Clip, MediaInfo

logger = logging.getLogger(__name__)

BLOCK = SAMPLE_RATE  # samples per block that `audio_blocks` yields
PREROLL = Fraction(1)  # seconds decoded before a requested start, so that codecs and filters have settled
MAX_CLIP = 4 * 2**30  # bytes of decoded frames that `read_clip` holds: two minutes at 640 x 480
SLACK = 10  # seconds that a file may exceed what it announces; a timestamp beyond that cannot be true


class MediaFile:
    """An opened file; a context manager. Streams are read by independent generators, as often as wanted.

    Attributes:
        info: what the container says, rotation applied.
    """

    def __init__(self, source: Source, found: Probe) -> None:
        """Made by `open_media`."""
        self.info: MediaInfo = found.info
        self._source = source
        self._audio, self._video, self._origin = found.audio, found.video, found.origin
        self._limit = Fraction(found.info.duration).limit_denominator(1000) + SLACK

    def __enter__(self) -> MediaFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop what opening put on the disk, if anything. A file object stays open: it belongs to the caller."""
        self._source.close()

    def audio_blocks(self, start: float = 0.0, end: float | None = None) -> Iterator[np.ndarray]:
        """Blocks (n,) float32 in [-1, 1], 16 kHz mono, n = 16000 but for the last; nothing without audio.

        Args:
            start: seconds from the beginning; taken to the nearest video frame, 1/25 s.
            end: seconds, likewise; None = to the end.
        """
        first = _frame_number(start) * SAMPLES_PER_FRAME
        left = None if end is None else max(0, _frame_number(end) * SAMPLES_PER_FRAME - first)
        waiting: list[np.ndarray] = []
        held = 0
        for chunk in self._samples(first):
            chunk = chunk if left is None else chunk[:left]
            left = None if left is None else left - len(chunk)
            waiting.append(chunk)
            held += len(chunk)
            if held >= BLOCK:
                joined = np.concatenate(waiting)
                whole = held - held % BLOCK
                yield from joined[:whole].reshape(-1, BLOCK)
                waiting, held = [joined[whole:]], held - whole
            if left == 0:
                break
        if held:
            yield np.concatenate(waiting)

    def frames(self, start: float = 0.0, end: float | None = None) -> Iterator[np.ndarray]:
        """Frames (height, width, 3) uint8 RGB at k/25 s, upright, each the source frame nearest in time.

        A frame that is shown again is the same array: do not write into it. Nothing without video.

        Args:
            start: seconds from the beginning; taken to the nearest multiple of 1/25 s.
            end: seconds, likewise; None = to the end.
        """
        if self._video is None:
            return
        first = _frame_number(start)
        last = None if end is None else _frame_number(end)
        with self._container(self._video, Fraction(first, FPS)) as container:
            stream = next(s for s in container.streams.video if s.index == self._video.index)
            rate = stream.guessed_rate or Fraction(FPS)
            clock = VideoClock(self._origin(self._video), self._limit, rate, stream.sample_aspect_ratio)
            pictures = (f for f in decoded(container, [stream], self.info.name) if isinstance(f, av.VideoFrame))
            for number, picture in clock.grid(pictures, first):
                if last is not None and number >= last:
                    return
                yield picture
        self._warn_if_short(self._video, clock.seconds)

    def _samples(self, first: int) -> Iterator[np.ndarray]:
        """Samples from number `first` on, in chunks as they are decoded."""
        if self._audio is None:
            return
        with self._container(self._audio, Fraction(first, SAMPLE_RATE)) as container:
            clock = AudioClock(self._origin(self._audio), self._audio.first, self._limit)
            stream = _stream(container, self._audio)
            sounds = (f for f in decoded(container, [stream], self.info.name) if isinstance(f, av.AudioFrame))
            yield from clock.samples(sounds, first)
        self._warn_if_short(self._audio, clock.seconds)

    def _container(self, track: Track, start: Fraction) -> InputContainer:
        """A container whose `track` decodes from some point before `start` seconds on our clock."""
        container = self._threaded(track)
        target = self._origin(track) + start - PREROLL
        if start > PREROLL and not self._seek(container, track, target):
            container.close()
            container = self._threaded(track)
        return container

    def _threaded(self, track: Track) -> InputContainer:
        container = self._source.open()
        _stream(container, track).codec_context.thread_type = "AUTO"
        return container

    def _seek(self, container: InputContainer, track: Track, target: Fraction) -> bool:
        """Seek to `target` or somewhat before; False where the format cannot, or lands too late."""
        try:
            container.seek(int(target * av.time_base), backward=True)
            frames = decoded(container, [_stream(container, track)], self.info.name)
            landed = next((time for time in map(timestamp, frames) if time is not None), None)
            if landed is None or landed > target + PREROLL / 2:
                return False
            container.seek(int(target * av.time_base), backward=True)
        except av.FFmpegError as error:
            logger.debug("'%s' cannot seek (%s); decoding from the beginning", self.info.name, error)
            return False
        return True

    def _warn_if_short(self, track: Track, seconds: float) -> None:
        if seconds < track.announced - 1:
            logger.warning(
                "'%s' announces %.1f s but ends after %.1f s: it is cut short; what is there is used",
                self.info.name,
                track.announced,
                seconds,
            )


def open_media(source: str | Path | BinaryIO) -> MediaFile:
    """Open a path or a binary file object (one that cannot seek is spooled to disk); use it as a context manager.

    Raises:
        MediaError: it does not exist, is empty, is not media, or nothing in it decodes.
    """
    opened = Source(source)
    try:
        return MediaFile(opened, probe(opened))
    except BaseException:
        opened.close()
        raise


def read_clip(source: str | Path | BinaryIO, start: float = 0.0, end: float | None = None) -> Clip:
    """A whole short file, or its stretch `start`..`end` (seconds, taken to 1/25 s), in memory.

    Raises:
        MediaError: as `open_media`, or the stretch lies outside the file, or exceeds `MAX_CLIP` bytes.
    """
    with open_media(source) as media:
        blocks = _held(media.audio_blocks(start, end), media.info.name)
        frames = _held(media.frames(start, end), media.info.name)
        info = media.info
    if not blocks and not frames:
        raise MediaError(
            f"'{info.name}' lasts {info.duration:.2f} s; nothing lies between {start} s and "
            f"{'its end' if end is None else f'{end} s'}."
        )
    return Clip(
        audio=_audio_of(info, blocks),
        frames=np.stack(frames) if frames else None,
        start=_frame_number(start) / FPS,
    )


def _held(parts: Iterator[np.ndarray], name: str) -> list[np.ndarray]:
    held, size = [], 0
    for part in parts:
        held.append(part)
        size += part.nbytes
        if size > MAX_CLIP:
            raise MediaError(
                f"'{name}' takes more than {MAX_CLIP / 2**30:.0f} GiB when it is decoded; "
                "read it in stretches (start, end), or as a stream (open_media)."
            )
    return held


def _audio_of(info: MediaInfo, blocks: list[np.ndarray]) -> np.ndarray | None:
    if not info.has_audio:
        return None
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def array_clip(
    audio: np.ndarray | None = None,
    video: np.ndarray | None = None,
    fps: float | None = None,
    sample_rate: int = SAMPLE_RATE,
) -> Clip:
    """Arrays as a clip, resampled to 16 kHz and 25 fps.

    Args:
        audio: (S,) or (S, channels) float in [-1, 1], or integers of full scale.
        video: (T, height, width, 3) uint8 RGB, or (T, height, width) grey.
        fps: frames per second of `video`; required with it, since an array does not say.
        sample_rate: of `audio`, Hz.

    Raises:
        MediaError: nothing was given, `fps` is missing, or a shape or type does not fit.
    """
    if audio is None and video is None:
        raise MediaError("Neither audio nor video was given; pass at least one of them.")
    return Clip(
        audio=None if audio is None else _array_audio(np.asarray(audio), sample_rate),
        frames=None if video is None else _array_frames(np.asarray(video), fps),
    )


def _array_audio(audio: np.ndarray, rate: int) -> np.ndarray:
    if audio.ndim not in (1, 2) or not audio.size or rate <= 0:
        raise MediaError(
            f"audio has shape {audio.shape} at {rate} Hz; expected (samples,) or (samples, channels), not empty."
        )
    if audio.ndim == 2 and audio.shape[0] < audio.shape[1]:
        raise MediaError(f"audio has shape {audio.shape}; expected (samples, channels): transpose it.")
    mono = floats(audio).reshape(len(audio), -1).mean(1)
    mono = soxr.resample(mono, rate, SAMPLE_RATE) if rate != SAMPLE_RATE else mono
    return bounded(mono)


def _array_frames(video: np.ndarray, fps: float | None) -> np.ndarray:
    if fps is None or not 0 < fps < float("inf"):
        raise MediaError(f"fps is {fps}; an array does not say how fast it plays: pass fps, e.g. fps=25.")
    if video.ndim == 3:
        video = np.repeat(video[..., None], 3, axis=3)
    if video.ndim != 4 or video.shape[3] != 3 or video.dtype != np.uint8 or not video.size:
        raise MediaError(
            f"video has shape {video.shape} and type {video.dtype}; expected (frames, height, width, 3) uint8 RGB."
        )
    if fps == FPS:
        return video
    count = max(1, round(len(video) / fps * FPS))
    # Nearest in time, as for files; a tie goes to the earlier frame.
    nearest = np.ceil(np.arange(count) * fps / FPS - 0.5 - 1e-9).astype(int)
    return video[nearest.clip(0, len(video) - 1)]


def _frame_number(seconds: float) -> int:
    return max(0, round(seconds * FPS))


def _stream(container: InputContainer, track: Track) -> Stream:
    streams: list[Stream] = [*container.streams.audio, *container.streams.video]
    return next(stream for stream in streams if stream.index == track.index)
