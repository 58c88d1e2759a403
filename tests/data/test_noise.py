"""Noise: 0 dB is 0 dB, colours have their slopes, short recordings loop without a click."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_avsr.data.noise import NOISES, Recordings, fast_length, load_noises, loop, mix_noise
from omni_avsr.errors import ConfigError, DataError, MediaError
from omni_avsr.types import SAMPLE_RATE


def voices(count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Utterances of different lengths and levels."""
    return [rng.normal(0, 0.01 * (i + 1), 9000 + 500 * i).astype(np.float32) for i in range(count)]


def speech(seed: int = 0, samples: int = SAMPLE_RATE) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


@given(st.floats(-30, 40), st.floats(1e-3, 1e3), st.integers(1, 3000), st.integers(1, 3000))
def test_the_ratio_is_exact_whatever_levels_and_lengths(snr: float, level: float, samples: int, length: int) -> None:
    audio = speech(1, samples)
    noise = np.float32(level) * speech(2, length)
    added = mix_noise(audio, noise, snr).astype(np.float64) - audio
    ratio = 10 * np.log10(np.square(audio, dtype=np.float64).sum() / np.square(added).sum())
    assert ratio == pytest.approx(snr, abs=0.05)  # float32: at 40 dB the noise has few digits left


def test_zero_decibels_are_equal_energies() -> None:
    audio, noise = speech(1), speech(2)
    added = mix_noise(audio, noise, 0).astype(np.float64) - audio
    assert np.square(added).sum() == pytest.approx(np.square(audio, dtype=np.float64).sum(), rel=1e-5)
    assert np.corrcoef(added, noise)[0, 1] == pytest.approx(1)


def test_silence_has_no_ratio_and_nothing_lent_is_changed() -> None:
    audio, noise = speech(1), speech(2)
    before = audio.copy(), noise.copy()
    mix_noise(audio, noise, -5)
    assert np.array_equal(audio, before[0])
    assert np.array_equal(noise, before[1])
    silence = np.zeros(100, np.float32)
    assert np.array_equal(mix_noise(silence, noise, 0), silence)
    assert np.array_equal(mix_noise(audio, silence, 0), audio)
    assert mix_noise(silence, noise, 0) is not silence


# ---- the table ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NOISES)
@pytest.mark.parametrize("samples", [1, 4097, 30000])
def test_every_noise_has_its_length_sound_and_seed(name: str, samples: int) -> None:
    def make(seed: int) -> np.ndarray:
        return NOISES[name](samples, np.random.default_rng(seed), voices)

    noise = make(0)
    assert noise.shape == (samples,)
    assert noise.dtype == np.float32
    assert np.isfinite(noise).all()
    assert np.square(noise).sum() > 0
    assert np.array_equal(noise, make(0))
    assert not np.array_equal(noise, make(1))


@pytest.mark.parametrize(("name", "slope"), [("white", 0), ("pink", -1), ("brown", -2)])
def test_colours_fall_as_their_names_say(name: str, slope: int) -> None:
    noise = NOISES[name](20 * SAMPLE_RATE, np.random.default_rng(0), None)
    power = np.square(np.abs(np.fft.rfft(noise.reshape(-1, 16000)))).mean(0)  # 1 Hz a bin
    octaves = [power[low : 2 * low].mean() for low in (100, 200, 400, 800, 1600, 3200)]
    assert np.polyfit(range(6), np.log2(octaves), 1)[0] == pytest.approx(slope, abs=0.1)


