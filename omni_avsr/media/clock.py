"""From decoded frames with timestamps to the common clock: 16 kHz samples and a 25 fps grid of pictures."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import cast

import av
import cv2
import numpy as np
import soxr
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from omni_avsr.errors import MediaError
from omni_avsr.types import FPS, SAMPLE_RATE

logger = logging.getLogger(__name__)

Frame = av.AudioFrame | av.VideoFrame
JITTER = Fraction(1, 50)  # seconds by which audio timestamps may disagree with the sample count: half a video frame
MAX_GAP = 600  # seconds; a longer jump, or one back by more than REPEAT, is no gap but a new count of time
REPEAT = 1  # seconds that a stream may repeat; they are dropped
LAST_FRAME = 10  # seconds that a picture without a follower is shown at most
MAX_PIXELS = 2**26  # of a picture, twice 8K; more is damage
RATES = range(1_000, 1_000_000)  # samples per second that are believed
EARLIEST = Fraction(-10)  # seconds; a timestamp further before the beginning is a defect of the file
# ITU-R BS.775 downmix to stereo, summed; what is not named weighs 1. Divided by the sum, so it cannot clip.
DOWNMIX = {"FC": 2**0.5, "LFE": 0.0, "LFE2": 0.0} | dict.fromkeys(("BL", "BR", "SL", "SR", "BC"), 0.5**0.5)
PCM = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "s64": np.int64, "flt": np.float32, "dbl": np.float64}
TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


def timestamp(frame: Frame) -> Fraction | None:
    """Seconds on the container's own clock; None where the file does not say."""
    return None if frame.pts is None or frame.time_base is None else frame.pts * frame.time_base


def packets(container: InputContainer, streams: Sequence[AudioStream | VideoStream] = ()) -> Iterator[av.Packet]:
    """Packets of `streams`, of all without any. Raises av.FFmpegError where the file cannot be read on."""
    while True:
        try:
            yield from container.demux(*streams)
            return
        except IndexError:
            continue  # PyAV 18 trips over the first packet of a stream that appears midway; it is none of ours


def decoded(container: InputContainer, streams: Sequence[AudioStream | VideoStream], name: str) -> Iterator[Frame]:
    """Decoded frames of `streams` in file order; damage is skipped and logged once, never raised."""
    source = packets(container, streams)
    broken, failure = 0, None
    while True:
        try:
            packet = next(source, None)
        except av.FFmpegError as error:
            failure = error
            break
        if packet is None:
            break
        try:
            frames = cast(list[Frame], packet.decode())  # only sound and picture are asked for
        except av.FFmpegError as error:
            broken, failure = broken + 1, error
            continue
        yield from frames
    if failure is not None:
        yield from _held_back(streams)
        logger.warning(
            "'%s' is damaged or cut short (%s; %d packets lost); going on with the rest", name, failure, broken
        )


def _held_back(streams: Sequence[AudioStream | VideoStream]) -> Iterator[Frame]:
    """What decoders still hold when a file ends in an error."""
    for stream in streams:
        try:
            frames: list[Frame] = [*stream.codec_context.decode(None)]
        except av.FFmpegError:
            continue  # already drained
        yield from frames


# ---- sound -------------------------------------------------------------------------------------


def floats(samples: np.ndarray) -> np.ndarray:
    """PCM of any type as float32 in [-1, 1], same shape."""
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    if samples.dtype == np.uint8:  # the one unsigned PCM type
        return (samples.astype(np.float32) - 128) / 128
    return (samples / (np.iinfo(samples.dtype).max + 1)).astype(np.float32)


def bounded(samples: np.ndarray) -> np.ndarray:
    """float32 in [-1, 1]: resampling overshoots at clipped peaks, and float files may hold anything."""
    return np.clip(np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0), -1, 1).astype(np.float32, copy=False)


def mono(frame: av.AudioFrame) -> np.ndarray:
    """(n,) float32: the channels of a decoded frame, mixed by the weights of `DOWNMIX`."""
    channels = frame.layout.channels
    samples = floats(_pcm(frame, len(channels)))  # (channels, n)
    if len(channels) == 1:
        return samples[0]
    weights = np.array([DOWNMIX.get(channel.name, 1.0) for channel in channels], np.float32)
    return weights / weights.sum() @ samples if weights.any() else samples.mean(0)


