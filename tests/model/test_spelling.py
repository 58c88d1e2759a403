"""Prefix probabilities, against the sum over every path."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_avsr.model.ctc import BLANK
from omni_avsr.model.spelling import LEAST, Spelling

FRAMES, CLASSES = 4, 3


def frames(seed, count=FRAMES):
    scores = np.random.default_rng(seed).normal(0, 2, (count, CLASSES))
    return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)


def texts(log_probs):
    """Every text that the frames can spell -> its probability."""
    found = {}
    for path in itertools.product(range(CLASSES), repeat=len(log_probs)):
        text = tuple(c for c, _ in itertools.groupby(path) if c != BLANK)
        found[text] = found.get(text, 0.0) + math.exp(sum(log_probs[n, c] for n, c in enumerate(path)))
    return found


def read(spelling, text):
    begun = spelling.nothing()
    for length in range(1, len(text) + 1):
        (begun,) = spelling.longer([begun], [text[:length]])
    return begun


@given(seed=st.integers(0, 99), text=st.lists(st.integers(1, CLASSES - 1), max_size=FRAMES))
def test_scores_are_sums_over_all_paths(seed, text):
    known = texts(frames(seed))
    spelling = Spelling([frames(seed)], [list], weight=1.0)
    begun = read(spelling, text)
    starts = sum(p for other, p in known.items() if other[: len(text)] == tuple(text))
    if starts:
        assert begun.score == pytest.approx(math.log(starts), abs=1e-9)
    else:
        assert begun.score == LEAST
    exact = known.get(tuple(text), 0.0)
    assert spelling.whole(begun) == (pytest.approx(math.log(exact), abs=1e-9) if exact else LEAST)


def test_heads_add_up_by_how_sure_they_are_and_may_spell_in_units_of_their_own():
    one, other = frames(1), frames(2, 7)
    best = [[c for c, _ in itertools.groupby(x.argmax(1).tolist()) if c != BLANK] for x in (one, other)]
    doubts = [-x.max(1).sum() / len(units) for x, units in zip((one, other), best, strict=True)]
    twice = Spelling([one, other], [list, lambda tokens: [t for token in tokens for t in (token, token)]], 0.5)
    begun = read(twice, [1, 2])
    alone = read(Spelling([one], [list], 1.0), [1, 2]), read(Spelling([other], [list], 1.0), [1, 1, 2, 2])
    weights = [0.5 * min(doubts) / doubt for doubt in doubts]
    assert max(weights) == 0.5 > min(weights)
    assert begun.score == pytest.approx(sum(w * a.score for w, a in zip(weights, alone, strict=True)))


def test_a_head_of_letters_may_doubt_as_often_as_it_spells():
    words = np.log(np.full((6, CLASSES), 0.1))
    letters = words.copy()
    words[range(6), [1, 0, 0, 0, 0, 0]] = letters[range(6), [1, 0, 2, 0, 1, 0]] = np.log(0.8)
    words[1:, 0] = letters[[1, 3, 5], 0] = 0.0  # doubt is in the units alone
    both = Spelling([words, letters], [lambda tokens: [1], lambda tokens: [1, 2, 1]], 1.0)
    begun = read(both, [7])
    assert begun.score == pytest.approx(sum(part.score for part in begun.reads))


def test_a_head_that_knows_nothing_hardly_counts():
    sure = np.log(np.full((5, CLASSES), 1e-4))
    sure[range(5), [1, 0, 2, 0, 0]] = np.log(1 - 2e-4)
    blind = np.full((5, CLASSES), -np.log(CLASSES))
    both, alone = Spelling([sure, blind], [list, list], 1.0), Spelling([sure], [list], 1.0)
    assert read(both, [1, 2]).score == pytest.approx(read(alone, [1, 2]).score, abs=0.01)
    assert read(both, [2]).score == pytest.approx(read(alone, [2]).score, rel=0.01)


def test_many_at_once_are_as_one_by_one():
    spelling = Spelling([frames(3, 6)], [list], 1.0)
    before = [read(spelling, text) for text in ([], [1], [1], [2, 1])]
    grown = [[2], [1, 1], [1, 2, 2], [2, 1]]  # by one unit, by one again, by two, by none
    for many, text in zip(spelling.longer(before, grown), grown, strict=True):
        assert many.score == pytest.approx(read(spelling, text).score)
        assert spelling.whole(many) == pytest.approx(spelling.whole(read(spelling, text)))
