"""Features: transformers' log-mel to rounding, and the contract's arithmetic of lengths, cuts and pads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import WhisperFeatureExtractor

from omni_avsr.config import PreprocessConfig
from omni_avsr.errors import InputError
from omni_avsr.media.features import extract, fit, log_mel

OWN_LENGTH = PreprocessConfig(audio_window=0.0)


def sound(samples: int, seed: int = 0) -> np.ndarray:
    """Noise whose loudness wanders over sixty decibels, so that floor and range both bite."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=samples) * 10 ** rng.uniform(-3, -0.5, samples // 800 + 1).repeat(800)[:samples]).astype(
        "f"
    )


def mouths(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, 96, 96), dtype=np.uint8)


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("samples", [8_000, 47_926, 130_001, 479_900, 480_000])
def test_log_mel_is_that_of_transformers(n_mels: int, samples: int) -> None:
    theirs = WhisperFeatureExtractor(feature_size=n_mels)
    audio = sound(samples)
    padded = torch.as_tensor(theirs(audio, sampling_rate=16_000, return_tensors="np").input_features[0])
    torch.testing.assert_close(log_mel(audio, n_mels, 30), padded, atol=1e-5, rtol=0)
    whole = torch.as_tensor(
        theirs(audio, sampling_rate=16_000, return_tensors="np", padding="do_not_pad").input_features[0]
    )
    torch.testing.assert_close(log_mel(audio, n_mels), whole, atol=1e-5, rtol=0)
    # The comparison is not blind: one per cent of level is far outside its tolerance.
    assert (log_mel(audio * np.float32(1.01), n_mels) - whole).abs().max() > 1e-3


def test_silence_has_a_mel_too() -> None:
    mel = log_mel(np.zeros(16_000, np.float32))
    assert torch.equal(mel, torch.full((80, 100), -1.5))


@pytest.mark.parametrize(("samples", "window"), [(0, 0), (200, 0), (480_001, 30)])
def test_audio_too_short_or_too_long_is_said_so(samples: int, window: float) -> None:
    with pytest.raises(InputError, match="samples of audio"):
        log_mel(np.zeros(samples, np.float32), window=window)


@settings(deadline=None, max_examples=50)
@given(samples=st.integers(1, 60_000), least=st.integers(1, 60), window=st.sampled_from([0.0, 5.0, 30.0]))
def test_lengths_of_sound_alone(samples: int, least: int, window: float) -> None:
    contract = PreprocessConfig(audio_window=window, min_audio_frames=least)
    features = extract(sound(samples), None, contract)
    assert features.audio_frames == max(samples // 320, least)
    assert features.mel is not None
    assert features.mel.dtype == torch.float32
    assert features.mel.shape == (80, round(window * 100) or 2 * features.audio_frames)
    assert features.mel.shape[1] >= 2 * features.audio_frames
    assert features.video is None
    assert features.video_frames == 0


@settings(deadline=None, max_examples=30)
@given(frames=st.integers(1, 60), samples=st.integers(1, 60_000))
def test_sound_is_cut_or_padded_to_the_picture(frames: int, samples: int) -> None:
    audio, video = sound(samples), mouths(frames)
    both = extract(audio, video, OWN_LENGTH)
    assert both.video_frames == frames
    assert both.audio_frames == max(2 * frames, OWN_LENGTH.min_audio_frames)
    alone = extract(fit(audio, frames * 640), None, OWN_LENGTH)
    assert both.mel is not None
    assert alone.mel is not None
    assert torch.equal(both.mel, alone.mel)


def test_what_lies_beyond_the_picture_is_not_heard() -> None:
    audio, video = sound(32_000), mouths(25)
    loud = audio.copy()
    loud[16_000:] = 1.0
    one, other = extract(audio, video, OWN_LENGTH).mel, extract(loud, video, OWN_LENGTH).mel
    assert one is not None
    assert other is not None
    assert torch.equal(one, other)


@settings(deadline=None, max_examples=20)
@given(gain=st.floats(0.05, 5), offset=st.floats(-0.2, 0.2))
def test_clip_normalisation_removes_level_and_offset(gain: float, offset: float) -> None:
    contract = PreprocessConfig(waveform_norm=True)
    audio = sound(20_000)
    plain = extract(audio, None, contract).mel
    changed = extract((gain * audio + offset).astype(np.float32), None, contract).mel
    assert plain is not None
    assert changed is not None
    assert (plain - changed).abs().max() < 0.02
    assert (plain - extract(audio, None, PreprocessConfig()).mel).abs().max() > 0.1  # and it does something


def test_normalisation_comes_before_the_pad_to_the_least_length() -> None:
    contract = PreprocessConfig(waveform_norm=True, audio_window=0.0, min_audio_frames=50)
    audio = sound(4_000)
    by_hand = np.pad((audio - audio.mean()) / np.sqrt(audio.var() + 1e-8), (0, 12_000))
    mel = extract(audio, None, contract).mel
    assert mel is not None
    torch.testing.assert_close(mel, log_mel(by_hand.astype(np.float32))[:, :100], atol=1e-5, rtol=0)


@given(y=st.integers(0, 8), x=st.integers(0, 8), flip=st.booleans())
@settings(deadline=None, max_examples=20)
def test_picture_is_cropped_mirrored_and_normalised(y: int, x: int, flip: bool) -> None:
    video = mouths(3)
    got = extract(None, video, OWN_LENGTH, crop_at=(y, x), flip=flip).video
    expected = (video[:, y : y + 88, x : x + 88].astype(np.float64) / 255 - 0.421) / 0.165
    expected = expected[:, :, ::-1] if flip else expected
    assert got is not None
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), expected, atol=2e-6)
    centre = extract(None, video, OWN_LENGTH).video
    assert centre is not None
    assert torch.equal(centre, extract(None, video, OWN_LENGTH, crop_at=(4, 4)).video)


def test_nothing_lent_is_changed() -> None:
    audio, video = sound(20_000), mouths(20)
    before = audio.copy(), video.copy()
    extract(audio, video, PreprocessConfig(waveform_norm=True), flip=True)
    assert np.array_equal(audio, before[0])
    assert np.array_equal(video, before[1])


def test_what_does_not_fit_is_said_so() -> None:
    with pytest.raises(InputError, match="neither audio nor video"):
        extract(None, None, OWN_LENGTH)
    with pytest.raises(InputError, match="neither audio nor video"):
        extract(np.zeros(0, np.float32), mouths(0), OWN_LENGTH)
    with pytest.raises(InputError, match="expected \\(samples,\\)"):
        extract(np.zeros((2, 16_000), np.float32), None, OWN_LENGTH)
    with pytest.raises(InputError, match="uint8 grey"):
        extract(None, np.zeros((3, 88, 88), np.uint8), OWN_LENGTH)
    with pytest.raises(InputError, match="leaves the picture"):
        extract(None, mouths(2), OWN_LENGTH, crop_at=(9, 0))
    with pytest.raises(InputError, match="cut it first"):
        extract(np.zeros(31 * 16_000, np.float32), None, PreprocessConfig())
