"""Words of tokens, and their times."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_avsr.model.decode import DecodeOptions
from omni_avsr.model.omni import OmniAVSR
from omni_avsr.transcribe.recognition import Utterance, recognise
from omni_avsr.transcribe.words import Said, said_words, timed_words, unsmoothed, word_edges
from omni_avsr.types import FPS, SAMPLE_RATE, Features, Sample
from tests.clips import silence, voice

PIECES = [" bin", " blue", " at", " f", " tw", "o", " now", " ", "-", "a b"]


def decode(tokens: Sequence[int]) -> str:
    return "".join(PIECES[token] for token in tokens)


def said(text: str) -> tuple[Said, ...]:
    return tuple(Said(word, 0.9, ()) for word in text.split())


@settings(max_examples=60)
@given(st.lists(st.integers(0, len(PIECES) - 1), max_size=12))
def test_words_are_those_of_the_text_and_every_token_counts_once(tokens: list[int]) -> None:
    logprobs = [-0.1 * (i + 1) for i in range(len(tokens))]
    words = said_words(decode(tokens), tokens, logprobs, decode)
    assert [word.text for word in words] == decode(tokens).split()
    used = [token for word in words for token in word.tokens]
    spaces = next((i for i in range(len(tokens)) if decode(tokens[: i + 1]).strip()), len(tokens))
    assert used == tokens[spaces:]
    assert all(0 < word.probability <= 1 for word in words)


def test_a_word_is_as_likely_as_all_its_tokens() -> None:
    words = said_words("bin two", [0, 4, 5], [math.log(0.9), math.log(0.5), math.log(0.4)], decode)
    assert [(w.text, w.tokens) for w in words] == [("bin", (0,)), ("two", (4, 5))]
    assert [w.probability for w in words] == pytest.approx([0.9, 0.2])


def test_a_word_without_tokens_is_as_likely_as_the_text() -> None:
    assert [w.probability for w in said_words("bin x", [0], [math.log(0.5)], decode)] == pytest.approx([0.5, 0.5])


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.3), st.integers(2, 1000))
def test_label_smoothing_is_undone(meant: float, smoothing: float, vocabulary: int) -> None:
    """The best that a model can do under it is (1 - smoothing) p + smoothing / vocabulary."""
    given = (1 - smoothing) * meant + smoothing / vocabulary
    (found,) = unsmoothed([math.log(given)], smoothing, vocabulary)
    assert math.exp(found) == pytest.approx(meant)


def test_what_was_not_smoothed_stays_and_no_probability_leaves_its_range() -> None:
    logprobs = [math.log(p) for p in (1.0, 0.95, 0.5, 1e-9)]
    assert unsmoothed(logprobs, 0.0, 300) == logprobs
    found = [math.exp(p) for p in unsmoothed(logprobs, 0.1, 300)]
    assert found[:2] == [1, 1]
    assert 0.5 < found[2] < 0.56
    assert 0 < found[3] <= 1e-3 + 1e-9


def test_a_model_is_read_by_the_smoothing_of_its_training(
    tiny_model: OmniAVSR, make_features: Callable[..., Features], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, options = tiny_model, DecodeOptions(1, max_new_tokens=8)
    asked = [Utterance(make_features(20), "asr", {"audio": 4})]
    (plain,) = recognise(model, asked, options)
    monkeypatch.setattr(model, "heritage", {"label_smoothing": 0.5})
    (found,) = recognise(model, asked, options)
    assert found.hypothesis == plain.hypothesis
    assert len(found.words) == len(plain.words) > 0
    sure = unsmoothed(plain.hypothesis.token_logprobs, 0.5, model.llm.config.vocab_size)
    expected = said_words(plain.hypothesis.text, plain.hypothesis.tokens, sure, model.tokenizer.decode)
    assert found.words == expected != plain.words


def test_words_of_the_sample_lie_where_they_are_spoken() -> None:
    words = timed_words(said("place blue at f two now"), 100.0, voice())
    assert [w.said.text for w in words] == ["place", "blue", "at", "f", "two", "now"]
    assert all(a.end <= b.start for a, b in pairwise(words))
    loud = np.flatnonzero(np.abs(voice()) > 0.02) / 16_000
    assert words[0].start - 100 == pytest.approx(loud[0], abs=0.1)
    assert words[-1].end - 100 == pytest.approx(loud[-1], abs=0.4)


def test_sound_and_silence_around_it_move_the_words_along() -> None:
    early = timed_words(said("place blue at f two now"), 0.0, voice())
    late = timed_words(said("place blue at f two now"), 0.0, np.concatenate([silence(2), voice(), silence(1)]))
    for one, other in zip(early, late, strict=True):
        assert other.start - one.start == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.3])
def test_too_little_time_for_the_letters_is_shared_among_them(seconds: float) -> None:
    words = timed_words(said("a bbb"), 1.0, silence(seconds) + 0.1)
    times = [t for w in words for t in (w.start, w.end)]
    assert times == sorted(times)
    assert times[0] >= 1.0
    assert times[-1] <= 1.0 + seconds + 0.021


def test_no_words_have_no_times() -> None:
    assert timed_words((), 0.0, voice()) == ()


def test_edges_lie_between_words_and_not_beside_a_letter() -> None:
    sample = Sample("", voice(), None, "bin blue at f two now")
    edges = word_edges(sample)
    times = timed_words(said(sample.text), 0.0, sample.audio)
    assert (edges[0], edges[-1]) == (0, len(sample.audio) * FPS // SAMPLE_RATE)
    assert (edges[3], edges[4]) == (-1, -1)
    for number in (1, 2, 5):
        gap = times[number - 1].end * FPS - 1, times[number].start * FPS + 1
        assert gap[0] <= edges[number] <= gap[1]


def test_too_short_a_sound_has_no_edges_inside() -> None:
    assert word_edges(Sample("", silence(0.04), None, "bin blue at")).tolist() == [0, -1, -1, 1]
