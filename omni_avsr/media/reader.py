"""Any audio or video file on one clock: 16 kHz mono samples and 25 fps RGB frames, resampled by timestamps.

Sample 0 and frame 0 are the same instant: the earlier of the two streams' first timestamps. What a stream
lacks against that clock (a late start, a gap) becomes silence or a repeated picture, so that sound and lips
stay in step however long the file is. Reading is lazy; memory does not grow with the file.
"""

from __future__ import annotations

import io
import logging
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import av
import numpy as np
import soxr
from av.container import InputContainer
from av.stream import Disposition, Stream

from omni_avsr.errors import MediaError
from omni_avsr.media.clock import AudioClock, Frame, Painter, VideoClock, bounded, decoded, floats
from omni_avsr.types import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME, Clip, MediaInfo

logger = logging.getLogger(__name__)

Source = str | Path | BinaryIO
BLOCK = SAMPLE_RATE  # samples per block that `audio_blocks` yields
PREROLL = Fraction(1)  # seconds decoded before a requested start, so that codecs and filters have settled
PICTURES = ("image2", "gif", "tty", "apng")  # containers that ffmpeg opens as video and that are none


@dataclass(frozen=True)
class _Track:
    """One stream of the container that is used, and the time of its first decoded frame."""

    index: int
    first: Fraction  # seconds, on the container's own clock
    announced: float  # seconds that the header says it lasts; 0 = it does not say


