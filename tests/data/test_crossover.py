"""Crossed utterances: words, sound and lips come from the same places, and everything else stays as it is."""

from __future__ import annotations

import numpy as np
import pytest

from omni_avsr.data.crossover import STEP, Crossover
from omni_avsr.types import Sample

TEXTS = ["a b c", "d e f", "g h i", "j k", "l m n"]
SPEAKERS = ["s", "s", "s", "s", "t"]  # the fourth has other words, the fifth another voice
FRAMES = 3  # per word


def load(row: int, audio: bool = True) -> Sample:
    """Every frame and sound says which word of which row it is: 10 row + word + 1."""
    marks = np.repeat(10 * row + 1 + np.arange(len(TEXTS[row].split())), FRAMES)
    mouths = np.broadcast_to(marks[:, None, None], (len(marks), 96, 96)).astype(np.uint8)
    sound = marks.repeat(STEP).astype(np.float32)
    return Sample(f"row{row}", sound if audio else None, mouths, "not used", SPEAKERS[row])


def edges(sample: Sample) -> np.ndarray:
    return np.arange(len(sample.text.split()) + 1) * FRAMES


def crossover(**changes: object) -> Crossover:
    return Crossover(**{"speakers": SPEAKERS, "texts": TEXTS, "load": load, "edges": edges} | changes)


@pytest.mark.parametrize("row", [0, 1, 2])
def test_words_sound_and_lips_stay_together(row: int) -> None:
    cross, seen = crossover(), set()
    for seed in range(200):
        child = cross(row, np.random.default_rng(seed))
        marks = [
            10 * TEXTS.index(next(t for t in TEXTS if word in t)) + i + 1 for i, word in enumerate(child.text.split())
        ]
        assert child.mouths is not None
        assert child.audio is not None
        assert child.mouths[::FRAMES, 0, 0].tolist() == marks
        middles = child.audio[STEP :: FRAMES * STEP]  # behind the ramp of a joint
        assert middles.tolist() == marks
        assert (child.id, child.speaker) == (f"row{row}", "s")
        assert child.text[0] == TEXTS[row][0]  # it begins as the row does
        seen.add(child.text)
    assert len(seen) == 9  # every kin at the second and at the third word
    assert not seen & {"j", "k", "l", "m", "n"}


def test_the_same_generator_the_same_child_and_parents_are_untouched() -> None:
    kept = {row: load(row) for row in range(5)}
    cross = crossover(load=kept.__getitem__)
    one, other = (cross(0, np.random.default_rng(5)) for _ in range(2))
    assert (one.text, one.audio.tobytes()) == (other.text, other.audio.tobytes())
    assert all(np.array_equal(kept[row].audio, load(row).audio) for row in kept)


def test_a_joint_fades_in() -> None:
    cross = crossover()
    child = next(c for c in (cross(0, np.random.default_rng(s)) for s in range(20)) if c.text.split()[1] != "b")
    place = FRAMES * STEP
    assert child.audio[place - 1] == 1
    assert child.audio[place] == 0
    assert (np.diff(child.audio[place : place + 64]) > 0).all()


@pytest.mark.parametrize("row", [3, 4])
def test_without_kin_a_row_stays_as_it_is(row: int) -> None:
    for seed in range(10):
        assert crossover()(row, np.random.default_rng(seed)).text == TEXTS[row]


def test_nothing_is_cut_where_words_are_not_known_to_part() -> None:
    def unsure(sample: Sample) -> np.ndarray:
        return np.array([0, -1, 2 * FRAMES, 3 * FRAMES])

    texts = {crossover(edges=unsure)(0, np.random.default_rng(seed)).text for seed in range(40)}
    assert texts == {"a b c", "a b f", "a b i"}


def test_a_stream_that_one_parent_lacks_is_left_out() -> None:
    child = crossover(load=lambda row: load(row, audio=row == 0))
    found = [child(0, np.random.default_rng(seed)) for seed in range(20)]
    assert {c.audio is None for c in found if c.text != "a b c"} >= {True}
    assert all(c.audio is not None for c in found if c.text == "a b c")
