"""One small file per utterance: its mouth crops and its 16 kHz audio, so that training never opens the source.

A store is a Matroska file that any player shows: 96 x 96 grey video at 25 fps and FLAC audio. H.264 keeps a
3 s clip in about 28 kB (rms error about 1.2 of 255, where lossless FFV1 takes 190 kB) and decodes in 2-3 ms.
What produced the file stands in its metadata, so an interrupted preparation knows which files are finished.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, cast

import av
import numpy as np

from omni_avsr.errors import ConfigError, DataError, nearest
from omni_avsr.types import FPS, MOUTH_SIZE, SAMPLE_RATE

SUFFIX = ".mkv"
NOTE = "OMNI_AVSR"  # metadata key
# x264 looks ahead on half-size pictures and, where the width is no multiple of 32, reads beside them: the same frames
# then give other bytes each time. So it does not look ahead.
X264 = "no-mbtree=1:rc-lookahead=0:scenecut=0:bframes=0:weightp=0"


@dataclass(frozen=True)
class Codec:
    """How crops are packed: ffmpeg's encoder and its options."""

    encoder: str
    options: Mapping[str, str]


CODECS: dict[str, Codec] = {
    "h264": Codec("libx264", {"crf": "17", "preset": "slow", "tune": "fastdecode", "x264-params": X264}),
    "ffv1": Codec("ffv1", {"level": "3", "slices": "4", "g": "1"}),  # lossless
}


@dataclass(frozen=True)
class Stored:
    """What a store holds."""

    crops: np.ndarray | None  # (T, 96, 96) uint8
    found: np.ndarray | None  # (T,) bool, True where a face was seen
    audio: np.ndarray | None  # (S,) int16, 16 kHz
    note: dict[str, Any] = field(default_factory=dict)


def write_store(
    path: Path,
    crops: np.ndarray | None,
    audio: np.ndarray | None,
    found: np.ndarray | None = None,
    note: Mapping[str, Any] | None = None,
    codec: str = "h264",
) -> Path:
    """Writes a store beside `path`, then renames.

    Args:
        crops: (T, 96, 96) uint8, T >= 1, or None.
        audio: (S,) float32 in [-1, 1] or int16, 16 kHz, S >= 1, or None.
        found: (T,) bool; None = everywhere.
        note: anything JSON; read back by `read_note`.
        codec: row of `CODECS`.

    Raises:
        ConfigError: no such codec.
        DataError: neither crops nor audio, or a shape or type that does not fit.
    """
    if codec not in CODECS:
        raise ConfigError(f"unknown codec '{codec}'; {nearest(codec, CODECS)}")
    _check(crops, audio)
    kept = {"note": dict(note or {}), "lost": _gaps(found)}
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # bitexact: no random ids and no dates, so that the same input gives the same bytes.
        with av.open(str(beside), "w", format="matroska", container_options={"fflags": "+bitexact"}) as container:
            container.metadata[NOTE] = json.dumps(kept)
            _mux(container, crops, audio, CODECS[codec])
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def read_store(path: Path | BinaryIO, video: bool = True, audio: bool = True) -> Stored:
    """A store's content, or only the streams asked for.

    Raises:
        DataError: not a store, or damaged.
    """
    pictures: list[np.ndarray] = []
    sounds: list[np.ndarray] = []
    try:
        with av.open(str(path) if isinstance(path, Path) else path, "r") as container:
            kept = _kept(container, path)
            wanted = [*container.streams.video[: int(video)], *container.streams.audio[: int(audio)]]
            for stream in container.streams.video:
                stream.codec_context.thread_count = 1  # a clip is too short to share; loaders run side by side
            for packet in container.demux(wanted) if wanted else ():
                for frame in packet.decode():
                    if isinstance(frame, av.VideoFrame):
                        pictures.append(_luma(frame))
                    elif isinstance(frame, av.AudioFrame):
                        sounds.append(frame.to_ndarray().reshape(-1))
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"mouth file '{path}' cannot be read ({error}); delete it and run prepare again") from None
    crops = np.stack(pictures) if pictures else None
    return Stored(
        crops=crops,
        found=None if crops is None else _mask(kept["lost"], len(crops)),
        audio=np.concatenate(sounds) if sounds else None,
        note=kept["note"],
    )


