"""Speech: stretches that stay apart, windows that fit; the network is replaced where the arithmetic is the matter."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import omni_avsr.media.speech as speech
from omni_avsr.data.speech_synthesis import synthesize
from omni_avsr.errors import ConfigError
from omni_avsr.media.speech import CHUNK, SpeechOptions, speech_spans, windows
from omni_avsr.types import SAMPLE_RATE, Speech

SECOND = SAMPLE_RATE / CHUNK


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal is the probability: the first sample of each chunk."""

    def read(blocks: Iterator[np.ndarray]) -> Iterator[tuple[int, float]]:
        for samples, chunk in speech._chunks(blocks):
            yield samples, float(chunk[0])

    monkeypatch.setattr(speech, "_probabilities", read)


def signal(*parts: tuple[float, float]) -> np.ndarray:
    """Probabilities by (seconds, probability)."""
    return np.concatenate([np.full(round(seconds * SECOND) * CHUNK, p, np.float32) for seconds, p in parts])


PARTS = st.lists(st.tuples(st.floats(0.05, 6), st.sampled_from([0.0, 0.1, 0.4, 0.6, 0.95])), min_size=1, max_size=15)


@pytest.mark.usefixtures("oracle")
class TestArithmetic:
    @settings(deadline=None, max_examples=60)
    @given(parts=PARTS)
    def test_stretches_are_in_order_apart_and_inside(self, parts: list[tuple[float, float]]) -> None:
        audio = signal(*parts)
        if not len(audio):
            return
        found = speech_spans(audio)
        assert all(0 <= s.start < s.end <= len(audio) / SAMPLE_RATE for s in found)
        assert all(a.end <= b.start for a, b in pairwise(found))
        heard = np.flatnonzero(audio >= 0.5) / SAMPLE_RATE
        inside = np.zeros(len(heard), bool)
        for s in found:
            inside |= (heard >= s.start) & (heard <= s.end)
        missed = len(heard) - inside.sum()
        dropped = sum(p >= 0.5 and seconds < 0.3 for seconds, p in parts)
        assert missed <= dropped * 0.3 * SAMPLE_RATE  # only stretches that are too short are dropped

    @settings(deadline=None, max_examples=60)
    @given(parts=PARTS, longest=st.floats(2, 10), join=st.floats(0, 3))
    def test_windows_hold_all_speech_and_fit(
        self, parts: list[tuple[float, float]], longest: float, join: float
    ) -> None:
        audio = signal(*parts)
        if not len(audio):
            return
        found = list(windows(audio, longest, join=join))
        assert all(0 < w.end - w.start <= longest + 1e-6 for w in found)
        assert all(a.end <= b.start + 1e-9 for a, b in pairwise(found))
        for span in speech_spans(audio):
            held = sum(max(0.0, min(w.end, span.end) - max(w.start, span.start)) for w in found)
            assert held == pytest.approx(span.end - span.start, abs=1e-6)

    @settings(deadline=None, max_examples=20)
    @given(parts=PARTS, pieces=st.integers(1, 50))
    def test_blocks_are_as_good_as_the_whole(self, parts: list[tuple[float, float]], pieces: int) -> None:
        audio = signal(*parts)
        assert speech_spans(iter(np.array_split(audio, pieces))) == speech_spans(audio)

    def test_pauses_hysteresis_and_pads(self) -> None:
        audio = signal((1, 0), (1, 0.9), (0.3, 0), (1, 0.9), (2, 0), (0.1, 0.9), (2, 0), (1, 0.9), (0.6, 0.4), (1, 0))
        got = speech_spans(audio, SpeechOptions(pad=0.1))
        expected = [Speech(0.9, 3.4), Speech(7.3, 9.1)]  # a short pause stays in, a click is dropped, 0.4 goes on
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert one.start == pytest.approx(other.start, abs=0.1)
            assert one.end == pytest.approx(other.end, abs=0.1)

    def test_long_speech_is_cut_where_it_is_calmest(self) -> None:
        audio = signal((7, 0.95), (0.3, 0.6), (7, 0.95), (1, 0))
        first, second = windows(audio, 10)
        assert first.end == second.start
        assert 7 <= first.end <= 7.3

    def test_neighbours_share_a_window_if_the_silence_is_short(self) -> None:
        audio = signal((1, 0.9), (0.9, 0), (1, 0.9), (4, 0), (1, 0.9), (1, 0))
        assert len(list(windows(audio, 30, join=1))) == 2
        assert len(list(windows(audio, 30, join=0))) == 3
        assert len(list(windows(audio, 30, join=5))) == 1

    def test_windows_come_as_they_are_heard(self) -> None:
        taken = []

        def blocks() -> Iterator[np.ndarray]:
            for n in range(100):
                taken.append(n)
                yield signal((1, 0.9), (3, 0))

        next(windows(blocks(), 10))
        assert len(taken) <= 3


def test_silence_and_noise_are_no_speech() -> None:
    assert speech_spans(np.zeros(0, np.float32)) == []
    assert speech_spans(np.zeros(5 * SAMPLE_RATE, np.float32)) == []
    noise = np.random.default_rng(0).normal(0, 0.05, 5 * SAMPLE_RATE).astype(np.float32)
    assert speech_spans(noise) == []
    assert list(windows(noise)) == []


def test_spoken_sentences_are_found_where_they_are() -> None:
    said = [synthesize("place blue at f two now", seed=n) for n in range(2)]
    pause = np.zeros(2 * SAMPLE_RATE, np.float32)
    audio = np.concatenate([pause, said[0].audio, pause, said[1].audio, pause])
    found = speech_spans(audio)
    assert len(found) == 2
    begin = 2.0
    for span, utterance in zip(found, said, strict=True):
        assert span.start == pytest.approx(begin + utterance.words[0].start, abs=0.35)
        assert span.end == pytest.approx(begin + utterance.words[-1].end, abs=0.35)
        begin += len(utterance.audio) / SAMPLE_RATE + 2.0


def test_wrong_options_are_said_so() -> None:
    with pytest.raises(ConfigError, match="threshold"):
        SpeechOptions(threshold=1.5)
    with pytest.raises(ConfigError, match="min_silence / 2"):
        SpeechOptions(pad=1.0)
    with pytest.raises(ConfigError, match="max_seconds"):
        windows(np.zeros(1, np.float32), 0.5)
