"""Faces: every detector on rendered faces; the policy that stays with one, on invented scenes."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_avsr.errors import ConfigError
from omni_avsr.media.face import DETECTORS, face_policy, follow_one, load_detector
from omni_avsr.media.landmarks import KEY_POINTS, MOUTH, STABLE, Detector, MediaPipeDetector
from omni_avsr.media.tracks import PATIENCE, REDETECT
from tests.media.stage import Scene, Stage

# ---- the detectors -----------------------------------------------------------------------------


@pytest.fixture(params=sorted(DETECTORS))
def detector(request: pytest.FixtureRequest, mediapipe: MediaPipeDetector) -> Detector:
    return load_detector(request.param, offline=True)


def test_every_detector_finds_the_mouth_of_a_face(detector: Detector, talker: Any) -> None:
    picture, lips = talker.frames[0], talker.landmarks[0]
    regions = detector.detect(picture)
    assert len(regions) == 1
    face = detector.face(picture, regions[0])
    assert face is not None
    assert face.points.shape == (len(KEY_POINTS), 2)
    width = np.linalg.norm(lips[1] - lips[0])
    assert np.linalg.norm(face.points[MOUTH].mean(0) - lips.mean(0)) < 0.5 * width
    x, y, w, h = face.box
    assert (lips >= (x, y)).all()
    assert (lips <= (x + w, y + h)).all()


def test_every_detector_sees_nothing_where_nothing_is(detector: Detector) -> None:
    for size in ((240, 320), (480, 640), (10, 10), (3, 900)):
        assert detector.detect(np.full((*size, 3), 128, np.uint8)) == []


def test_every_detector_finds_both_of_two(detector: Detector, pair: Any) -> None:
    picture = pair[0].frames[0]
    found = sorted(region.centre[0] for region in detector.detect(picture))
    assert len(found) == 2
    for centre, rendered in zip(found, sorted(pair, key=lambda r: r.landmarks[0, 0, 0]), strict=True):
        assert abs(centre - rendered.landmarks[0, :, 0].mean()) < 40


def test_the_mesh_lies_on_the_lips(mediapipe: MediaPipeDetector, talker: Any) -> None:
    picture, lips = talker.frames[0], talker.landmarks[0]
    face = mediapipe.face(picture, mediapipe.detect(picture)[0])
    width = np.linalg.norm(lips[1] - lips[0])
    assert face is not None
    assert np.linalg.norm(face.points[MOUTH] - lips, axis=1).max() < 0.25 * width
    left, right = face.points[STABLE][0], face.points[STABLE][3]
    assert left[0] < right[0]
    assert max(left[1], right[1]) < lips[:, 1].min()


@pytest.mark.parametrize("angle", [-30, 30])
@pytest.mark.parametrize("scale", [0.6, 2.5])
def test_points_turn_and_grow_with_the_picture(
    mediapipe: MediaPipeDetector, talker: Any, angle: float, scale: float
) -> None:
    picture = talker.frames[0]
    height, width = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale)
    matrix[:, 2] += (scale - 1) * np.array([width, height]) / 2
    turned = cv2.warpAffine(picture, matrix, (round(width * scale), round(height * scale)))
    before = mediapipe.face(picture, mediapipe.detect(picture)[0])
    after = mediapipe.face(turned, mediapipe.detect(turned)[0])
    assert before is not None
    assert after is not None
    expected = before.points @ matrix[:, :2].T + matrix[:, 2]
    assert np.linalg.norm(after.points - expected, axis=1).mean() < 0.05 * before.region.size * scale


def test_a_small_face_in_a_large_picture_is_found(mediapipe: MediaPipeDetector, talker: Any) -> None:
    large = np.full((1080, 1920, 3), 90, np.uint8)
    face = cv2.resize(talker.frames[0], (220, 176), interpolation=cv2.INTER_AREA)
    large[700:876, 1500:1720] = face
    regions = mediapipe.detect(large)
    assert len(regions) == 1
    assert np.linalg.norm(regions[0].centre - (1610, 788)) < 80


def test_names_that_do_not_exist_suggest_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'mediapipe'"):
        load_detector("mediapip")
    with pytest.raises(ConfigError, match="did you mean 'largest'"):
        face_policy("larges")
    for wrong in ("1,2,3", "1,2,3,x", "-1,2,3,4", ""):
        with pytest.raises(ConfigError, match="unknown"):
            face_policy(wrong)


# ---- one of several ----------------------------------------------------------------------------


def followed(scene: Scene, policy: str = "largest") -> list[str]:
    """Who is followed, frame by frame; '-' where nobody."""
    stage = Stage(scene)
    names: list[str] = []
    for number, (_, face) in enumerate(follow_one(stage.pictures(), face_policy(policy), stage)):
        where = scene[number]
        names.append("-" if face is None else min(where, key=lambda w: abs(where[w][0] - face.points[0, 0])))
    return names


def test_the_largest_at_the_start_is_kept_though_another_grows() -> None:
    scene: Scene = [{"a": (100, 100, 60), "b": (300, 100, 40 + n)} for n in range(100)]
    assert followed(scene) == ["a"] * 100


def test_a_moving_face_is_followed() -> None:
    scene: Scene = [{"a": (100 + 8 * n, 100, 60), "b": (900 - 3 * n, 300, 50)} for n in range(90)]
    assert followed(scene) == ["a"] * 90


@given(away=st.integers(1, PATIENCE))
@settings(deadline=None, max_examples=20)
def test_a_face_that_hides_for_a_moment_is_taken_up_again(away: int) -> None:
    def people(n: int) -> dict[str, tuple[float, float, float]]:
        hidden = 20 <= n < 20 + away
        return {"b": (300, 100, 50)} | ({} if hidden else {"a": (100 + (30 if n >= 20 + away else 0), 100, 60)})

    names = followed([people(n) for n in range(80)])
    assert names[:20] == ["a"] * 20
    assert "b" not in names
    assert names[20 + away + REDETECT :] == ["a"] * (80 - 20 - away - REDETECT)


def test_after_a_cut_the_largest_of_the_new_shot_is_followed() -> None:
    scene: Scene = [{"a": (100, 100, 60)}] * 30 + [{"b": (500, 100, 40), "c": (800, 100, 50)}] * 60
    names = followed(scene)
    assert names[:30] == ["a"] * 30
    assert set(names[30 : 30 + PATIENCE]) == {"-"}
    assert set(names[30 + PATIENCE + REDETECT :]) == {"c"}


def test_a_box_picks_the_face_inside_it() -> None:
    scene: Scene = [{"a": (100, 100, 90), "b": (300, 100, 40), "c": (330, 130, 50)}] * 40
    assert set(followed(scene, "250,50,120,120")) == {"c"}
    assert set(followed(scene, "280,80,30,30")) == {"b"}
    assert set(followed(scene, "600,0,50,50")) == {"-"}


def test_nobody_is_looked_for_while_the_face_is_seen() -> None:
    stage = Stage([{"a": (100, 100, 60)}] * 200)
    assert all(face is not None for _, face in follow_one(stage.pictures(), face_policy("largest"), stage))
    assert stage.looks == 1
    empty = Stage([{}] * 200)
    list(follow_one(empty.pictures(), face_policy("largest"), empty))
    assert empty.looks == 200 / REDETECT


def test_a_picture_that_is_shown_again_is_not_looked_at_again(mediapipe: MediaPipeDetector, talker: Any) -> None:
    class Counting:
        looks = 0

        def detect(self, picture: np.ndarray, deep: bool = False) -> Any:
            return mediapipe.detect(picture, deep)

        def face(self, picture: np.ndarray, region: Any) -> Any:
            self.looks += 1
            return mediapipe.face(picture, region)

    detector = Counting()
    pictures = [picture for picture in talker.frames[:3] for _ in range(50)]
    found = [face for _, face in follow_one(pictures, face_policy("largest"), detector)]
    assert None not in found
    assert detector.looks <= 5
