"""The rolling window: partial, then final; nothing lost, nothing twice, whatever the pace."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_avsr.live.captions import LONGEST, STEP, Captions, Update
from omni_avsr.media.mouth import Mouth
from omni_avsr.transcribe.transcriber import Request
from omni_avsr.types import FPS, SAMPLE_RATE, Segment
from tests.clips import silence, voice
from tests.live.conftest import SPOKEN, Counting

REQUEST = Request(beam_size=5)


def mouth(number: int) -> Mouth:
    return Mouth(np.full((96, 96), number % 251, np.uint8), True, np.zeros(4, np.float32))


def fed(captions: Captions, audio: np.ndarray, pieces: list[int]) -> list[Update]:
    """The updates while `audio` comes in pieces of so many tenths of a second, round and round."""
    updates: list[Update | None] = []
    at, turn = 0, 0
    while at < len(audio):
        size = pieces[turn % len(pieces)] * SAMPLE_RATE // 10
        captions.hear(audio[at : at + size])
        updates.append(captions.advance())
        at, turn = at + size, turn + 1
    updates.append(captions.advance(over=True))
    return [u for u in updates if u is not None]


def finals(updates: list[Update]) -> list[Segment]:
    return [segment for update in updates for segment in update.finals]


def test_each_stretch_of_speech_becomes_one_final_segment_in_its_place(talk: np.ndarray, counting: Counting) -> None:
    found = finals(fed(Captions(counting, REQUEST, True, False), talk, [1]))  # type: ignore[arg-type]
    assert [s.id for s in found] == [0, 1]
    for segment, (start, end) in zip(found, SPOKEN, strict=True):
        assert start - 0.7 < segment.start < start + 1.0
        assert end - 1.0 < segment.end < end + 0.7


def test_partial_text_comes_before_the_final_and_what_stands_only_grows(talk: np.ndarray, counting: Counting) -> None:
    updates = fed(Captions(counting, REQUEST, True, False), talk, [1])  # type: ignore[arg-type]
    first = next(i for i, u in enumerate(updates) if u.finals)
    partial = [u for u in updates[:first] if u.stable or u.tentative]
    assert len(partial) >= 3
    assert all(b.stable.startswith(a.stable) for a, b in pairwise(partial))
    assert partial[-1].stable
    assert not updates[first].stable, "a final leaves nothing unfinished behind"


def test_partial_text_is_searched_greedily_and_final_text_as_asked(talk: np.ndarray, counting: Counting) -> None:
    fed(Captions(counting, replace(REQUEST, word_timestamps=True), True, False), talk, [5])  # type: ignore[arg-type]
    kinds = {(r.beam_size, r.word_timestamps) for _, r in counting.takes}
    assert kinds == {(5, True), (1, False)}


@settings(max_examples=3)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_the_pace_changes_nothing_in_what_is_final(talk: np.ndarray, pieces: list[int]) -> None:
    steady = finals(fed(Captions(Counting(), REQUEST, True, False), talk, [1]))  # type: ignore[arg-type]
    assert finals(fed(Captions(Counting(), REQUEST, True, False), talk, pieces)) == steady  # type: ignore[arg-type]


def test_silence_is_not_even_asked_about(counting: Counting) -> None:
    assert finals(fed(Captions(counting, REQUEST, True, False), silence(6), [7])) == []  # type: ignore[arg-type]
    assert counting.takes == []


def test_speech_without_a_pause_is_cut_and_nothing_of_it_lost(counting: Counting) -> None:
    audio = np.concatenate([voice()[8_000:40_000]] * 12)  # two seconds, twelve times
    captions = Captions(counting, REQUEST, True, False)  # type: ignore[arg-type]
    found = finals(fed(captions, audio, [5]))
    assert len(found) >= 2
    assert all(s.end - s.start <= LONGEST + 1 for s in found)
    assert found[0].start < 0.5
    assert found[-1].end > 23.5
    assert all(b.start <= a.end for a, b in pairwise(found)), "a stretch between two was lost"


def test_the_window_does_not_grow_in_silence(counting: Counting) -> None:
    captions = Captions(counting, REQUEST, True, True)  # type: ignore[arg-type]
    for second in range(60):
        captions.hear(silence(1))
        captions.see([mouth(25 * second + i) for i in range(25)])
        captions.advance()
    assert captions._length < 3 * 25


def test_sound_and_mouths_of_a_take_are_of_the_same_instants(talk: np.ndarray, counting: Counting) -> None:
    captions = Captions(counting, REQUEST, True, True)  # type: ignore[arg-type]
    count = len(talk) // 640
    numbered = np.repeat(np.arange(count, dtype=np.float32), 640) * 1e-9  # too faint to hear
    audio = talk[: count * 640] + numbered
    sent = 0
    for at in range(0, len(audio), 1600):
        captions.hear(audio[at : at + 1600])
        due = max(0, (at + 1600) // 640 - 20)  # mouths come 0.8 s late
        captions.see([mouth(i) for i in range(sent, due)])
        sent = max(sent, due)
        captions.advance()
    captions.see([mouth(i) for i in range(sent, count)])
    captions.advance(over=True)
    assert counting.takes
    for take, _ in counting.takes:
        assert take.audio is not None
        assert take.mouths is not None
        assert len(take.audio) == 640 * len(take.mouths), "a take waits for both streams"


def test_one_stream_that_ends_does_not_hold_up_the_other(talk: np.ndarray, counting: Counting) -> None:
    captions = Captions(counting, REQUEST, True, True)  # type: ignore[arg-type]
    captions.hear(talk)
    assert captions.advance() is None, "mouths may still come"
    update = captions.advance(blind=True)
    assert update is not None
    assert len(update.finals) == 2
    assert update.until == pytest.approx(len(talk) / SAMPLE_RATE, abs=STEP)


def test_a_stretch_that_cannot_be_used_is_passed_over(talk: np.ndarray, counting: Counting) -> None:
    from omni_avsr.errors import NoFaceError

    def refuse(*_: object, **__: object) -> None:
        raise NoFaceError("no face")

    counting.transcribe = refuse  # type: ignore[assignment, method-assign]
    assert finals(fed(Captions(counting, REQUEST, True, False), talk, [5])) == []  # type: ignore[arg-type]


def talking(seconds: float, moving: tuple[float, float]) -> list[Mouth]:
    """Mouths that open and close three times a second between the two instants, and rest otherwise."""
    out = []
    for number in range(round(seconds * FPS)):
        speaks = moving[0] <= number / FPS < moving[1]
        opening = 0.05 + 0.25 * np.sin(2 * np.pi * 3 * number / FPS) ** 2 if speaks else 0.05
        out.append(replace(mouth(number), opening=float(opening)))
    return out


@pytest.mark.parametrize("sound", [False, True], ids=["no microphone", "muted microphone"])
def test_lips_that_move_are_read_where_nothing_can_be_heard(counting: Counting, sound: bool) -> None:
    captions = Captions(counting, REQUEST, sound, True)  # type: ignore[arg-type]
    lips = talking(9.0, (2.0, 5.0))
    updates = []
    for second in range(9):
        if sound:
            captions.hear(silence(1))
        captions.see(lips[25 * second : 25 * second + 25])
        updates.append(captions.advance())
    (segment,) = finals([u for u in updates if u])
    assert segment.start == pytest.approx(2.0, abs=1.2)
    assert segment.end == pytest.approx(5.0, abs=1.6)
    assert any(u.tentative or u.stable for u in updates if u)


def test_lips_go_on_where_the_microphone_dies_in_the_middle_of_speech(talk: np.ndarray, counting: Counting) -> None:
    captions = Captions(counting, REQUEST, True, True)  # type: ignore[arg-type]
    voiced = np.flatnonzero(np.abs(talk) > 0.02) / SAMPLE_RATE
    begins, dies = float(voiced[0]), float(voiced[0]) + 0.7  # seconds
    sound = np.concatenate([talk, np.zeros(9 * SAMPLE_RATE, np.float32)])
    sound[round(dies * SAMPLE_RATE) :] = 0
    lips = talking(9.0, (begins, dies + 3))
    updates = []
    for second in range(9):
        captions.hear(sound[SAMPLE_RATE * second : SAMPLE_RATE * (second + 1)])
        captions.see(lips[25 * second : 25 * second + 25])
        updates.append(captions.advance())
    updates.append(captions.advance(over=True))
    (segment,) = finals([u for u in updates if u])  # the voice and the lips after it are one stretch
    assert segment.start == pytest.approx(begins, abs=1.0)
    assert segment.end == pytest.approx(dies + 3, abs=1.6)


def test_lips_that_rest_say_nothing(counting: Counting) -> None:
    captions = Captions(counting, REQUEST, False, True)  # type: ignore[arg-type]
    captions.see(talking(6.0, (0.0, 0.0)))
    assert captions.advance(over=True) is not None
    assert counting.takes == []