def _pcm(frame: av.AudioFrame, channels: int) -> np.ndarray:
    """(channels, n) as decoded.

    Not by `to_ndarray`: beyond eight channels PyAV 18 counts planes that do not exist, and reads them.
    """
    kind = PCM[frame.format.name.removesuffix("p")]
    planes = cast(tuple[bytes, ...], frame.planes)  # which give their buffers
    if frame.format.is_planar:
        return np.stack([np.frombuffer(plane, kind, frame.samples) for plane in planes[:channels]])
    return np.frombuffer(planes[0], kind, frame.samples * channels).reshape(-1, channels).T


class AudioClock:
    """Places decoded audio on the clock and resamples it.

    Attributes:
        seconds: where the sound placed so far ends.
    """

    def __init__(self, origin: Fraction, first: Fraction, limit: Fraction) -> None:
        """Times in seconds on the container's clock: its `origin`, the stream's `first` frame; `limit` after origin."""
        self.seconds = 0.0
        self._origin, self._limit = origin, limit
        self._anchor = first - origin  # time of source sample 0
        self._lead = round(self._anchor * SAMPLE_RATE)  # output number of source sample 0
        self._rate = 0
        self._next = 0  # number of the next source sample
        self._out = 0  # number of the next output sample
        self._resample: Callable[[np.ndarray, bool], np.ndarray] = lambda samples, last: samples

    def samples(self, frames: Iterator[av.AudioFrame], wanted: int) -> Iterator[np.ndarray]:
        """Chunks (n,) float32 that join without gaps, from output sample `wanted` on."""
        started = False
        for chunk in self._resampled(frames):
            if not started:
                yield from silence(self._out - wanted)
                started = True
            skip = max(wanted - self._out, 0)
            self._out += len(chunk)
            self.seconds = self._out / SAMPLE_RATE
            if len(chunk) > skip:
                yield bounded(chunk[skip:])

    def _resampled(self, frames: Iterator[av.AudioFrame]) -> Iterator[np.ndarray]:
        nothing = np.zeros(0, np.float32)
        for frame in frames:
            if not self._rate:
                self._begin(frame.sample_rate)
                self._align(frame)
            elif frame.sample_rate != self._rate:  # it may change within a stream: finish, go on where that ended
                yield self._resample(nothing, True)
                self._anchor += Fraction(self._next, self._rate)
                self._lead, self._next = self._out, 0
                self._begin(frame.sample_rate)
            yield from self._place(frame)
        if self._rate:
            yield self._resample(nothing, True)

    def _begin(self, rate: int) -> None:
        if rate not in RATES:
            raise MediaError(f"The sound has {rate} samples per second, which cannot be; the file is damaged.")
        self._rate = rate
        self._tolerance = JITTER * rate
        if rate == SAMPLE_RATE:
            self._resample = lambda samples, last: samples
        else:
            stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
            self._resample = lambda samples, last: stream.resample_chunk(samples, last=last)

    def _align(self, frame: av.AudioFrame) -> None:
        """After a seek, begin with a source sample that falls on an output sample, as when read from the beginning."""
        step = self._rate // math.gcd(self._rate, SAMPLE_RATE)
        self._next = max(0, -(-(self._number(frame) or 0) // step) * step)
        self._out = self._lead + self._next * SAMPLE_RATE // self._rate
        self._tolerance = Fraction(0)

    def _number(self, frame: av.AudioFrame) -> int | None:
        """Number of the frame's first source sample by its timestamp; None where that cannot be true."""
        stamp = timestamp(frame)
        if stamp is None or not EARLIEST <= stamp - self._origin <= self._limit:
            return None
        return round((stamp - self._origin - self._anchor) * self._rate)

    def _place(self, frame: av.AudioFrame) -> Iterator[np.ndarray]:
        """The frame resampled; before it silence where its timestamp leaves a gap, less what it repeats."""
        samples = mono(frame)
        number = self._number(frame)
        ahead = 0 if number is None else number - self._next
        if self._tolerance and not -REPEAT * self._rate <= ahead <= MAX_GAP * self._rate:
            logger.warning("sound jumps by %.0f s in its timestamps; it goes on without a gap", ahead / self._rate)
            self._anchor += Fraction(ahead, self._rate)
            ahead = 0
        if abs(ahead) > self._tolerance:
            for gap in silence(ahead, self._rate):
                self._next += len(gap)
                yield self._resample(gap, False)
            samples = samples[max(-ahead, 0) :]
        self._tolerance = JITTER * self._rate
        self._next += len(samples)
        yield self._resample(np.ascontiguousarray(samples), False)


def silence(samples: int, block: int = SAMPLE_RATE) -> Iterator[np.ndarray]:
    """Zeros (n,) float32, `samples` in all, none where that is negative; in blocks, however long the gap."""
    for begin in range(0, samples, block):
        yield np.zeros(min(block, samples - begin), np.float32)


# ---- picture -----------------------------------------------------------------------------------


class VideoClock:
    """Picks for each time k/25 s the source frame nearest to it, and makes it upright RGB.

    Attributes:
        seconds: where the last frame seen so far ends.
    """

    def __init__(self, origin: Fraction, limit: Fraction, rate: Fraction, aspect: Fraction | None) -> None:
        """The container's `origin` and `limit` in seconds, the nominal frame `rate`, the `aspect` of a pixel."""
        self.seconds = 0.0
        self._origin, self._limit = origin, limit
        self._period = 1 / Fraction(rate) if 1 <= rate <= 1000 else Fraction(1, FPS)
        self._painter = Painter(aspect)

    def grid(self, frames: Iterator[av.VideoFrame], first: int) -> Iterator[tuple[int, np.ndarray]]:
        """(k, picture) for k = first, first + 1, … to the end; a picture shown twice is the same array."""
        held: av.VideoFrame | None = None
        shown, number = Fraction(0), first
        for frame in frames:
            time = self._time(frame, shown + self._period if held else Fraction(0))
            if held is not None:
                if not -REPEAT <= time - shown <= MAX_GAP:
                    logger.warning("the picture jumps by %.0f s in its timestamps; it goes on", float(time - shown))
                    self._origin += time - shown - self._period
                    time = shown + self._period
                if time <= shown:
                    continue  # timestamps may only grow
                middle = (shown + time) / 2
                if Fraction(number, FPS) <= middle:
                    picture = self._painter.rgb(held)
                    while Fraction(number, FPS) <= middle:
                        yield number, picture
                        number += 1
            held, shown = frame, time
            self.seconds = float(self._end(held, shown))
        if held is not None:
            last = max(1, round(self._end(held, shown) * FPS))
            if number < last:
                picture = self._painter.rgb(held)
                yield from ((k, picture) for k in range(number, last))

    def _time(self, frame: av.VideoFrame, expected: Fraction) -> Fraction:
        stamp = timestamp(frame)
        true = stamp is not None and EARLIEST <= stamp - self._origin <= self._limit
        return stamp - self._origin if stamp is not None and true else expected

    def _end(self, frame: av.VideoFrame, time: Fraction) -> Fraction:
        lasts = frame.duration * frame.time_base if frame.duration and frame.time_base else self._period
        return time + min(lasts, Fraction(LAST_FRAME))


class Painter:
    """Decoded pictures as upright (height, width, 3) uint8 RGB with square pixels, all of the first one's size."""

    def __init__(self, aspect: Fraction | None) -> None:
        """`aspect`: width / height of a source pixel; None, 0 or beyond belief = square."""
        self._aspect = aspect if aspect and Fraction(1, 4) <= aspect <= 4 else Fraction(1)
        self._reformatter = VideoReformatter()
        self._size: tuple[int, int] | None = None  # width, height before turning
        self._turn, self._mirror = 0, False

    def describe(self, frame: av.VideoFrame) -> tuple[int, int, int]:
        """Width and height as shown, and the degrees clockwise by which the picture is turned for that."""
        width, height = max(1, round(frame.width * self._aspect)), frame.height
        if width * height > MAX_PIXELS:
            raise MediaError(f"The picture has {width} x {height} pixels, which cannot be; the file is damaged.")
        self._size = width, height
        self._turn, self._mirror = _orientation(frame)
        return (height, width, self._turn) if self._turn in (90, 270) else (width, height, self._turn)

    def rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """One picture. A size that changes within the stream is scaled to that of the first."""
        if self._size is None:
            self.describe(frame)
        assert self._size is not None
        width, height = self._size
        picture: np.ndarray = self._reformatter.reformat(frame, width, height, "rgb24").to_ndarray()
        if self._mirror:
            picture = cv2.flip(picture, 1)
        return cv2.rotate(picture, TURNS[self._turn]) if self._turn else picture


def _orientation(frame: av.VideoFrame) -> tuple[int, bool]:
    """Degrees clockwise (0, 90, 180, 270) to turn a picture, after mirroring it left to right where True.

    From the display matrix, whose upper left 2 x 2 corner (16.16 fixed point, row vectors) phones write.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return 0, False
    a, b, _, c, d = np.frombuffer(cast(bytes, matrix), np.int32)[:5].astype(float)
    mirror = a * d - b * c < 0
    if mirror:
        a, b = -a, -b
    return round(math.degrees(math.atan2(b, a)) / 90) * 90 % 360, mirror