def read_note(path: Path) -> dict[str, Any] | None:
    """The note of a finished store; None where there is none, or not a whole one."""
    if not path.is_file():
        return None
    try:
        with av.open(str(path)) as container:
            note: dict[str, Any] = _kept(container, path)["note"]
            return note
    except (av.FFmpegError, OSError, DataError):
        return None


# ---- small parts -------------------------------------------------------------------------------


def _check(crops: np.ndarray | None, audio: np.ndarray | None) -> None:
    if crops is None and audio is None:
        raise DataError("a mouth file needs crops or audio; got neither")
    if crops is not None and (crops.shape[1:] != (MOUTH_SIZE, MOUTH_SIZE) or crops.dtype != np.uint8 or not len(crops)):
        raise DataError(f"crops are {crops.shape} {crops.dtype}; expected (T, {MOUTH_SIZE}, {MOUTH_SIZE}) uint8, T > 0")
    if audio is not None and (audio.ndim != 1 or not len(audio) or audio.dtype not in (np.float32, np.int16)):
        raise DataError(f"audio is {audio.shape} {audio.dtype}; expected (S,) float32 or int16, S > 0")


def to_int16(audio: np.ndarray) -> np.ndarray:
    """(S,) float in [-1, 1] -> (S,) int16; 16-bit sources come back exactly."""
    if audio.dtype == np.int16:
        return audio
    return np.rint(audio * 32768.0).clip(-32768, 32767).astype(np.int16)


def to_float(audio: np.ndarray) -> np.ndarray:
    """(S,) int16 -> (S,) float32 in [-1, 1)."""
    return audio.astype(np.float32) * np.float32(1 / 32768)


def _mux(
    container: av.container.OutputContainer, crops: np.ndarray | None, audio: np.ndarray | None, codec: Codec
) -> None:
    video = sound = None
    if crops is not None:
        video = cast(av.VideoStream, container.add_stream(codec.encoder, rate=FPS, options=dict(codec.options)))
        video.width = video.height = MOUTH_SIZE
        video.pix_fmt = "gray"
        video.codec_context.thread_count = 1
        video.codec_context.color_range = 2  # full: without it 0..255 is squeezed into 16..235
    if audio is not None:
        sound = container.add_stream("flac", rate=SAMPLE_RATE)
        sound.layout = "mono"
    if video is not None:
        for picture in (*_pictures(crops), None):  # None: what the encoder holds back
            container.mux(video.encode(picture))
    if sound is not None:
        for samples in (*_sounds(audio), None):
            container.mux(sound.encode(samples))


def _pictures(crops: np.ndarray | None) -> Iterator[av.VideoFrame]:
    for number, crop in enumerate(crops if crops is not None else ()):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(crop), format="gray")
        frame.color_range = 2
        frame.pts, frame.time_base = number, Fraction(1, FPS)
        yield frame


def _sounds(audio: np.ndarray | None) -> Iterator[av.AudioFrame]:
    if audio is not None:
        frame = av.AudioFrame.from_ndarray(to_int16(audio)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, 0
        yield frame


def _luma(frame: av.VideoFrame) -> np.ndarray:
    """(96, 96) uint8: the first plane as it is; a conversion to grey would cost three times the decoding."""
    plane = frame.planes[0]
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width].copy()


def _kept(container: av.container.InputContainer, path: Path | BinaryIO) -> dict[str, Any]:
    text = container.metadata.get(NOTE)
    if text is None:
        raise DataError(f"'{path}' is not a mouth file of this project; make one with: omni-avsr prepare ... --mouths")
    kept: dict[str, Any] = json.loads(text)
    return kept


def _gaps(found: np.ndarray | None) -> list[list[int]]:
    """Runs [start, stop) of frames without a face."""
    if found is None or found.all():
        return []
    edges = np.flatnonzero(np.diff(np.concatenate([[True], found.astype(bool), [True]]).astype(np.int8)))
    return edges.reshape(-1, 2).tolist()


def _mask(gaps: Sequence[Sequence[int]], length: int) -> np.ndarray:
    found = np.ones(length, bool)
    for start, stop in gaps:
        found[start:stop] = False
    return found
