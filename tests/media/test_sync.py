"""Lips against sound: what a voice tells of its mouth, whose mouth fits, and by how much the two are apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_avsr.data.dialogue import Script, write_script
from omni_avsr.data.noise import mix_noise, pink
from omni_avsr.data.visemes import articulate
from omni_avsr.media.mouth import BETWEEN, ready_mouths
from omni_avsr.media.sync import BELIEVED, activity, curve, expected_opening, offset, peak, quick
from omni_avsr.types import FPS, SAMPLES_PER_FRAME

LINES = (
    "place blue at f two now",
    "bin green with q seven soon",
    "lay white by u zero please",
    "set red in k nine again",
)


def lips(script: Script, person: int) -> np.ndarray:
    """(T,) how far the lips of somebody in the script are open, trembling a little as landmarks do."""
    frames = round(script.duration * FPS)
    mouth = articulate(script.phonemes[person], frames)
    opening = 0.3 * np.asarray(mouth.open) * (1 - np.asarray(mouth.close))
    return opening + np.random.default_rng(person).normal(0, 0.004, frames)


@pytest.fixture(scope="module")
def talk() -> Script:
    """One person, four sentences by a voice that was not fitted to, some eleven seconds."""
    return write_script([(0, line) for line in LINES], 1, seed=77)


def test_a_voice_tells_how_its_lips_move(talk: Script) -> None:
    shown, told = lips(talk, 0), expected_opening(talk.audio, round(talk.duration * FPS))
    assert np.corrcoef(shown, told)[0, 1] > 0.6
    assert np.corrcoef(quick(shown), quick(told))[0, 1] > 0.5
    noisy = mix_noise(talk.audio, pink(len(talk.audio), np.random.default_rng(0)), 5)
    assert np.corrcoef(shown, expected_opening(noisy, len(told)))[0, 1] > 0.5


@settings(max_examples=12)
@given(frames=st.integers(-20, 20), hidden=st.booleans())
def test_a_shift_is_measured(talk: Script, frames: int, hidden: bool) -> None:
    shown = lips(talk, 0)
    if hidden:
        shown[50:80] = np.nan
    late = np.roll(talk.audio, frames * SAMPLES_PER_FRAME)
    found = offset(shown[None], late)
    assert found is not None
    assert found.seconds == pytest.approx(frames / FPS, abs=0.03)
    assert found.confidence > BELIEVED


def test_a_shift_of_less_than_a_frame_is_measured(talk: Script) -> None:
    shown = lips(talk, 0)
    found = [offset(shown[None], np.roll(talk.audio, samples)) for samples in range(0, 2 * SAMPLES_PER_FRAME, 160)]
    seconds = [one.seconds for one in found if one is not None]
    assert seconds == sorted(seconds)
    assert seconds[-1] - seconds[0] == pytest.approx(0.07, abs=0.02)


def test_the_curves_of_a_film_s_parts_tell_its_shift_together(talk: Script) -> None:
    """From mouths that are cut out already: the darkness between the lips stands for their opening."""
    opening = lips(talk, 0)
    pictures = np.full((len(opening), 96, 96, 3), 150.0)
    pictures[:, *BETWEEN] -= 200 * opening[:, None, None, None]
    seen = ready_mouths(pictures.clip(9, 255).astype(np.uint8))
    assert np.corrcoef(seen.openings, opening)[0, 1] > 0.9
    late = np.roll(talk.audio, 7 * SAMPLES_PER_FRAME)
    parts = [slice(at, at + 3 * FPS) for at in range(0, len(opening) - 3 * FPS + 1, 3 * FPS)]
    sounds = [late[part.start * SAMPLES_PER_FRAME : part.stop * SAMPLES_PER_FRAME] for part in parts]
    curves = [curve(seen.openings[None, part], sound) for part, sound in zip(parts, sounds, strict=True)]
    found = peak(np.mean(curves, axis=0))
    assert found is not None
    assert found.seconds == pytest.approx(0.28, abs=0.06)
    assert found.confidence > BELIEVED


def test_a_shift_is_measured_where_two_speak_in_turn() -> None:
    script = write_script([(0, LINES[0]), (1, LINES[1]), (0, LINES[2]), (1, LINES[3])], 2, seed=3)
    both = np.stack([lips(script, 0), lips(script, 1)])
    found = offset(both, np.roll(script.audio, 8 * SAMPLES_PER_FRAME))
    assert found is not None
    assert found.seconds == pytest.approx(0.32, abs=0.04)
    assert found.confidence > BELIEVED


def test_lips_that_belong_to_another_voice_say_nothing(talk: Script) -> None:
    other = write_script([(0, line) for line in reversed(LINES)], 1, seed=5)
    frames = min(round(other.duration * FPS), round(talk.duration * FPS))
    found = offset(lips(other, 0)[None, :frames], talk.audio[: frames * SAMPLES_PER_FRAME])
    assert found is not None
    assert found.confidence < 0.2


def test_nothing_to_compare_is_no_offset(talk: Script) -> None:
    frames = round(talk.duration * FPS)
    assert offset(np.full((1, frames), np.nan), talk.audio) is None
    assert offset(lips(talk, 0)[None], np.zeros_like(talk.audio)) is None
    assert offset(lips(talk, 0)[None, :20], talk.audio[: 20 * SAMPLES_PER_FRAME]) is None


def test_the_mouth_that_fits_is_the_speakers() -> None:
    script = write_script([(0, LINES[0]), (1, LINES[1]), (0, LINES[2]), (1, LINES[3])], 2, seed=3)
    fit = activity(np.stack([lips(script, 0), lips(script, 1)]), script.audio)
    truth = script.speakers()
    spoken = truth >= 0
    assert (fit.argmax(0) == truth)[spoken].mean() > 0.95
    still = np.where(truth == 0, fit[1], fit[0])[spoken]
    assert still.mean() < 0.15


def test_a_face_that_is_not_seen_fits_nothing(talk: Script) -> None:
    frames = round(talk.duration * FPS)
    fit = activity(np.stack([lips(talk, 0), np.full(frames, np.nan)]), talk.audio)
    assert fit.shape == (2, frames)
    assert not fit[1].any()
    assert np.abs(fit).max() <= 1