class MediaFile:
    """An opened file; a context manager. Streams are read by independent generators, as often as wanted.

    Attributes:
        info: what the container says, rotation applied.
    """

    def __init__(self, source: Source) -> None:
        """Open and probe `source`: a path, or a binary file object (one that cannot seek is spooled to disk).

        Raises:
            MediaError: it does not exist, is empty, is not media, or nothing in it decodes.
        """
        self._name = _name(source)
        self._spool: BinaryIO | None = None
        self._source = self._seekable(source)
        try:
            self._audio, self._video, self.info = self._probe()
        except BaseException:
            self.close()
            raise
        self._origin = min(track.first for track in (self._audio, self._video) if track)

    def __enter__(self) -> MediaFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop the spooled copy, if one was made. A file object stays open: it belongs to the caller."""
        if self._spool is not None:
            self._spool.close()

    def audio_blocks(self, start: float = 0.0, end: float | None = None) -> Iterator[np.ndarray]:
        """Blocks (n,) float32 in [-1, 1], 16 kHz mono, n = 16000 but for the last; nothing without audio.

        Args:
            start: seconds from the beginning; taken to the nearest video frame, 1/25 s.
            end: seconds; None = to the end.
        """
        if self._audio is None:
            return
        wanted = _frame_number(start) * SAMPLES_PER_FRAME
        last = None if end is None else _frame_number(end) * SAMPLES_PER_FRAME
        pending, held, position = [], 0, wanted
        for chunk in self._samples(wanted):
            chunk = chunk if last is None else chunk[: max(last - position, 0)]
            pending.append(chunk)
            position, held = position + len(chunk), held + len(chunk)
            if held >= BLOCK:
                joined = np.concatenate(pending)
                whole = held - held % BLOCK
                yield from joined[:whole].reshape(-1, BLOCK)
                pending, held = [joined[whole:]], held - whole
            if position == last:
                break
        if held:
            yield np.concatenate(pending)

    def frames(self, start: float = 0.0, end: float | None = None) -> Iterator[np.ndarray]:
        """Frames (height, width, 3) uint8 RGB at k/25 s, upright, each the source frame nearest in time.

        Args:
            start: seconds from the beginning; taken to the nearest multiple of 1/25 s.
            end: seconds; None = to the end.
        """
        if self._video is None:
            return
        first = _frame_number(start)
        last = None if end is None else _frame_number(end)
        with self._container(self._video, Fraction(first, FPS)) as container:
            stream = container.streams[self._video.index]
            rate = stream.guessed_rate or Fraction(FPS)
            clock = VideoClock(self._origin, self._limit, rate, stream.sample_aspect_ratio)
            for number, picture in clock.grid(decoded(container, [stream], self._name), first):
                if last is not None and number >= last:
                    return
                yield picture
        self._warn_if_short(self._video, clock.seconds)

    def _samples(self, wanted: int) -> Iterator[np.ndarray]:
        """Samples from number `wanted` on, in chunks as they are decoded."""
        assert self._audio is not None
        with self._container(self._audio, Fraction(wanted, SAMPLE_RATE)) as container:
            stream = container.streams[self._audio.index]
            clock = AudioClock(self._origin, self._audio.first, self._limit)
            yield from clock.samples(decoded(container, [stream], self._name), wanted)
        self._warn_if_short(self._audio, clock.seconds)

    @property
    def _limit(self) -> Fraction:
        """Seconds beyond which a timestamp cannot be true; such a one is ignored, not filled up to."""
        return Fraction(self.info.duration).limit_denominator(1000) + 10

    def _warn_if_short(self, track: _Track, seconds: float) -> None:
        if seconds < track.announced - 1:
            logger.warning(
                "'%s' announces %.1f s but ends after %.1f s: it is cut short; what is there is used",
                self._name,
                track.announced,
                seconds,
            )

    # ---- opening -------------------------------------------------------------------------------

    def _seekable(self, source: Source) -> str | BinaryIO:
        if isinstance(source, (str, Path)):
            path = Path(source)
            if not path.is_file():
                what = "is a folder" if path.is_dir() else "does not exist"
                raise MediaError(f"'{source}' {what}; expected an audio or video file.")
            if path.stat().st_size == 0:
                raise MediaError(f"'{source}' is empty (0 bytes); expected an audio or video file.")
            return str(path)
        if not _can_seek(source):
            self._spool = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
            shutil.copyfileobj(source, self._spool)
            source = self._spool
        if source.seek(0, io.SEEK_END) == 0:
            raise MediaError(f"'{self._name}' is empty (0 bytes); expected an audio or video file.")
        return source

    def _open(self) -> InputContainer:
        # Each container gets its own position in a shared file object: sound and picture are read side by side.
        file = self._source if isinstance(self._source, str) else _View(self._source)
        try:
            return av.open(file, metadata_errors="replace")
        except (av.FFmpegError, ValueError) as error:
            raise MediaError(
                f"'{self._name}' cannot be read as media ({_reason(error)}); expected an audio or video file, complete."
            ) from error

    def _container(self, track: _Track, start: Fraction) -> InputContainer:
        """The container, with the decoder to be started at or before `start` seconds on our clock."""
        container = self._open()
        container.streams[track.index].thread_type = "AUTO"
        target = start - PREROLL
        if target <= 0:
            return container
        try:
            stamp = int((self._origin + target) * av.time_base)
            container.seek(stamp, backward=True)
            landed = next(
                (f.time for f in container.decode(container.streams[track.index]) if f.time is not None), None
            )
            if landed is not None and landed <= self._origin + target + PREROLL / 2:
                container.seek(stamp, backward=True)
                return container
        except av.FFmpegError as error:
            logger.debug("'%s' cannot seek (%s); decoding from the beginning", self._name, error)
        container.close()
        container = self._open()
        container.streams[track.index].thread_type = "AUTO"
        return container

    def _probe(self) -> tuple[_Track | None, _Track | None, MediaInfo]:
        with self._open() as container:
            if container.format.name.endswith("_pipe") or container.format.name in PICTURES:
                raise MediaError(f"'{self._name}' is a picture or a text; expected an audio or video file.")
            sound, picture = _pick(container, "audio"), _pick(container, "video")
            firsts = _first_frames(container, [stream for stream in (sound, picture) if stream], self._name)
            if not firsts:
                raise MediaError(
                    f"'{self._name}' ({container.format.name}) has nothing that decodes as sound or picture; "
                    "it may be cut short, or no media at all."
                )
            info = self._describe(container, firsts, picture)
            return _track(sound, firsts.get("audio")), _track(picture, firsts.get("video")), info

    def _describe(self, container: InputContainer, firsts: dict[str, Frame], video: Stream | None) -> MediaInfo:
        duration = container.duration / av.time_base if container.duration else self._measured()
        known: dict[str, Any] = {}
        if sound := firsts.get("audio"):
            known |= {"sample_rate": sound.sample_rate, "channels": len(sound.layout.channels)}
        if video is not None and (picture := firsts.get("video")):
            width, height, rotation = Painter(video.sample_aspect_ratio).describe(picture)
            rate = video.average_rate or video.guessed_rate
            known |= {"fps": float(rate) if rate else None, "width": width, "height": height, "rotation": rotation}
        return MediaInfo(
            name=self._name,
            container=container.format.name,
            duration=float(duration),
            has_audio="audio" in firsts,
            has_video="video" in firsts,
            **known,
        )

    def _measured(self) -> float:
        """Duration by the packets' timestamps: browsers' recordings and raw streams have none in the header."""
        first, last = {}, {}
        with self._open() as container:
            try:
                for packet in container.demux():
                    if packet.pts is not None:
                        first.setdefault(packet.stream_index, packet.pts * packet.time_base)
                        last[packet.stream_index] = (packet.pts + (packet.duration or 0)) * packet.time_base
            except av.FFmpegError:
                pass  # cut short: what was counted is what there is
        return float(max(last.values()) - min(first.values())) if last else 0.0


def open_media(source: Source) -> MediaFile:
    """Open a path or a binary file object for reading; use it as a context manager.

    Raises:
        MediaError: it does not exist, is empty, is not media, or nothing in it decodes.
    """
    return MediaFile(source)


def read_clip(source: Source, start: float = 0.0, end: float | None = None) -> Clip:
    """A whole short file, or its stretch `start`..`end` (seconds, taken to 1/25 s), in memory.

    Raises:
        MediaError: as `open_media`, or the stretch lies outside the file.
    """
    with open_media(source) as media:
        blocks = list(media.audio_blocks(start, end))
        frames = list(media.frames(start, end))
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


# ---- small parts -------------------------------------------------------------------------------


class _View(io.RawIOBase):
    """A reader of a shared file object with a position of its own."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        self._file.seek(self._position)
        data = self._file.read(size)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}
        self._position = base[whence] + offset if whence in base else self._file.seek(offset, whence)
        return self._position

    def tell(self) -> int:
        return self._position


