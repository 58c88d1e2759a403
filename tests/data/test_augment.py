"""Augmentation: repeatable, in step, inside its limits, and nothing lent is changed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_avsr.config import AugmentConfig
from omni_avsr.data.augment import NOISES, augment, change_speed, load_noises, time_masks, warp
from omni_avsr.types import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME, Sample

EVERYTHING = AugmentConfig(
    flip=0.5, speed=(0.8, 1.2), noise=tuple(NOISES), noise_probability=1, video_corruption=1, audio_corruption=1
)
NOTHING = AugmentConfig(random_crop=False, audio_time_masks=0, video_time_masks=0, noise_probability=0)


def sample(frames: int = 40, audio: bool = True, video: bool = True) -> Sample:
    rng = np.random.default_rng(frames)
    sound = rng.normal(0, 0.1, frames * SAMPLES_PER_FRAME).astype(np.float32)
    crops = rng.integers(1, 256, (frames, 96, 96)).astype(np.uint8)  # never 0: what is 0 was masked
    return Sample("id", sound if audio else None, crops if video else None, "text", "speaker")


def voices(count: int, rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.normal(0, 0.1, 9000).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize("seed", range(12))
def test_the_same_generator_the_same_sample_and_the_input_untouched(seed: int) -> None:
    given_sample = sample()
    assert given_sample.audio is not None
    assert given_sample.mouths is not None
    before = given_sample.audio.copy(), given_sample.mouths.copy()
    noises = load_noises(EVERYTHING.noise)
    one, two = (augment(given_sample, EVERYTHING, np.random.default_rng(seed), noises, voices) for _ in range(2))
    assert np.array_equal(one[0].audio, two[0].audio)
    assert np.array_equal(one[0].mouths, two[0].mouths)
    assert one[1:] == two[1:]
    assert one[0].audio.dtype == np.float32
    assert one[0].mouths.dtype == np.uint8
    assert (one[0].id, one[0].text, one[0].speaker) == ("id", "text", "speaker")
    assert np.array_equal(given_sample.audio, before[0])
    assert np.array_equal(given_sample.mouths, before[1])


def test_another_seed_another_sample() -> None:
    short = sample(1)
    places, flips = zip(
        *(augment(short, AugmentConfig(flip=0.25), np.random.default_rng(seed))[1:] for seed in range(300)), strict=True
    )
    assert {y for y, _ in places} == {x for _, x in places} == set(range(9))  # of 96 - 88 + 1
    assert 0.15 < np.mean(flips) < 0.35


def test_all_off_is_the_identity() -> None:
    out, crop_at, flip = augment(sample(), NOTHING, np.random.default_rng(0), load_noises(["white"]))
    assert np.array_equal(out.audio, sample().audio)
    assert np.array_equal(out.mouths, sample().mouths)
    assert crop_at is None
    assert flip is False


@pytest.mark.parametrize(("audio", "video"), [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("frames", [1, 2, 30])
def test_missing_streams_stay_missing_and_short_ones_survive(audio: bool, video: bool, frames: int) -> None:
    for seed in range(10):
        noises = load_noises(EVERYTHING.noise)
        out, _, _ = augment(sample(frames, audio, video), EVERYTHING, np.random.default_rng(seed), noises, voices)
        assert (out.audio is not None) == audio
        assert (out.mouths is not None) == video
        assert all(stream is None or len(stream) for stream in (out.audio, out.mouths))


@given(st.floats(0.5, 2.0), st.integers(1, 120))
def test_speed_changes_both_streams_together(factor: float, frames: int) -> None:
    silence = np.zeros(frames * SAMPLES_PER_FRAME, np.float32)
    audio, mouths = change_speed(silence, np.zeros((frames, 96, 96), np.uint8), factor)
    assert audio is not None
    assert mouths is not None
    assert len(audio) / SAMPLES_PER_FRAME == pytest.approx(frames / factor, abs=0.1)
    assert len(mouths) == max(1, round(frames / factor))
    assert abs(len(audio) / SAMPLES_PER_FRAME - len(mouths)) <= 1


def test_an_event_stays_at_the_same_place_in_both_streams() -> None:
    audio, mouths = np.zeros(100 * SAMPLES_PER_FRAME, np.float32), np.zeros((100, 96, 96), np.uint8)
    audio[60 * SAMPLES_PER_FRAME : 61 * SAMPLES_PER_FRAME], mouths[60] = 1, 255
    for factor in (0.8, 0.9):  # slower: no frame is skipped
        sound, picture = change_speed(audio, mouths, factor)
        assert sound is not None
        assert picture is not None
        heard = np.square(sound).argsort()[-50:].mean() / SAMPLES_PER_FRAME
        seen = np.flatnonzero(picture.max((1, 2))).mean() + 0.5
        assert heard == pytest.approx(seen, abs=1)


@given(st.integers(1, 4000), st.floats(0, 5), st.floats(0, 2), st.integers(0, 99))
def test_time_masks_lie_inside_and_are_not_too_long(length: int, rate: float, longest: float, seed: int) -> None:
    masks = time_masks(length, FPS, rate, longest, np.random.default_rng(seed))
    wanted = rate * length / FPS
    assert np.floor(wanted) <= len(masks) <= np.ceil(wanted + 1e-9)
    for mask in masks:
        assert 0 <= mask.start <= mask.stop <= length
        assert mask.stop - mask.start <= longest * FPS


def test_masked_frames_are_black_and_masked_sound_is_silent() -> None:
    config = NOTHING.model_copy(update={"audio_time_masks": 2.0, "video_time_masks": 2.0})
    blanked = []
    whole = sample(75)
    for seed in range(40):
        out, _, _ = augment(whole, config, np.random.default_rng(seed))
        black = out.mouths.max((1, 2)) == 0
        assert np.array_equal(out.mouths[~black], whole.mouths[~black])
        silent = out.audio == 0
        assert np.array_equal(out.audio[~silent], whole.audio[~silent])
        blanked.append((black.mean(), silent.mean()))
    # 2 a second, 0.2 s on average: 40 % if they never met, about a third since they do
    assert np.mean(blanked, axis=0) == pytest.approx([0.31, 0.33], abs=0.06)


def test_noise_comes_as_often_and_as_loud_as_asked() -> None:
    config = NOTHING.model_copy(update={"noise_probability": 0.7, "snr_db": (-5.0, 15.0)})
    ratios = []
    quiet = sample(10, video=False)
    clean = quiet.audio
    assert clean is not None
    for seed in range(400):
        out, _, _ = augment(quiet, config, np.random.default_rng(seed), load_noises(["white"]))
        added = out.audio.astype(np.float64) - clean
        if added.any():
            ratios.append(10 * np.log10(np.square(clean, dtype=np.float64).sum() / np.square(added).sum()))
    assert len(ratios) / 400 == pytest.approx(0.7, abs=0.07)
    assert min(ratios) == pytest.approx(-5, abs=0.5)
    assert max(ratios) == pytest.approx(15, abs=0.5)
    assert np.mean(ratios) == pytest.approx(5, abs=1)


def test_babble_reaches_for_the_voices() -> None:
    config = NOTHING.model_copy(update={"noise_probability": 1.0})
    asked: list[int] = []

    def listen(count: int, rng: np.random.Generator) -> list[np.ndarray]:
        asked.append(count)
        return voices(count, rng)

    out, _, _ = augment(sample(), config, np.random.default_rng(0), load_noises(["babble"]), listen)
    assert asked
    assert len(out.audio) == 40 * SAMPLES_PER_FRAME
    assert SAMPLE_RATE == FPS * SAMPLES_PER_FRAME


def test_a_warp_moves_the_same_way_in_all_frames_and_keeps_the_middle() -> None:
    picture = np.zeros((96, 96), np.uint8)
    picture[40:57, 20:77] = 200
    for seed in range(8):
        out = warp(np.stack([picture] * 3), 0.1, np.random.default_rng(seed))
        assert out.dtype == np.uint8
        assert np.array_equal(out[0], out[2])
        assert not np.array_equal(out[0], picture)
        assert out[0, 48, 48] == 200
        y, x = (index.mean() for index in np.nonzero(out[0] > 100))
        assert (y, x) == pytest.approx((48, 48), abs=1.5)
        share = (out[0] > 100).sum() / (picture > 100).sum()
        assert 0.8 < share < 1.25
