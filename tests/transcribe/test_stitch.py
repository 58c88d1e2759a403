"""Two windows over one cut: every word once, however their times tremble."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_avsr.transcribe.stitch import stitched
from omni_avsr.transcribe.words import Said, Timed

OVERLAP = 0.8


def timed(text: str, start: float, end: float) -> Timed:
    return Timed(Said(text, 0.9, ()), start, end)


def texts(*parts: tuple[Timed, ...]) -> list[str]:
    return [word.said.text for part in parts for word in part]


@settings(max_examples=150)
@given(st.integers(0, 10_000), st.floats(2.0, 8.0), st.booleans())
def test_no_word_is_doubled_or_lost(seed: int, cut: float, tell_apart: bool) -> None:
    rng = np.random.default_rng(seed)
    edges = np.cumsum(rng.uniform(0.15, 0.5, 40))
    vocabulary = [f"w{i}" for i in range(40)] if tell_apart else ["no", "yes", "well"]
    words = [vocabulary[i if tell_apart else int(rng.integers(len(vocabulary)))] for i in range(39)]
    spoken = [timed(w, edges[i], edges[i + 1]) for i, w in enumerate(words)]

    def heard(word: Timed) -> Timed:
        tremble = rng.normal(0, 0.01, 2)
        return timed(word.said.text, word.start + tremble[0], word.end + tremble[1])

    left = [heard(w) for w in spoken if w.end <= cut + OVERLAP]
    right = [heard(w) for w in spoken if w.start >= cut - OVERLAP]
    assert texts(*stitched(left, right, cut)) == words


def test_a_half_word_at_the_edge_gives_way_to_the_whole_one() -> None:
    left = [timed("place", 1.0, 1.4), timed("blue", 1.4, 1.8), timed("a", 1.8, 2.0)]
    right = [timed("blue", 1.42, 1.8), timed("at", 1.8, 2.1), timed("f", 2.1, 2.4)]
    assert texts(*stitched(left, right, 1.9)) == ["place", "blue", "at", "f"]


def test_nothing_in_common_is_parted_at_the_cut() -> None:
    left = [timed("one", 0.0, 0.5), timed("two", 0.9, 1.2)]
    right = [timed("three", 0.6, 0.9), timed("four", 1.0, 1.4)]
    assert texts(*stitched(left, right, 1.0)) == ["one", "four"]


def test_a_window_without_words() -> None:
    word = timed("one", 0.0, 0.5)
    assert stitched([word], [], 1.0) == ((word,), ())
    assert stitched([], [word], 0.1) == ((), (word,))


def test_case_and_punctuation_do_not_make_two_words_of_one() -> None:
    left, right = [timed("Blue.", 1.0, 1.3)], [timed("blue", 1.0, 1.3), timed("at", 1.3, 1.5)]
    assert texts(*stitched(left, right, 1.1)) == ["Blue.", "at"]
