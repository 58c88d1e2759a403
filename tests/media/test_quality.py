"""Quality measures: each follows what was done to the signal, by as much as was done, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_avsr.data.noise import pink, white
from omni_avsr.data.speech_synthesis import Phoneme
from omni_avsr.data.stage import Scene
from omni_avsr.data.talking_head import render
from omni_avsr.media.landmarks import MediaPipeDetector
from omni_avsr.media.mouth import Mouth, mouth_stream
from omni_avsr.media.quality import CLEAN, SILENT, audio_quality, block_powers, loudness, sharpness, video_quality
from omni_avsr.types import SAMPLE_RATE, Speech
from tests.clips import silence, voice

# ---- sound -------------------------------------------------------------------------------------


def sine(hertz: float, level: float = 1.0, seconds: float = 3.0) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE)).astype(
        np.float32
    )


def test_loudness_is_that_of_the_standard() -> None:
    # BS.1770 fixes its constant so that this tone at full scale in one channel reads -3.01
    assert loudness(block_powers(sine(997))) == pytest.approx(-3.01, abs=0.05)
    assert loudness(block_powers(sine(997, 0.1))) == pytest.approx(-23.01, abs=0.05)
    # its curve, read off the standard's own filters: 4 dB up at the top, a fall below 100 Hz
    assert loudness(block_powers(sine(4000))) == pytest.approx(-3.01 + 3.3, abs=0.3)
    assert loudness(block_powers(sine(25))) < -3.01 - 9


def test_pauses_do_not_make_a_talk_quieter() -> None:
    talk = sine(500, 0.2)
    paused = np.concatenate([talk, silence(20), sine(500, 0.002, 5)])
    assert loudness(block_powers(paused)) == pytest.approx(loudness(block_powers(talk)), abs=0.5)


@settings(max_examples=20)
@given(level=st.floats(0.01, 1.0))
def test_level_moves_loudness_and_peak_alone(level: float) -> None:
    spans = [Speech(0.5, 2.8)]
    loud, quiet = audio_quality(voice(), spans), audio_quality(level * voice(), spans)
    change = 20 * np.log10(level)
    assert quiet.peak == pytest.approx(loud.peak + change, abs=0.01)
    assert quiet.loudness == pytest.approx(max(loud.loudness + change, SILENT), abs=0.05)
    assert quiet.snr == pytest.approx(loud.snr, abs=0.01)
    assert quiet.clipped == pytest.approx(loud.clipped, abs=1e-4)


@pytest.mark.parametrize("noise", [white, pink])
@pytest.mark.parametrize("snr", [-5, 0, 5, 10, 15])
def test_noise_is_measured_where_it_is_steady(noise: Any, snr: float) -> None:
    spans = [Speech(0.5, 2.8)]
    speech = voice()
    added = noise(len(speech), np.random.default_rng(abs(snr)))
    power = np.square(speech[8000:44800]).mean() / 10 ** (snr / 10)
    found = audio_quality(speech + added * np.sqrt(power / np.square(added).mean()), spans).snr
    assert found == pytest.approx(snr, abs=2.5)


def test_a_clean_voice_is_clean_and_nobody_has_no_ratio() -> None:
    faded = np.concatenate([voice(), silence(3)])
    assert audio_quality(faded).snr == CLEAN
    assert audio_quality(silence(2)) == audio_quality(np.zeros(0, np.float32)).__class__(SILENT, SILENT, None, 0, 1, 0)
    assert audio_quality(np.zeros(0, np.float32)).snr is None


def test_muted_is_the_share_of_digital_silence() -> None:
    hiss = 1e-3 * np.random.default_rng(0).standard_normal(2 * SAMPLE_RATE).astype(np.float32)
    assert audio_quality(hiss, []).muted == 0
    assert audio_quality(np.concatenate([hiss, silence(6)]), []).muted == pytest.approx(0.75)


@pytest.mark.parametrize("scale", [1.0, 0.3])  # also where it was turned down after it was cut off
def test_clipping_is_seen_at_any_level(scale: float) -> None:
    whole = voice() / np.abs(voice()).max()
    shares = [audio_quality(scale * np.clip(gain * whole, -1, 1), []).clipped for gain in (1, 2, 4)]
    assert shares[0] < 0.001
    assert shares[1] > 0.01
    assert shares[2] > 2 * shares[1]


def test_speech_is_the_share_of_the_time_with_a_voice() -> None:
    alone, half = audio_quality(voice()), audio_quality(np.concatenate([voice(), silence(3)]))
    assert alone.speech > 0.6
    assert half.speech == pytest.approx(alone.speech / 2, abs=0.05)


# ---- picture -----------------------------------------------------------------------------------


def seen(frames: Any, detector: MediaPipeDetector) -> list[Mouth]:
    return list(mouth_stream(frames, detector=detector))


def test_the_mouth_is_measured_in_pixels_of_the_source(mediapipe: MediaPipeDetector, talker: Any) -> None:
    frames = talker.frames[:6]
    whole = video_quality(seen(frames, mediapipe))
    rest = float(np.linalg.norm(talker.landmarks[0, 1] - talker.landmarks[0, 0]))
    assert whole.mouth == pytest.approx(rest, rel=0.2)
    assert whole.face == 1
    half = video_quality(
        seen([cv2.resize(f, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for f in frames], mediapipe)
    )
    assert half.mouth == pytest.approx(whole.mouth / 2, rel=0.05)
    assert half.sharpness < whole.sharpness


def test_sharpness_follows_the_lens_and_neither_light_nor_contrast(mediapipe: MediaPipeDetector, talker: Any) -> None:
    crop = seen(talker.frames[:1], mediapipe)[0].crop
    lens = [sharpness(cv2.GaussianBlur(crop, (0, 0), s) if s else crop) for s in (0, 1, 2, 4)]
    assert lens == sorted(lens, reverse=True)
    assert lens[2] < 0.7 * lens[0]
    dim = (crop.astype(float) * 0.5 + 20).round().astype(np.uint8)
    assert sharpness(dim) == pytest.approx(lens[0], rel=0.1)
    assert sharpness(np.full((96, 96), 90, np.uint8)) == 0


def test_yaw_has_the_side_and_order_of_the_head(mediapipe: MediaPipeDetector) -> None:
    turns = [-0.5, -0.25, 0.0, 0.25, 0.5]
    yaws = []
    for turn in turns:
        clip = render([], 0.04, seed=3, scene=Scene(yaw=turn, liveliness=0, centre=(0.5, 0.5), scale=60))
        (mouth,) = seen(clip.frames, mediapipe)
        yaws.append(mouth.yaw)
    assert yaws == sorted(yaws)
    assert abs(yaws[2]) < 6
    assert yaws[0] < -10
    assert yaws[4] > 10


def test_the_opening_is_that_of_the_lips(mediapipe: MediaPipeDetector) -> None:
    clip = render([Phoneme(0.2, 0.6, "ɑː"), Phoneme(0.6, 0.9, "m")], 1.0, seed=3)
    found = np.array([mouth.opening for mouth in seen(clip.frames, mediapipe)])
    assert np.corrcoef(found, clip.opening)[0, 1] > 0.8


def test_frames_without_the_face_are_counted_and_nothing_else() -> None:
    blind = Mouth(np.zeros((96, 96), np.uint8), False, np.full(4, np.nan, np.float32))
    texture = np.random.default_rng(0).integers(0, 255, (96, 96)).astype(np.uint8)
    sight = replace(blind, crop=texture, found=True, width=40.0, opening=0.1, yaw=-10.0)
    whole, half = video_quality([sight] * 4), video_quality([sight, blind] * 2)
    assert half == replace(whole, face=0.5)
    assert whole.yaw == 10
    assert video_quality([blind] * 3) == video_quality([])
    assert video_quality([]).mouth == 0
