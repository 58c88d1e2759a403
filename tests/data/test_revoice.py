import numpy as np
import parselmouth
import pytest

from omni_avsr.data.revoice import revoice
from omni_avsr.data.speech_synthesis import synthesize
from omni_avsr.types import SAMPLE_RATE


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return synthesize("lay green with a four soon").audio


def median_pitch(audio: np.ndarray) -> float:
    pitch = parselmouth.Sound(audio.astype(np.float64), SAMPLE_RATE).to_pitch().selected_array["frequency"]
    return float(np.median(pitch[pitch > 0]))


def loudness(audio: np.ndarray) -> np.ndarray:
    """(N,) root mean square of tenths of a second."""
    whole = audio[: len(audio) // 1600 * 1600].reshape(-1, 1600)
    return np.sqrt((whole**2).mean(1))


def test_the_pitch_moves_and_the_timing_stays(speech: np.ndarray) -> None:
    pitches = []
    for seed in range(4):
        other = revoice(speech, np.random.default_rng(seed))
        assert (other.shape, other.dtype) == (speech.shape, np.float32)
        assert np.corrcoef(loudness(speech), loudness(other))[0, 1] > 0.8
        pitches.append(median_pitch(other))
    assert max(pitches) > 1.5 * min(pitches)


def test_the_generator_decides(speech: np.ndarray) -> None:
    once, again, other = (revoice(speech, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(once, again)
    assert np.abs(once - other).max() > 0.01


@pytest.mark.parametrize("length", [0, 7, 1000, SAMPLE_RATE])
def test_silence_stays_silent(length: int) -> None:
    silence = np.zeros(length, np.float32)
    np.testing.assert_array_equal(revoice(silence, np.random.default_rng(0)), silence)
