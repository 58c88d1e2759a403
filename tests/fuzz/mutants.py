"""Damaged containers: case number -> bytes, the same in every run on one machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soxr

from omni_avsr.types import FPS, SAMPLE_RATE
from tests.clips import sample

SECONDS = 1.2  # of every seed: enough for a face, a voice and two seek points
HEAD = 1024  # bytes at the front, where containers keep what everything else depends on


@dataclass(frozen=True)
class Seed:
    """A good file to damage."""

    suffix: str
    vcodec: str = ""
    acodec: str = ""
    rate: int = 16_000


SEEDS = (
    Seed("mp4", "libx264", "aac", 44_100),
    Seed("mov", "mpeg4", "pcm_s16le"),
    Seed("mkv", "libx264", "flac"),
    Seed("webm", "libvpx", "libopus", 48_000),
    Seed("avi", "mjpeg", "libmp3lame", 44_100),
    Seed("ts", "mpeg2video", "mp2", 48_000),
    Seed("flv", "flv", "libmp3lame", 44_100),
    Seed("mxf", "mpeg2video", "pcm_s16le", 48_000),
    Seed("wmv", "wmv2", "wmav2", 44_100),
    Seed("mp4", "libx265", "ac3", 48_000),
    Seed("mp4", "libx264"),
    Seed("wav", "", "pcm_s24le", 48_000),
    Seed("mp3", "", "libmp3lame", 44_100),
    Seed("ogg", "", "libopus", 48_000),
    Seed("flac", "", "flac", 44_100),
    Seed("m4a", "", "alac", 44_100),
)


def make_seeds(folder: Path) -> list[Path]:
    """The seeds on disk: a piece of the packaged talking face in every container."""
    clip = sample()
    assert clip.audio is not None
    assert clip.frames is not None
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:02d}.{seed.suffix}" for number, seed in enumerate(SEEDS)]
    for path, seed in zip(paths, SEEDS, strict=True):
        audio = soxr.resample(clip.audio[: round(SECONDS * SAMPLE_RATE)], SAMPLE_RATE, seed.rate)
        _encode(path, seed, clip.frames[: round(SECONDS * FPS), ::2, ::2], audio)
    return paths


def _encode(path: Path, seed: Seed, pictures: np.ndarray, audio: np.ndarray) -> None:
    with av.open(str(path), "w") as out:
        picture = out.add_stream(seed.vcodec, rate=FPS) if seed.vcodec else None
        sound = out.add_stream(seed.acodec, rate=seed.rate, layout="mono") if seed.acodec else None
        if sound is not None:
            sound.bit_rate = 64_000  # which wmav2 asks for
        if picture is not None:
            picture.height, picture.width = pictures.shape[1:3]
            picture.pix_fmt = "yuvj420p" if seed.vcodec == "mjpeg" else "yuv420p"
            picture.codec_context.thread_count = 1
            picture.options = {"g": "12", "preset": "ultrafast", "x265-params": "log-level=none"}
            for array in pictures:
                out.mux(picture.encode(av.VideoFrame.from_ndarray(array, "rgb24")))
            out.mux(picture.encode(None))
        if sound is not None:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio[None]), "fltp", "mono")
            frame.sample_rate, frame.pts = seed.rate, 0
            out.mux(sound.encode(frame))
            out.mux(sound.encode(None))


def mutant(case: int, seeds: list[bytes]) -> tuple[int, bytes]:
    """(number of its seed, bytes) of a case: one to eight injuries of a seed."""
    rng = np.random.default_rng(case)
    number = case % len(seeds)
    data = bytearray(seeds[number])
    for _ in range(int(rng.choice([1, 1, 2, 4, 8]))):
        injury = INJURIES[rng.integers(len(INJURIES))]
        injury(data, rng, seeds[rng.integers(len(seeds))])
    return number, bytes(data)


# ---- injuries, in place ----------------------------------------------------------------------

Injury = Callable[[bytearray, np.random.Generator, bytes], None]


def _place(data: bytearray, rng: np.random.Generator, most: int = 4096) -> slice:
    """A stretch, half of the time near the front."""
    end = min(len(data), HEAD) if rng.random() < 0.5 else len(data)
    start = int(rng.integers(end + 1))
    return slice(start, start + int(rng.integers(1, most)))


def _flip(data: bytearray, rng: np.random.Generator, other: bytes) -> None:
    for _ in range(int(rng.integers(1, 32))):
        if data:
            data[_place(data, rng).start % len(data)] ^= 1 << int(rng.integers(8))


def _number(data: bytearray, rng: np.random.Generator, other: bytes) -> None:
    """A length, a count or a time becomes one that no honest file has."""
    extremes = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
    value, width = extremes[rng.integers(len(extremes))], int(rng.choice([1, 2, 4, 8]))
    at = _place(data, rng).start
    order = "little" if rng.random() < 0.5 else "big"
    data[at : at + width] = (value % 256**width).to_bytes(width, order)  # type: ignore[arg-type]


def _noise(data: bytearray, rng: np.random.Generator, other: bytes) -> None:
    place = _place(data, rng)
    data[place] = rng.bytes(len(data[place]))


def _blank(data: bytearray, rng: np.random.Generator, other: bytes) -> None:
    place = _place(data, rng)
    data[place] = bytes([int(rng.choice([0, 255]))]) * len(data[place])


def _cut(data: bytearray, rng: np.random.Generator, other: bytes) -> None:
    del data[_place(data, rng)]


def _truncate(data: bytearray, rng: np.random.Generator, other: bytes) -> None:
    del data[int(rng.integers(len(data) + 1)) :]


def _repeat(data: bytearray, rng: np.random.Generator, other: bytes) -> None:
    place = _place(data, rng)
    data[place.start : place.start] = data[place] * int(rng.integers(1, 4))


def _swap(data: bytearray, rng: np.random.Generator, other: bytes) -> None:
    one, two = _place(data, rng), _place(data, rng)
    data[one], data[two] = data[two], data[one]


def _graft(data: bytearray, rng: np.random.Generator, other: bytes) -> None:
    """A piece of another container."""
    data[_place(data, rng)] = other[_place(bytearray(other), rng)]


INJURIES: tuple[Injury, ...] = (_flip, _number, _noise, _blank, _cut, _truncate, _repeat, _swap, _graft)