def _can_seek(file: BinaryIO) -> bool:
    try:
        return file.seekable()
    except (AttributeError, OSError):
        return False


def _name(source: Source) -> str:
    if isinstance(source, (str, Path)):
        return str(source)
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "the given file object"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _frame_number(seconds: float) -> int:
    return max(0, round(seconds * FPS))


def _track(stream: Stream | None, frame: Frame | None) -> _Track | None:
    if stream is None or frame is None:
        return None
    first = frame.pts * frame.time_base if frame.pts is not None else Fraction(0)
    return _Track(stream.index, first, float((stream.duration or 0) * stream.time_base))


def _pick(container: InputContainer, kind: str) -> Stream | None:
    """ffmpeg's choice of stream, but never a cover picture."""
    usable = [s for s in container.streams if s.type == kind and not s.disposition & Disposition.attached_pic]
    usable = [s for s in usable if s.codec_context is not None]
    best = container.streams.best(kind)
    return best if best in usable else next(iter(usable), None)


def _first_frames(container: InputContainer, streams: list[Stream], name: str) -> dict[str, Frame]:
    """The first decoded frame of each stream, by kind; a stream of which nothing decodes is left out."""
    firsts: dict[str, Frame] = {}
    for frame in decoded(container, streams, name) if streams else ():
        firsts.setdefault("audio" if isinstance(frame, av.AudioFrame) else "video", frame)
        if len(firsts) == len(streams):
            break
    for stream in streams:
        if stream.type not in firsts:
            logger.warning("'%s' announces a stream of %s, but none of it decodes", name, stream.type)
    return firsts
