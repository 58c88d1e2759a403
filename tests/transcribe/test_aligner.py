"""The best path against an exhaustive search, and the networks against synthetic truth."""

from __future__ import annotations

from itertools import islice, pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_avsr.data.synthetic import utterances
from omni_avsr.data.talking_head import render
from omni_avsr.media.mouth import mouths
from omni_avsr.transcribe.aligner import CLASSES, RATE, REST, align, aligner, best_path, lips_of
from tests.clips import silence, voice


def paths(frames: int, optional: list[bool]) -> list[tuple[int, ...]]:
    """Every path that is allowed."""
    count = len(optional)
    out = []
    for path in product(range(count), repeat=frames):
        steps = [b - a for a, b in pairwise(path)]
        starts = path[0] == 0 or (path[0] == 1 and optional[0])
        ends = path[-1] == count - 1 or (path[-1] == count - 2 and optional[-1])
        moves = all(s in (0, 1) or (s == 2 and optional[a + 1]) for s, a in zip(steps, path, strict=False))
        if starts and ends and moves:
            out.append(path)
    return out


@settings(max_examples=60)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 10_000))
def test_no_path_is_better(frames: int, states: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    emissions = rng.normal(size=(frames, states))
    optional = rng.random(states) < 0.4
    optional[1:] &= ~optional[:-1]  # as rests are: never two beside each other
    found = best_path(emissions, optional)
    allowed = paths(frames, optional.tolist())
    if found is None:
        assert not allowed
    else:
        assert tuple(found) in allowed
        best = max(sum(emissions[t, s] for t, s in enumerate(path)) for path in allowed)
        assert sum(emissions[t, s] for t, s in enumerate(found)) == pytest.approx(best)


def spelled(text: str, likely: float = 0.9) -> np.ndarray:
    """(T, CLASSES) log-probabilities of one letter a moment; '_' is rest."""
    probs = np.full((len(text), CLASSES), (1 - likely) / (CLASSES - 1))
    for t, character in enumerate(text):
        probs[t, REST if character == "_" else ord(character) - ord("a") + 1] = likely
    return np.log(probs)


def test_words_lie_where_their_letters_are() -> None:
    spans = align(spelled("__binn_bluue__"), ["bin", "blue"])
    assert spans is not None
    assert [(s.start, s.end) for s in spans] == [(2, 6), (7, 12)]


def test_words_without_a_rest_between_them() -> None:
    spans = align(spelled("atf"), ["at", "f"])
    assert spans is not None
    assert [(s.start, s.end) for s in spans] == [(0, 2), (2, 3)]


def test_what_is_no_letter_sounds_like_anything() -> None:
    spans = align(spelled("_bin__qqqq__now"), ["Bin,", "1990", "now."])
    assert spans is not None
    assert [(s.start, s.end) for s in spans] == [(1, 4), (6, 10), (12, 15)]


def test_too_few_moments() -> None:
    assert align(spelled("ab"), ["abc"]) is None
    assert align(np.zeros((0, CLASSES)), ["a"]) is None
    assert align(spelled("__"), []) == []


# ---- the networks ----------------------------------------------------------------------------


def test_what_is_far_away_changes_nothing() -> None:
    mel, lips = torch.randn(1, 80, 400), torch.rand(1, 200, 24, 24)
    louder, moved = mel.clone(), lips.clone()
    louder[:, :, 300] += torch.randn(80)
    moved[:, 150] = torch.rand(24, 24)
    for network, signal, changed, place in ((aligner().ear, mel, louder, 150), (aligner().eye, lips, moved, 150)):
        with torch.inference_mode():
            off = (network(signal) - network(changed)).abs().amax((0, 2))
        far = [t for t in range(len(off)) if abs(t - place) > 20]
        # the mean of the whole moves a little; nothing else may reach that far
        assert off[far].max() < 0.1 * off[place]


def test_grids() -> None:
    assert aligner().scores(voice()).shape == (3 * RATE, CLASSES)
    crops = np.random.default_rng(0).integers(0, 255, (75, 96, 96)).astype(np.uint8)
    assert aligner().scores(None, crops).shape == (3 * RATE, CLASSES)
    assert aligner().scores(voice(), crops).shape == (3 * RATE, CLASSES)
    assert aligner().scores(None).shape == (0, CLASSES)
    assert lips_of(crops).shape == (75, 24, 24)


def test_where_the_ear_is_deaf_the_eye_decides() -> None:
    crops = np.random.default_rng(0).integers(0, 255, (75, 96, 96)).astype(np.uint8)
    face = np.arange(75) < 50
    assert not aligner().scores(None, crops, face)[100:].any()
    half = np.concatenate([voice()[:24_000], silence(1.5)])
    by_both, by_eye = aligner().scores(half, crops, face), aligner().scores(None, crops, face)
    assert np.array_equal(by_both[80:100], by_eye[80:100])
    assert (by_both[100:].argmax(1) == REST).all()  # without a face, no sound is rest


def errors(grammar: str, count: int) -> np.ndarray:
    """Seconds by which starts and ends of words are off, for voices the ear has not met."""
    out = []
    for utterance in islice(utterances(grammar, seed=4711), count):
        spans = align(aligner().scores(utterance.audio), utterance.text.split())
        assert spans is not None
        for span, word in zip(spans, utterance.words, strict=True):
            out += [span.start / RATE - word.start, span.end / RATE - word.end]
    return np.abs(out)


@pytest.mark.parametrize("grammar", ["grid", "phrases"])
def test_words_are_timed_to_60_ms_by_ear(grammar: str) -> None:
    off = errors(grammar, 8)
    assert np.median(off) <= 0.03
    assert np.quantile(off, 0.9) <= 0.15


@pytest.mark.slow
def test_words_are_timed_to_120_ms_by_the_lips() -> None:
    out = []
    for number, utterance in enumerate(islice(utterances("grid", seed=4711), 12)):
        film = render(utterance.phonemes, utterance.duration, seed=1000 + number)
        seen = mouths(film.frames, offline=True)
        spans = align(aligner().scores(None, seen.crops, seen.found), utterance.text.split())
        assert spans is not None
        for span, word in zip(spans, utterance.words, strict=True):
            out += [span.start / RATE - word.start, span.end / RATE - word.end]
    assert np.median(np.abs(out)) <= 0.12


def test_lips_at_rest_do_not_speak() -> None:
    still = np.repeat(np.random.default_rng(0).integers(60, 200, (1, 96, 96)), 75, 0).astype(np.uint8)
    assert aligner().speaking(still, np.ones(75, bool)).mean() < 0.5
