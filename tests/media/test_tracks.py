"""Tracks: on invented scenes, where the truth is known, and over cuts between rendered people."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_avsr.data.talking_head import render
from omni_avsr.media.face import face_policy, follow_one
from omni_avsr.media.landmarks import MediaPipeDetector
from omni_avsr.media.tracks import (
    ALIKE,
    ARRIVALS,
    PATIENCE,
    REDETECT,
    TWIN,
    Track,
    Tracker,
    appearance,
    follow_all,
    likeness,
)
from tests.media.stage import Scene, Stage

# ---- by place --------------------------------------------------------------------------------


def ids_of(scene: Scene) -> list[dict[str, int]]:
    """For each frame the id of everybody who is seen."""
    stage = Stage(scene)
    return [
        {min(there, key=lambda w: abs(there[w][0] - face.points[0, 0])): id for id, face in faces.items()}
        for there, (_, faces) in zip(scene, follow_all(stage.pictures(), stage), strict=True)
    ]


@settings(max_examples=30)
@given(moves=st.lists(st.tuples(st.integers(-20, 20), st.integers(-20, 20)), min_size=1, max_size=20))
def test_ids_stay_with_people_that_are_looked_for(moves: list[tuple[int, int]]) -> None:
    scene: Scene = [{"a": (200, 200, 60), "b": (600, 200, 60)}]
    for dx, dy in moves:
        scene.append({who: (x + dx, y + dy, s) for who, (x, y, s) in scene[-1].items()})
    stage = Stage(scene)
    tracker = Tracker(stage)
    known: list[Track] = []
    for picture in stage.pictures():
        for track in known:
            track.missing += 1  # as if every one had been lost in between
        known = tracker.look(picture, known)
        assert {track.id for track in known} == {0, 1}
        assert min(known, key=lambda track: track.face.points[0, 0]).id == 0


@settings(max_examples=30)
@given(
    walk=st.lists(st.integers(-10, 10), min_size=60, max_size=120),
    away=st.lists(st.tuples(st.integers(0, 100), st.integers(1, 60)), max_size=3),
)
def test_ids_stay_with_people_that_move_and_hide(walk: list[int], away: list[tuple[int, int]]) -> None:
    x, scene = 200.0, []
    for number, step in enumerate(walk):
        x = min(max(x + step, 180), 240)
        hidden = any(start <= number < start + length for start, length in away)
        scene.append({"b": (600.0, 200.0, 60.0)} | ({} if hidden else {"a": (x, 200.0, 60.0)}))
    found = ids_of(scene)
    names = {(who, id) for frame in found for who, id in frame.items()}
    assert len(names) == len({who for who, _ in names})  # one id a person
    assert len(names) == len({id for _, id in names})
    assert all("b" in frame for frame in found)


def test_who_arrives_is_found_within_a_second() -> None:
    scene: Scene = [{"a": (100, 100, 60)} | ({"b": (400, 100, 60)} if n >= 30 else {}) for n in range(90)]
    found = ids_of(scene)
    assert found[0] == {"a": 0}
    assert all(frame == {"a": 0, "b": 1} for frame in found[30 + ARRIVALS :])


def test_nobody_counts_twice_where_two_meet() -> None:
    scene: Scene = [{"a": (100 + 4 * n, 100, 60), "b": (500 - 4 * n, 100, 60)} for n in range(90)]
    stage = Stage(scene)
    for _, faces in follow_all(stage.pictures(), stage):
        places = [tuple(face.points[0]) for face in faces.values()]
        assert len(set(places)) == len(places)


def test_looks_are_rare_while_all_are_seen() -> None:
    stage = Stage([{"a": (100, 100, 60), "b": (300, 100, 60)}] * 200)
    assert all(len(faces) == 2 for _, faces in follow_all(stage.pictures(), stage))
    assert stage.looks == 200 / ARRIVALS
    empty = Stage([{}] * 200)
    list(follow_all(empty.pictures(), empty))
    assert empty.looks == 200 / REDETECT


# ---- by looks --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def people() -> list[np.ndarray]:
    """Three people, each alone in the same place, (30, 288, 360, 3)."""
    return [render([], 1.2, seed=seed).frames for seed in (3, 5, 8)]


def looks(frames: Any, detector: MediaPipeDetector) -> list[np.ndarray]:
    faces = [(frame, detector.face(frame, detector.detect(frame)[0])) for frame in frames]
    return [appearance(frame, face) for frame, face in faces if face is not None]


def test_a_person_looks_like_itself_and_like_no_other(mediapipe: MediaPipeDetector, people: list[np.ndarray]) -> None:
    seen = [looks(frames[::10], mediapipe) for frames in people]
    for one, own in enumerate(seen):
        for other, theirs in enumerate(seen):
            values = [likeness(a, b) for a in own for b in theirs]
            assert min(values) > TWIN if one == other else max(values) < ALIKE
    darker = [frame // 2 + 30 for frame in people[0][::10]]
    assert min(likeness(a, b) for a, b in zip(seen[0], looks(darker, mediapipe), strict=True)) > TWIN


def test_over_cuts_everybody_keeps_an_id_of_his_own(mediapipe: MediaPipeDetector, people: list[np.ndarray]) -> None:
    shots = [0, 1, 0, 2, 1, 0]
    pictures = [frame for shot in shots for frame in people[shot][:12]]
    found = [sorted(faces) for _, faces in follow_all(pictures, mediapipe)]
    firsts = [found[12 * number] for number in range(len(shots))]
    assert firsts == [[0], [1], [0], [2], [1], [0]]  # from the first frame of each shot
    assert all(ids == firsts[number // 12] for number, ids in enumerate(found))


def test_the_one_who_is_followed_is_not_mistaken_for_who_takes_the_place(
    mediapipe: MediaPipeDetector, people: list[np.ndarray]
) -> None:
    pictures = [*people[0][:10], *people[1][:20]]
    faces = [face for _, face in follow_one(pictures, face_policy("largest"), mediapipe)]
    assert all(face is not None for face in faces)  # nobody waits for the one who is gone
    assert len(pictures) - 10 < PATIENCE
