"""Media made on the spot by PyAV: small, exact, of any container, codec, rate and timing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from omni_avsr.data.talking_head import render, render_group
from omni_avsr.media.assets import ensure_face_models
from omni_avsr.media.landmarks import MediaPipeDetector

TICKS = 60_000  # timestamps per second of the videos that are written; MPEG-4 allows 65,535

Writer = Callable[..., Path]


def write(
    path: Path,
    *,
    audio: np.ndarray | Iterable[np.ndarray] | None = None,
    rate: int = 16_000,
    acodec: str = "aac",
    layout: str = "mono",
    audio_at: float = 0.0,
    gap: tuple[float, float] | None = None,
    frames: Iterable[np.ndarray] | None = None,
    times: Sequence[float | Fraction] | None = None,
    fps: float | Fraction = 25,
    vcodec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rotate: int = 0,
    hflip: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """Write `path`: `audio` (samples, channels) from `audio_at` on, less `gap`; `frames` at `times` or k / `fps`."""
    with av.open(str(path), "w", options=options or {}) as out:
        sound = picture = None
        pictures = None if frames is None else iter(frames)
        first = None if pictures is None else next(pictures)
        if first is not None:
            picture = out.add_stream(vcodec, rate=Fraction(fps).limit_denominator(1001))
            picture.height, picture.width = first.shape[:2]
            picture.pix_fmt = pix_fmt
            picture.codec_context.time_base = Fraction(1, TICKS)
            picture.options = {"preset": "ultrafast", "crf": "12", "g": "25"} if vcodec == "libx264" else {}
            if rotate or hflip:
                picture.set_display_rotation(rotate, hflip=hflip)
        if audio is not None:
            sound = out.add_stream(acodec, rate=rate, layout=layout)
        if picture is not None:
            number = 0
            while first is not None:
                frame = av.VideoFrame.from_ndarray(first, "rgb24")
                frame.time_base = Fraction(1, TICKS)
                frame.pts = round((times[number] if times else number / Fraction(fps)) * TICKS)
                out.mux(picture.encode(frame))
                first, number = next(pictures, None), number + 1
            out.mux(picture.encode(None))
        if sound is not None:
            begin = round(audio_at * rate)
            for block in [audio] if isinstance(audio, np.ndarray) else audio:
                for at in range(0, len(block), 1024):
                    samples = np.ascontiguousarray(block[at : at + 1024]).reshape(-1, len(sound.layout.channels))
                    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), "fltp", layout)
                    frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), begin
                    if gap is None or not gap[0] <= begin / rate < gap[1]:
                        out.mux(sound.encode(frame))
                    begin += len(samples)
            out.mux(sound.encode(None))
    return path


@pytest.fixture
def media(tmp_path: Path) -> Writer:
    """`media("name.mp4", audio=…, frames=…)` writes a file into the test's folder."""
    return lambda name, **what: write(tmp_path / name, **what)


def counter(count: int, size: tuple[int, int] = (64, 48)) -> list[np.ndarray]:
    """Frames whose number survives compression: eight black or white squares, a binary clock."""
    width, height = size
    frames = []
    for number in range(count):
        frame = np.zeros((height, width, 3), np.uint8)
        for bit in range(8):
            if number >> bit & 1:
                frame[:, bit * width // 8 : (bit + 1) * width // 8] = 255
        frames.append(frame)
    return frames


def numbers(frames: Iterable[np.ndarray]) -> list[int]:
    """What `counter` wrote into frames, modulo 256."""
    read = []
    for frame in frames:
        squares = np.array_split(frame.mean((0, 2)), 8)
        read.append(sum((square[1:-1].mean() > 127) << bit for bit, square in enumerate(squares)))
    return read


def tone(seconds: float, rate: int = 16_000, hertz: float = 440.0, level: float = 0.5) -> np.ndarray:
    """(samples, 1) float32 sine."""
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)[:, None]


@pytest.fixture(scope="session")
def mediapipe() -> MediaPipeDetector:
    """The real networks; `make test` has put them into the cache. Missing ones fail the test: nothing is skipped."""
    ensure_face_models(offline=True)
    return MediaPipeDetector(offline=True)


@pytest.fixture(scope="session")
def talker() -> Any:
    """Twenty-five rendered frames of one face, with the places of its landmarks."""
    return render([], 1.0, seed=3)


@pytest.fixture(scope="session")
def pair() -> Any:
    """Two rendered faces side by side in the same frames."""
    return render_group([([], None), ([], None)], 1.0, seed=5, size=(640, 360))
