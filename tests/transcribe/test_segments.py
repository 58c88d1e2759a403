"""Windows that overlap, with turns of several people in them: every word once, and in its speaker's turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_avsr.transcribe.inputs import ClipMedia
from omni_avsr.transcribe.perception import Planned
from omni_avsr.transcribe.recognition import Recognised
from omni_avsr.transcribe.segments import Piece, joined
from omni_avsr.transcribe.windows import OVERLAP, Gaze, Part, Window, windows
from omni_avsr.transcribe.words import Said, Timed
from omni_avsr.types import FPS, Clip, Hypothesis, VideoQuality
from tests.clips import grey

SECONDS = 20


class Turns(Gaze[int]):
    """Two people who never rest, and change places at `changes`, in seconds.

    Where the voice changes is judged within a window, so every window may see it `unsure` of a second away.
    """

    def __init__(self, changes: Sequence[float], unsure: float, rng: np.random.Generator) -> None:
        super().__init__(iter(range(SECONDS * FPS)))
        self.changes, self._unsure, self._rng = changes, unsure, rng

    def parts(self, start: float, end: float, audio: np.ndarray | None) -> list[Part]:
        seen = [round((c + self._rng.uniform(-1, 1) * self._unsure - start) * FPS) for c in self.changes]
        starts = [0, *sorted({frame for frame in seen if 0 < frame < round((end - start) * FPS)})]
        return [Part(s, None, who(start + s / FPS + self._unsure + 0.02, self.changes)) for s in starts]

    def lips(self, seen: Sequence[int]) -> np.ndarray:
        return np.ones(len(seen))

    def is_face(self, seen: int) -> bool:
        return True

    @property
    def sight(self) -> VideoQuality:
        return VideoQuality(1.0, 0.0, 0.0, 0.0, 0.0)


def who(at: float, changes: Sequence[float]) -> str:
    return "AB"[sum(c <= at for c in changes) % 2]


def heard(window: Window, spoken: Sequence[Timed], rng: np.random.Generator) -> Piece:
    """What is spoken in the window; of words that are cut off, half the letters in what there is of them."""
    words = []
    for word in spoken:
        start, end = max(word.start, window.start), min(word.end, window.end)
        if end - start > 0.05:
            whole = end - start > 0.9 * (word.end - word.start)
            text = word.said.text if whole else word.said.text[: len(word.said.text) // 2]
            words.append(Timed(Said(text, 0.9, ()), start + rng.normal(0, 0.01), end + rng.normal(0, 0.01)))
    return Piece(Planned(window, "asr"), {}, Recognised(Hypothesis("", (), (), 0.0), (), {}), tuple(words))


@pytest.fixture(scope="module")
def film() -> ClipMedia:
    return ClipMedia(Clip(None, grey(SECONDS, 8)))


@pytest.fixture(scope="module")
def cuts(film: ClipMedia) -> list[float]:
    found = windows(film, Turns([], 0.0, np.random.default_rng(0)), listens=False, longest=7.0)
    return [w.cut_after for w in found if w.cut_after is not None]


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    near=st.lists(st.tuples(st.integers(0, 9), st.floats(-1.5, 1.5)), min_size=1, max_size=5),
    unsure=st.sampled_from([0.0, 0.0, 0.15]),
)
def test_speakers_change_anywhere_around_a_cut_and_no_word_is_doubled_or_lost(
    film: ClipMedia, cuts: list[float], seed: int, near: list[tuple[int, float]], unsure: float
) -> None:
    rng = np.random.default_rng(seed)
    edges = np.cumsum(rng.integers(4, 13, 200)) / FPS
    edges = edges[edges < SECONDS]
    spoken = [Timed(Said(f"word{i:03d}", 0.9, ()), *edge) for i, edge in enumerate(pairwise(edges.tolist()))]
    wanted = [cuts[number % len(cuts)] + by for number, by in near]
    changes = sorted({float(edges[np.abs(edges - c).argmin()]) for c in wanted})  # between two words
    found = list(windows(film, Turns(changes, unsure, rng), listens=False, longest=7.0))
    assert {w.cut_after for w in found} - {None} == set(cuts)
    pieces = list(joined(heard(window, spoken, rng) for window in found))
    said = [(word.said.text, piece.planned.window.speaker) for piece in pieces for word in piece.words]
    if unsure:
        # a turn that begins inside a word halves it; nothing else may happen
        whole = [text for text, _ in said if text in {w.said.text for w in spoken}]
        assert len(whole) == len(set(whole))
        assert len(whole) >= len(spoken) - 2 * len(changes)
    else:
        assert said == [(word.said.text, who((word.start + word.end) / 2, changes)) for word in spoken]


def pieces(*cuts: tuple[float | None, float | None]) -> list[Piece]:
    rng = np.random.default_rng(0)
    return [heard(Window(i, i + 1.0, None, None, cut_before=a, cut_after=b), (), rng) for i, (a, b) in enumerate(cuts)]


def test_what_was_not_cut_does_not_wait_for_what_follows() -> None:
    taken = 0

    def counted() -> Iterator[Piece]:
        nonlocal taken
        for piece in pieces((None, None), (None, None)):
            taken += 1
            yield piece

    stream = joined(counted())
    next(stream)
    assert taken == 1
    assert len(list(stream)) == 1


def test_a_window_that_was_passed_over_takes_no_words_of_its_neighbour() -> None:
    left, _, right = pieces((None, 5.0), (5.0, 9.0), (9.0, None))
    word = Timed(Said("one", 0.9, ()), 5.2, 5.2 + OVERLAP / 2)
    left = Piece(left.planned, {}, left.recognised, (word,))
    assert [len(p.words) for p in joined([left, right])] == [1, 0]
