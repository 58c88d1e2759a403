"""Windows: nothing heard or seen is lost, nothing is longer than the model takes, memory is one window."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_avsr.media.mouth import Mouth
from omni_avsr.transcribe.inputs import ClipMedia
from omni_avsr.transcribe.windows import Eyes, Window, heard, seen
from omni_avsr.types import FPS, SAMPLE_RATE, Clip
from tests.clips import silence, voice


def mouth(number: int, found: bool = True) -> Mouth:
    return Mouth(np.full((96, 96), number % 251, np.uint8), found, np.zeros(4, np.float32))


def eyes(found: list[bool]) -> Eyes:
    return Eyes(mouth(i, f) for i, f in enumerate(found))


def frames_of(window: Window) -> list[int]:
    assert window.crops is not None
    return [int(crop[0, 0]) for crop in window.crops]


def sound(*parts: np.ndarray) -> ClipMedia:
    return ClipMedia(Clip(np.concatenate(parts), None))


# ---- by ear ----------------------------------------------------------------------------------


def test_a_short_clip_is_one_window_from_its_beginning_to_its_end() -> None:
    (window,) = heard(sound(voice()), None)
    assert (window.start, window.end) == (0.0, 3.0)
    assert window.audio is not None
    assert np.array_equal(window.audio, voice())
    assert window.voice_share > 0.5


def test_silence_is_a_window_without_a_voice() -> None:
    (window,) = heard(sound(silence(3)), None)
    assert (window.voice_share, window.level) == (0.0, 0.0)


def test_long_silence_around_a_short_utterance_is_left_out() -> None:
    (window,) = heard(sound(silence(5), voice(), silence(4)), None)
    assert 4.5 < window.start < 6
    assert 7.5 < window.end < 8.5


def test_a_voice_in_loud_noise_is_heard() -> None:
    noise = np.random.default_rng(0).standard_normal(len(voice())).astype(np.float32)
    noisy = voice() + noise * np.sqrt(np.square(voice()).mean())  # 0 dB
    (window,) = heard(sound(noisy), None)
    assert window.voice_share > 0.3
    assert (window.start, window.end) == (0.0, 3.0)


def test_a_long_file_is_cut_at_its_silences() -> None:
    media = sound(*(part for _ in range(6) for part in (voice(), silence(2))))  # 30 s
    windows = list(heard(media, None, longest=8.0))
    assert len(windows) == 6
    for number, window in enumerate(windows):
        assert abs(window.start - (5 * number + 0.3)) < 0.3
        assert abs(window.end - (5 * number + 3.1)) < 0.4
        assert window.audio is not None
        expected = np.concatenate(list(media.audio_blocks(window.start, window.end)))
        assert np.array_equal(window.audio, expected)


def test_speech_without_a_pause_is_cut_and_complete() -> None:
    media = sound(*[voice()[8000:44000]] * 12)  # 27 s
    windows = list(heard(media, None, longest=6.0))
    assert all(window.end - window.start <= 6.0 + 1 / FPS for window in windows)
    for before, after in itertools.pairwise(windows):
        assert 0 <= after.start - before.end < 1.0


def test_no_more_than_a_window_is_read_at_once() -> None:
    class Counting(ClipMedia):
        longest = 0

        def audio_blocks(self, start: float = 0.0, end: float | None = None) -> Iterator[np.ndarray]:
            blocks = [b for block in super().audio_blocks(start, end) for b in np.array_split(block, 40)]
            if end is not None:
                self.longest = max(self.longest, sum(map(len, blocks)))
            return iter(blocks)

    media = Counting(Clip(np.concatenate([voice(), silence(2)] * 10), None))
    assert len(list(heard(media, None, longest=7.0))) == 10
    assert media.longest <= 8.0 * SAMPLE_RATE


def test_the_mouth_of_each_window_is_that_of_its_time() -> None:
    media = sound(*(part for _ in range(4) for part in (voice(), silence(2))))  # 20 s, 500 frames
    windows = list(heard(media, eyes([True] * 500), longest=6.0))
    assert len(windows) == 4
    for window in windows:
        first = round(window.start * FPS)
        assert frames_of(window) == [i % 251 for i in range(first, round(window.end * FPS))]
        assert window.face_share == pytest.approx(1.0)


def test_a_video_that_ends_early_does_not_shorten_the_sound() -> None:
    (window,) = heard(sound(voice()), eyes([True] * 25))
    assert window.crops is not None
    assert window.audio is not None
    assert (len(window.crops), len(window.audio)) == (75, len(voice()))
    assert window.face_share == pytest.approx(1 / 3)


def test_a_long_mute_film_is_read_by_the_face() -> None:
    windows = list(heard(sound(silence(20)), eyes([200 <= i < 300 for i in range(500)]), longest=6.0))
    assert [(w.start, w.end, w.audio) for w in windows] == [(8.0, 12.0, None)]


def test_long_noise_without_a_voice_is_passed_over() -> None:
    noise = np.random.default_rng(0).standard_normal(20 * SAMPLE_RATE).astype(np.float32) * 0.05
    assert list(heard(sound(noise), eyes([True] * 500), longest=6.0)) == []


# ---- by eye ----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 60)), max_size=8))
def test_every_frame_with_the_face_is_in_one_window(runs: list[tuple[bool, int]]) -> None:
    found = [f for f, length in runs for _ in range(length)][:250]
    windows = list(seen(eyes(found), longest=3.0))
    frames = [i for w in windows for i in frames_of(w)]
    assert frames == sorted(set(frames))
    assert {i for i, f in enumerate(found) if f} <= set(frames)
    assert all(0 < w.end - w.start <= 3.0 for w in windows)
    assert all(frames_of(w)[0] == round(w.start * FPS) for w in windows)


def test_a_short_loss_of_the_face_stays_inside_and_a_long_one_divides() -> None:
    short = [True] * 50 + [False] * 10 + [True] * 50
    assert [(w.start, w.end) for w in seen(eyes(short))] == [(0.0, 4.4)]
    long = [True] * 50 + [False] * 40 + [True] * 50
    assert [(w.start, w.end) for w in seen(eyes(long))] == [(0.0, 2.0), (3.6, 5.6)]


def test_a_long_stretch_is_cut_where_the_lips_rest() -> None:
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 255, (100, 96, 96)).astype(np.uint8)
    crops[60:70] = 7  # the lips rest
    still = Eyes(Mouth(crop, True, np.zeros(4, np.float32)) for crop in crops)
    first, _ = seen(still, longest=3.2)
    assert 61 <= round(first.end * FPS) <= 69


def test_nobody_in_the_picture() -> None:
    assert list(seen(eyes([False] * 100))) == []


def test_looking_again_passes_over_what_lies_between() -> None:
    sight = eyes([True] * 100)
    assert [int(c[0, 0]) for c in sight.look(0.4, 0.6)[0]] == [10, 11, 12, 13, 14]
    assert [int(c[0, 0]) for c in sight.look(2.0, 2.08)[0]] == [50, 51]
    crops, found = sight.look(3.9, 5.0)
    assert len(crops) == len(found) == 2
