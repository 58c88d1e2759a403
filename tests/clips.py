"""Small media for tests: the packaged sample, and files made of arrays."""

from __future__ import annotations

import wave
from functools import cache
from pathlib import Path

import av
import numpy as np

import omni_avsr
from omni_avsr.media.reader import read_clip
from omni_avsr.types import FPS, SAMPLE_RATE, Clip

SAMPLE = Path(omni_avsr.__file__).parent / "assets" / "sample.mp4"


@cache
def sample() -> Clip:
    """The packaged clip: 3 s of a talking face."""
    return read_clip(SAMPLE)


def voice() -> np.ndarray:
    """(48000,) float32: its sound, exactly 3 s."""
    audio = sample().audio
    assert audio is not None
    return audio[: 3 * SAMPLE_RATE]


def silence(seconds: float) -> np.ndarray:
    """(S,) float32 zeros."""
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def grey(seconds: float, size: int = 64) -> np.ndarray:
    """(T, size, size, 3) uint8: a picture without a face."""
    return np.full((round(seconds * FPS), size, size, 3), 128, np.uint8)


def wav(path: Path, audio: np.ndarray) -> Path:
    """A 16-bit mono file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((audio * 32767).astype("<i2").tobytes())
    return path


def video(path: Path, frames: np.ndarray, audio: np.ndarray | None = None, container: str = "matroska") -> Path:
    """A file of H.264 at 25 fps, with PCM sound where given."""
    with av.open(str(path), "w", format=container) as out:
        picture = out.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
        picture.height, picture.width, picture.pix_fmt = *frames.shape[1:3], "yuv420p"
        sound = out.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono") if audio is not None else None
        for frame in frames:
            out.mux(picture.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        out.mux(picture.encode(None))
        if sound is not None and audio is not None:
            block = av.AudioFrame.from_ndarray((audio * 32767).astype(np.int16)[None], "s16", "mono")
            block.sample_rate, block.pts = SAMPLE_RATE, 0
            out.mux(sound.encode(block))
            out.mux(sound.encode(None))
    return path
