"""Lips and sound: a shift that is put in is found again, and nothing is claimed where nothing can be known."""

from __future__ import annotations

import numpy as np
import pytest

from omni_avsr.data.sync import REACH, curve, offset
from omni_avsr.types import FPS, SAMPLES_PER_FRAME


def utterance(seed: int, lag: int, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Three seconds in which the mouth opens with the voice, `lag` frames later."""
    rng = np.random.default_rng(seed)
    loud = np.convolve(rng.random(75 + 2 * REACH), np.hanning(7) / 3, "same").clip(0, 1)
    heard = loud[REACH : REACH + 75]
    seen = loud[REACH - lag : REACH - lag + 75] + rng.normal(0, noise, 75)
    crops = rng.normal(120, 2, (75, 96, 96)) - (90 * seen)[:, None, None] * (np.arange(96) > 30)[None, :, None]
    audio = np.repeat(heard, SAMPLES_PER_FRAME) * rng.normal(0, 0.2, 75 * SAMPLES_PER_FRAME)
    return crops.clip(0, 255).astype(np.uint8), audio.astype(np.float32)


@pytest.mark.parametrize("lag", [-9, -3, 0, 4, 10])
def test_the_lag_that_was_put_in(lag: int) -> None:
    curves = [curve(*utterance(seed, lag)) for seed in range(6)]
    found = offset(curves, 18.0)
    assert found is not None
    assert abs(found.seconds * FPS - lag) <= 1
    assert found.correlation > 0.3


def test_too_little_or_unclear_says_nothing() -> None:
    crops, audio = utterance(0, 5)
    assert offset([curve(crops, audio)], 3.0) is None
    still = np.full_like(crops, 80)
    assert not curve(still, audio).any()
    assert not curve(crops, np.zeros_like(audio)).any()
    assert not curve(crops[:20], audio[: 20 * SAMPLES_PER_FRAME]).any()
    strangers = [curve(utterance(i, 0)[0], utterance(i + 50, 0)[1]) for i in range(8)]
    assert offset(strangers, 24.0) is None
