"""Windows: nothing heard or seen is lost, nothing is longer than the model takes, memory is a few windows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_avsr.media.mouth import Mouth
from omni_avsr.transcribe import windows as module
from omni_avsr.transcribe.inputs import ClipMedia
from omni_avsr.transcribe.windows import AIR, OVERLAP, Eyes, Window, windows
from omni_avsr.types import FPS, SAMPLE_RATE, Clip
from tests.clips import grey, silence, voice


@pytest.fixture(autouse=True)
def _every_face_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    def speaking(mouths: Sequence[Mouth]) -> np.ndarray:
        return np.array([float(m.found) for m in mouths])

    monkeypatch.setattr(module, "speaking", speaking)


def mouth(number: int, found: bool = True) -> Mouth:
    return Mouth(np.full((96, 96), number % 251, np.uint8), found, np.zeros(4, np.float32), 40.0, 0.1, 0.0)


def eyes(found: Sequence[bool]) -> Eyes:
    return Eyes(mouth(i, f) for i, f in enumerate(found))


def frames_of(window: Window) -> list[int]:
    assert window.crops is not None
    return [int(crop[0, 0]) for crop in window.crops]


def sound(*parts: np.ndarray, seconds: float = 0.0) -> ClipMedia:
    """Sound, with `seconds` of a picture beside it."""
    return ClipMedia(Clip(np.concatenate(parts), grey(seconds, 8) if seconds else None))


def film(seconds: float) -> ClipMedia:
    return ClipMedia(Clip(None, grey(seconds, 8)))


def with_speech(found: Iterator[Window]) -> list[Window]:
    """Without the empty window that only tells of a face."""
    return [window for window in found if window.end > window.start]


# ---- by ear ----------------------------------------------------------------------------------


def test_a_short_clip_is_one_window_from_its_beginning_to_its_end() -> None:
    (window,) = windows(sound(voice()), None)
    assert (window.start, window.end) == (0.0, 3.0)
    assert window.audio is not None
    assert np.array_equal(window.audio, voice())
    assert window.hearing is not None
    assert window.hearing.snr is not None
    assert window.voice_share > 0.4
    assert not window.by_lips


def test_silence_is_a_window_without_a_voice() -> None:
    (window,) = windows(sound(silence(3)), None)
    assert (window.voice_share, window.level) == (0.0, 0.0)


def test_long_silence_around_a_short_utterance_is_left_out() -> None:
    (window,) = windows(sound(silence(5), voice(), silence(4)), None)
    assert 4.5 < window.start < 6
    assert 7.5 < window.end < 8.8


def test_a_voice_in_loud_noise_is_heard() -> None:
    noise = np.random.default_rng(0).standard_normal(len(voice())).astype(np.float32)
    noisy = voice() + noise * np.sqrt(np.square(voice()).mean())  # 0 dB
    (window,) = windows(sound(noisy), None)
    assert window.voice_share > 0.3
    assert (window.start, window.end) == (0.0, 3.0)


def test_a_long_file_is_cut_at_its_silences_and_keeps_some_of_them() -> None:
    media = sound(*(part for _ in range(6) for part in (voice(), silence(2))))  # 30 s
    found = list(windows(media, None, longest=8.0))
    assert len(found) == 6
    for number, window in enumerate(found):
        assert abs(window.start - (5 * number + 0.3 - AIR)) < 0.4
        assert abs(window.end - (5 * number + 3.0 + AIR)) < 0.5
        assert window.audio is not None
        expected = np.concatenate(list(media.audio_blocks(window.start, window.end)))
        assert np.array_equal(window.audio, expected)


def test_speech_without_a_pause_is_cut_and_its_windows_overlap() -> None:
    media = sound(*[voice()[8000:44000]] * 12)  # 27 s
    found = list(windows(media, None, longest=6.0))
    assert all(window.end - window.start <= 6.0 + 1 / FPS for window in found)
    cut = 0
    for before, after in itertools.pairwise(found):
        assert before.cut_after == after.cut_before
        if before.cut_after is None:
            assert 0 <= after.start - before.end < 1.0
        else:
            cut += 1
            assert before.end == pytest.approx(before.cut_after + OVERLAP, abs=0.05)
            assert after.start == pytest.approx(before.cut_after - OVERLAP, abs=0.05)
    assert cut > 0


def test_no_more_than_a_window_is_read_at_once() -> None:
    class Counting(ClipMedia):
        longest = 0

        def audio_blocks(self, start: float = 0.0, end: float | None = None) -> Iterator[np.ndarray]:
            blocks = [b for block in super().audio_blocks(start, end) for b in np.array_split(block, 40)]
            if end is not None:
                self.longest = max(self.longest, sum(map(len, blocks)))
            return iter(blocks)

    media = Counting(Clip(np.concatenate([voice(), silence(2)] * 10), None))
    assert len(list(windows(media, None, longest=7.0))) == 10
    assert media.longest <= 8.0 * SAMPLE_RATE


def test_the_mouth_of_each_window_is_that_of_its_time() -> None:
    media = sound(*(part for _ in range(4) for part in (voice(), silence(2))), seconds=20)
    found = with_speech(windows(media, eyes([i % 125 < 80 for i in range(500)]), longest=6.0))
    assert len(found) == 4
    for window in found:
        first = round(window.start * FPS)
        assert frames_of(window) == [i % 251 for i in range(first, round(window.end * FPS))]
        assert window.face_share > 0.8


def test_a_video_that_ends_early_does_not_shorten_the_sound() -> None:
    (window,) = with_speech(windows(sound(voice(), seconds=3), eyes([True] * 25)))
    assert window.crops is not None
    assert window.audio is not None
    assert (len(window.crops), len(window.audio)) == (75, len(voice()))
    assert window.face_share == pytest.approx(1 / 3)


def test_long_noise_without_a_voice_is_passed_over() -> None:
    noise = np.random.default_rng(0).standard_normal(20 * SAMPLE_RATE).astype(np.float32) * 0.05
    assert with_speech(windows(sound(noise, seconds=20), eyes([True] * 500), longest=6.0)) == []


# ---- where the ear is deaf ---------------------------------------------------------------------


def test_a_long_mute_film_is_read_by_the_lips() -> None:
    media = sound(silence(20), seconds=20)
    (window,) = with_speech(windows(media, eyes([200 <= i < 300 for i in range(500)]), longest=9.0))
    assert window.by_lips
    assert (window.start, window.end) == pytest.approx((8.0 - AIR, 12.0 + AIR), abs=0.3)


def test_lips_that_speak_on_after_the_microphone_failed_are_in_the_same_window() -> None:
    half = voice().copy()
    half[24_000:] = 0.0  # 1.5 s
    (window,) = with_speech(windows(sound(half, seconds=3), eyes([i < 65 for i in range(75)])))
    assert (window.start, window.end, window.by_lips) == (0.0, 3.0, False)
    long = sound(silence(8), half, silence(9), seconds=20)
    (window,) = with_speech(windows(long, eyes([200 <= i < 265 for i in range(500)]), longest=9.0))
    assert not window.by_lips
    assert window.end > 8 + 2.5


def test_sound_that_ends_before_the_picture_leaves_the_rest_to_the_lips() -> None:
    media = sound(voice(), silence(5), seconds=20)
    found = with_speech(windows(media, eyes([i < 75 or i >= 300 for i in range(500)]), longest=10.0))
    assert [window.by_lips for window in found] == [False, True]
    assert found[1].start == pytest.approx(12.0 - AIR, abs=0.3)


def test_where_the_ear_is_deaf_and_nobody_is_seen_there_is_nothing() -> None:
    assert with_speech(windows(sound(silence(20), seconds=20), eyes([False] * 500))) == []
    assert list(windows(sound(silence(20)), None)) == []


def test_a_face_that_only_listens_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "speaking", lambda mouths: np.zeros(len(mouths)))
    (window,) = windows(sound(silence(20), seconds=20), eyes([True] * 500))
    assert (window.start, window.end, window.crops) == (20.0, 20.0, None)
    assert window.face_share == 1.0


# ---- by eye ----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(15, 80)), max_size=8))
def test_every_frame_in_which_lips_speak_is_in_a_window(runs: list[tuple[bool, int]]) -> None:
    found = [f for f, length in runs for _ in range(length)][:250] + [False] * 10
    windows_found = with_speech(windows(film(len(found) / FPS), eyes(found), listens=False, longest=3.6))
    assert all(0 < w.end - w.start <= 3.6 + 1 / FPS for w in windows_found)
    frames = {i for w in windows_found for i in range(round(w.start * FPS), round(w.end * FPS))}
    assert {i for i, f in enumerate(found) if f} <= frames
    assert all(frames_of(w)[0] == round(w.start * FPS) for w in windows_found)


def test_a_short_loss_of_the_face_stays_inside_and_a_long_one_divides() -> None:
    short = [False] * 200 + [True] * 50 + [False] * 10 + [True] * 50 + [False] * 200
    assert len(with_speech(windows(film(20.4), eyes(short), listens=False))) == 1
    long = [False] * 200 + [True] * 50 + [False] * 40 + [True] * 50 + [False] * 200
    assert len(with_speech(windows(film(21.6), eyes(long), listens=False))) == 2


def test_nobody_in_the_picture() -> None:
    assert with_speech(windows(film(20), eyes([False] * 500), listens=False)) == []


def test_what_was_seen_can_be_looked_at_again() -> None:
    sight = eyes([True] * 100)
    assert [int(m.crop[0, 0]) for m in sight.look(0.4, 0.6)] == [10, 11, 12, 13, 14]
    assert [int(m.crop[0, 0]) for m in sight.look(2.0, 2.08)] == [50, 51]
    assert [int(m.crop[0, 0]) for m in sight.look(0.4, 0.48)] == [10, 11]
    assert len(sight.look(3.9, 5.0)) == 2


def test_only_so_much_is_kept() -> None:
    sight = Eyes((mouth(i) for i in range(500)), kept=2.0)
    sight.look(0.0, 10.0)
    assert [int(m.crop[0, 0]) for m in sight.look(9.92, 10.0)] == [248, 249]
    assert sight.look(0.0, 1.0) == []