def test_babble_holds_several_voices_at_like_levels() -> None:
    asked = []

    def tones(count: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Each voice a tone of its own, some of them very quiet."""
        asked.append(count)
        time = np.arange(SAMPLE_RATE, dtype=np.float32) / SAMPLE_RATE
        return [0.5 * 10.0 ** -(i % 3) * np.sin(2 * np.pi * (300 + 100 * i) * time) for i in range(count)]

    for seed in range(20):
        noise = NOISES["babble"](SAMPLE_RATE, np.random.default_rng(seed), tones)
        heard = np.abs(np.fft.rfft(noise))[300 : 300 + 100 * asked[-1] : 100]
        assert heard.max() / heard.min() < 2.1  # 6 dB
    assert set(asked) <= set(range(4, 10))
    assert len(set(asked)) > 3


def test_babble_without_voices_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="choose white or pink"):
        NOISES["babble"](100, np.random.default_rng(0), None)


# ---- recordings --------------------------------------------------------------------------------


@given(st.integers(1, 5000), st.integers(0, 12000))
def test_loops_have_the_length_and_begin_as_recorded(length: int, samples: int) -> None:
    noise = speech(3, length)
    out = loop(noise, samples)
    assert out.shape == (samples,)
    whole = min(length - min(1600, length // 2), samples)
    assert np.array_equal(out[:whole], noise[:whole])


def test_loops_have_no_click_and_keep_their_level() -> None:
    steady = np.cos(2 * np.pi * 100.3 * np.arange(12000) / SAMPLE_RATE).astype(np.float32)
    looped = loop(steady, 50000)
    assert np.abs(np.diff(looped)).max() < 2 * np.abs(np.diff(steady)).max()
    noise = loop(speech(3, 12000), 60000)
    levels = np.square(noise.reshape(-1, 1500)).mean(1)
    assert levels.max() / levels.min() < 1.4
    with pytest.raises(DataError, match="empty"):
        loop(noise[:0], 10)


def test_a_folder_of_recordings(tmp_path: Path, write_wav: Callable[[Path, np.ndarray], Path]) -> None:
    ramp = np.linspace(-0.9, 0.9, 3000)
    write_wav(tmp_path / "long.wav", ramp)
    (tmp_path / "readme.txt").touch()
    noise = load_noises(["white", str(tmp_path)])[1]
    pieces = [noise(500, np.random.default_rng(seed), None) for seed in range(20)]
    assert all(len(piece) == 500 and np.all(np.diff(piece) > 0) for piece in pieces)  # a stretch, unbroken
    assert len({float(piece[0]) for piece in pieces}) > 10  # from anywhere
    assert np.array_equal(noise(500, np.random.default_rng(3), None), pieces[3])
    assert len(noise(7000, np.random.default_rng(0), None)) == 7000
    (tmp_path / "long.wav").unlink()
    assert len(noise(10, np.random.default_rng(0), None)) == 10  # decoded once


def test_a_crowd_is_several_recordings_at_once(tmp_path: Path, write_wav: Callable[[Path, np.ndarray], Path]) -> None:
    time = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    for i in range(12):  # each voice a tone of its own, in files of different lengths
        write_wav(tmp_path / f"{i}.wav", 0.5 * np.sin(2 * np.pi * (300 + 100 * i) * time[: 9000 + 3000 * i]))
    (crowd,) = load_noises([f"babble={tmp_path}"])
    counts = set()
    for seed in range(20):
        noise = crowd(SAMPLE_RATE, np.random.default_rng(seed), None)
        assert np.array_equal(noise, crowd(SAMPLE_RATE, np.random.default_rng(seed), None))
        heard = np.abs(np.fft.rfft(noise))[300:1500:100]
        counts.add(int((heard > heard.max() / 8).sum()))
    assert counts <= set(range(4, 10))
    assert len(counts) > 3
    with pytest.raises(ConfigError, match="no noise"):
        load_noises(["babble=nowhere"])


def test_what_is_no_noise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'babble'"):
        load_noises(["bable"])
    with pytest.raises(DataError, match="no recordings"):
        load_noises([str(tmp_path)])
    (tmp_path / "a.wav").write_bytes(b"no sound")
    with pytest.raises(MediaError, match=r"a\.wav"):
        Recordings(tmp_path)(10, np.random.default_rng(0), None)


@given(st.integers(1, 200000))
def test_fast_lengths_have_small_factors(samples: int) -> None:
    length = fast_length(samples)
    assert samples <= length < samples + 2048
    assert length % 2048 == 0
