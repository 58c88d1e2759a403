"""Shared by the tests of data."""

from __future__ import annotations

import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from omni_avsr.types import SAMPLE_RATE

WriteWav = Callable[[Path, np.ndarray], Path]


@pytest.fixture(scope="session")
def write_wav() -> WriteWav:
    """`write_wav(path, audio)`: (S,) float in [-1, 1] as a 16 kHz mono file."""

    def write(path: Path, audio: np.ndarray) -> Path:
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes((audio * 32767).astype("<i2").tobytes())
        return path

    return write
