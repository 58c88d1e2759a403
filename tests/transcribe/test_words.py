"""Forced alignment against an exhaustive search over all CTC paths."""

from __future__ import annotations

from itertools import groupby, pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_avsr.transcribe.words import Span, align, words


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def spelled(path: tuple[int, ...]) -> list[int]:
    return [unit for unit, _ in groupby(path) if unit != 0]


def exhaustive(log_probs: np.ndarray, units: list[int]) -> float:
    frames, vocabulary = log_probs.shape
    paths = (p for p in product(range(vocabulary), repeat=frames) if spelled(p) == units)
    return max((sum(log_probs[t, u] for t, u in enumerate(p)) for p in paths), default=-np.inf)


def score(log_probs: np.ndarray, units: list[int], spans: list[Span]) -> float:
    path = np.zeros(len(log_probs), int)
    for unit, span in zip(units, spans, strict=True):
        path[span.start : span.end] = unit
    assert spelled(tuple(path)) == units
    return float(log_probs[np.arange(len(path)), path].sum())


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.lists(st.integers(1, 2), min_size=1, max_size=4), st.integers(0, 10_000))
def test_no_path_is_better(frames: int, units: list[int], seed: int) -> None:
    log_probs = log_softmax(np.random.default_rng(seed).normal(size=(frames, 3)) * 2)
    best, spans = exhaustive(log_probs, units), align(log_probs, units)
    if spans is None:
        assert best == -np.inf
    else:
        assert score(log_probs, units, spans) == pytest.approx(best)
        assert all(a.end <= b.start for a, b in pairwise(spans))


def test_a_repeated_unit_needs_a_blank_between() -> None:
    even = np.log(np.full((2, 3), 1 / 3))
    assert align(even, [1, 2]) is not None
    assert align(even, [1, 1]) is None


def test_nothing_to_spell_and_nothing_to_hear() -> None:
    assert align(np.zeros((4, 3)), []) == []
    assert align(np.zeros((0, 3)), [1]) is None


def test_words_lie_where_their_units_were_heard() -> None:
    # 'ab c' heard as _ a b _ ' ' _ c c
    heard = [0, 1, 2, 0, 3, 0, 4, 4]
    probs = np.full((8, 5), 0.05)
    probs[np.arange(8), heard] = 0.8
    spans = align(np.log(probs), [1, 2, 3, 4])
    assert spans is not None
    found = words(spans, [0, 0, -1, 1], ["ab", "c"], frame=0.04, start=10.0)
    assert [w.word for w in found] == [" ab", " c"]
    assert [(w.start, w.end) for w in found] == [pytest.approx((10.04, 10.12)), pytest.approx((10.24, 10.32))]
    assert [w.probability for w in found] == pytest.approx([0.8, 0.8])
