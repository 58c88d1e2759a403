"""Turns: who speaks when, of those who are seen, against scripts whose truth is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_avsr.data.dialogue import Script, film, write_script
from omni_avsr.media.landmarks import MediaPipeDetector
from omni_avsr.media.mouth import all_mouths
from omni_avsr.media.speech import speech_spans
from omni_avsr.media.turns import turns
from omni_avsr.types import FPS, SAMPLES_PER_FRAME
from tests.media.test_sync import LINES, lips


def named(openings: np.ndarray, script: Script) -> np.ndarray:
    """(T,) who was found to speak; -1 = nobody who is seen."""
    found = turns(openings, script.audio, speech_spans(script.audio))
    assert found[0].start == 0
    assert found[-1].end == openings.shape[1]
    assert all(one.end == other.start for one, other in itertools.pairwise(found))
    return np.concatenate([np.full(t.end - t.start, -1 if t.speaker is None else t.speaker) for t in found])


@settings(max_examples=30)
@given(st.integers(0, 3), st.integers(0, 120), st.integers(0, 9), st.booleans())
def test_turns_cover_everything_once_and_change_the_speaker(people: int, frames: int, seed: int, deaf: bool) -> None:
    rng = np.random.default_rng(seed)
    openings = np.where(rng.random((people, frames)) < 0.1, np.nan, rng.random((people, frames)))
    audio = None if deaf else rng.standard_normal(frames * SAMPLES_PER_FRAME).astype(np.float32)
    found = turns(openings, audio)
    assert [turn.start for turn in found] == [0, *(turn.end for turn in found)][: len(found)]
    assert not found or found[-1].end == frames
    assert all(turn.end > turn.start for turn in found)
    assert all(one.speaker != other.speaker for one, other in itertools.pairwise(found))
    assert {turn.speaker for turn in found} <= {None, *range(people)}


@pytest.mark.parametrize("order", [(0, 1, 0, 1), (1, 1, 0, 2), (2, 0, 0, 1)])
def test_each_line_goes_to_who_said_it(order: tuple[int, ...]) -> None:
    script = write_script(list(zip(order, LINES, strict=True)), 3, seed=11 + order[0])
    found = named(np.stack([lips(script, person) for person in range(3)]), script)
    truth = script.speakers()
    assert (found == truth)[truth >= 0].mean() > 0.95


def test_a_voice_from_elsewhere_is_nobodys() -> None:
    script = write_script([(0, LINES[0]), (None, LINES[1]), (None, LINES[2]), (1, LINES[3])], 2, seed=19)
    found = named(np.stack([lips(script, person) for person in range(2)]), script)
    for line in script.lines:
        middle = found[round(line.start * FPS) + 5 : round(line.end * FPS) - 5]
        assert (middle == (-1 if line.speaker is None else line.speaker)).mean() > 0.8


def test_without_sound_who_moves_the_lips_speaks() -> None:
    script = write_script([(0, LINES[0]), (1, LINES[1])], 2, seed=29)
    found = turns(np.stack([lips(script, 0), lips(script, 1)]), None)
    for line in script.lines:
        middle = (line.start + line.end) / 2 * FPS
        assert next(t for t in found if t.start <= middle < t.end).speaker == line.speaker
    still = np.random.default_rng(0).normal(0, 0.004, (2, 100))
    assert [turn.speaker for turn in turns(still, None)] == [None]


def test_nobody_in_sight_is_one_turn_of_nobody() -> None:
    script = write_script([(None, LINES[0])], 1, seed=2)
    frames = round(script.duration * FPS)
    for openings in (np.zeros((0, frames)), np.full((2, frames), np.nan)):
        (turn,) = turns(openings, script.audio)
        assert (turn.speaker, turn.start, turn.end) == (None, 0, frames)
    assert turns(np.zeros((2, 0)), script.audio) == []


@pytest.mark.slow
def test_two_people_on_film(mediapipe: MediaPipeDetector) -> None:
    script = write_script(list(zip((0, 1, 1, 0), LINES, strict=True)), 2, seed=23)
    heads = film(script, seed=4)
    seen = list(all_mouths(heads[0].frames, detector=mediapipe))
    openings = np.array([[frame[id].opening if id in frame else np.nan for frame in seen] for id in (0, 1)])
    boxes = [np.mean([frame[id].box[0] for frame in seen if id in frame]) for id in (0, 1)]
    found = named(openings[np.argsort(boxes)], script)
    truth = script.speakers()
    assert (found == truth)[truth >= 0].mean() > 0.9
