"""Mouth crops: the same mouth gives the same crop wherever it is; gaps are bridged or flagged; memory stays flat."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import omni_avsr.media.mouth as mouth_module
from omni_avsr.config import PreprocessConfig
from omni_avsr.media.landmarks import Face, MediaPipeDetector, Region
from omni_avsr.media.mouth import GAP, REACH, all_mouths, mouth_stream, mouths
from omni_avsr.media.template import POINTS, TEMPLATE
from omni_avsr.media.tracks import REDETECT
from omni_avsr.types import MOUTH_SIZE

LIPS = np.array([(-24.0, 70.0), (24.0, 70.0), (0.0, 68.0), (0.0, 72.0)])
HOME = np.vstack([POINTS, LIPS]) + np.array([150.0, 90.0])  # where the face is in `PICTURE`


def _texture() -> np.ndarray:
    """Smooth random RGB, different everywhere."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (25, 30, 3)).astype(np.uint8)
    return cv2.resize(coarse, (300, 250), interpolation=cv2.INTER_CUBIC)


PICTURE = _texture()


def placed(scale: float = 1.0, degrees: float = 0.0, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    """(2, 3) similarity about the face that moves it by x, y."""
    matrix = cv2.getRotationMatrix2D((150, 160), degrees, scale)
    matrix[:, 2] += (x, y)
    return matrix


class Puppet:
    """A detector that is told where the face is in each frame; None = not seen."""

    def __init__(self, places: list[np.ndarray | None], jitter: float = 0.0, hidden: range = range(0)) -> None:
        """`hidden`: frames that show the face, where the detector overlooks it all the same."""
        self.pictures, self.shown = places, -1
        self.places = [None if n in hidden else place for n, place in enumerate(places)]
        self._noise = np.random.default_rng(1).normal(0, jitter, (len(places), 10, 2)) if jitter else None

    def frames(self, size: tuple[int, int] = (300, 250)) -> Iterator[np.ndarray]:
        for number, place in enumerate(self.pictures):
            self.shown = number
            matrix = np.eye(2, 3) if place is None else place
            yield cv2.warpAffine(PICTURE, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def detect(self, picture: np.ndarray, deep: bool = False) -> list[Region]:
        return [] if self.places[self.shown] is None else [Region(np.array([150.0, 160.0]), 100.0)]

    def face(self, picture: np.ndarray, region: Region) -> Face | None:
        place = self.places[self.shown]
        if place is None:
            return None
        points = HOME @ place[:, :2].T + place[:, 2]
        points = points if self._noise is None else points + self._noise[self.shown]
        low, high = points.min(0), points.max(0)
        box = np.concatenate([low, high - low]).astype(np.float32)
        return Face(points.astype(np.float32), box, Region(points.mean(0), 100.0))


def crops(places: list[np.ndarray | None], **how: Any) -> Any:
    size = how.pop("size", (300, 250))
    puppet = Puppet(places, **how)
    return mouths(puppet.frames(size), detector=puppet)


def expected_crop() -> np.ndarray:
    """The template's own window, cut by indices alone: the lips' centre is the crop's."""
    x, y = (HOME[6:].mean(0) - (MOUTH_SIZE - 1) / 2).tolist()
    grey = cv2.cvtColor(PICTURE, cv2.COLOR_RGB2GRAY)
    return cv2.getRectSubPix(grey, (MOUTH_SIZE, MOUTH_SIZE), (x + (MOUTH_SIZE - 1) / 2, y + (MOUTH_SIZE - 1) / 2))


def test_a_face_that_lies_on_the_template_is_cut_as_it_is() -> None:
    result = crops([placed()])
    assert result.crops.shape == (1, MOUTH_SIZE, MOUTH_SIZE)
    assert result.crops.dtype == np.uint8
    assert np.abs(result.crops[0].astype(int) - expected_crop()).max() <= 3


@settings(deadline=None, max_examples=40)
@given(scale=st.floats(0.8, 4), degrees=st.floats(-45, 45), x=st.floats(-20, 20), y=st.floats(-20, 20))
def test_crops_do_not_depend_on_size_turn_and_place(scale: float, degrees: float, x: float, y: float) -> None:
    size = (round(300 * max(scale, 1.2)), round(250 * max(scale, 1.2)))
    matrix = placed(scale, degrees, x, y)
    matrix[:, 2] += ((size[0] - 300) / 2, (size[1] - 250) / 2)
    result = crops([matrix] * 3, size=size)
    assert result.found.all()
    assert np.abs(result.crops[1].astype(int) - expected_crop()).mean() < 4


@settings(deadline=None, max_examples=40)
@given(x=st.floats(-400, 400), y=st.floats(-400, 400), scale=st.floats(0.2, 6))
def test_the_border_never_breaks_a_crop(x: float, y: float, scale: float) -> None:
    result = crops([placed(scale, 10, x, y)] * 2)
    assert result.crops.shape == (2, MOUTH_SIZE, MOUTH_SIZE)
    lips = (HOME[6:] @ placed(scale, 10, x, y)[:, :2].T + placed(scale, 10, x, y)[:, 2]).mean(0)
    inside = 0 <= lips[0] < 300 and 0 <= lips[1] < 250
    if min(abs(lips[0]), abs(lips[0] - 300), abs(lips[1]), abs(lips[1] - 250)) > 1e-3:
        assert result.found.all() == inside  # lips outside the picture are not seen


def test_beyond_the_border_its_edge_is_repeated() -> None:
    puppet = Puppet([placed()])
    frame = next(puppet.frames())[:170]  # ends ten pixels below the middle of the mouth
    crop = mouths([frame], detector=puppet).crops[0]
    full = expected_crop()
    assert np.abs(crop[:50].astype(int) - full[:50]).max() <= 3
    assert np.abs(crop[60:].astype(int) - full[57]).max() <= 12  # the picture's last row, between two of the crop


# ---- gaps ------------------------------------------------------------------------------------


def bridged(seen: list[bool]) -> list[bool]:
    """The rule, said once more: gaps of up to GAP frames count as found, unless there is no face at all."""
    if not any(seen):
        return seen
    runs = [(value, len(list(run))) for value, run in itertools.groupby(seen)]
    return [value or length <= GAP for value, length in runs for _ in range(length)]


@settings(deadline=None, max_examples=60)
@given(runs=st.lists(st.integers(1, 2 * GAP), min_size=0, max_size=5), first=st.booleans())
def test_short_gaps_are_bridged_and_long_ones_flagged(runs: list[int], first: bool) -> None:
    seen = [bool((n + first) % 2) for n, length in enumerate(runs) for _ in range(length)]
    result = crops([placed() if s else None for s in seen])
    # A face is looked for every few frames; from then on it is tried in every frame.
    first_look = next((n for n in range(0, len(seen), REDETECT) if seen[n]), len(seen))
    known = [s and n >= first_look for n, s in enumerate(seen)]
    assert len(result.crops) == len(result.found) == len(result.boxes) == len(seen)
    assert result.found.tolist() == bridged(known)
    assert not result.crops[~result.found].any()
    assert np.isnan(result.boxes[~result.found]).all()
    assert np.isfinite(result.boxes[result.found]).all()


def test_a_bridge_is_a_straight_way() -> None:
    moving = [placed(x=float(n)) for n in range(31)]
    whole = crops(list(moving))
    holed = crops(list(moving), hidden=range(10, 20))
    assert holed.found.all()
    np.testing.assert_allclose(holed.boxes, whole.boxes, atol=0.01)
    assert np.abs(holed.crops.astype(int) - whole.crops).max() <= 3


# ---- smoothing ---------------------------------------------------------------------------------


def test_smoothing_calms_trembling_points(monkeypatch: pytest.MonkeyPatch) -> None:
    def unrest() -> float:
        result = crops([placed()] * 40, jitter=1.5).crops.astype(float)
        return float(np.abs(np.diff(result, axis=0)).mean())

    calm = unrest()
    monkeypatch.setattr(mouth_module, "STEADY", 0.01)
    monkeypatch.setattr(mouth_module, "FOLLOW", 0.01)
    assert calm < 0.5 * unrest()


def test_smoothing_does_not_lag_behind_a_moving_head() -> None:
    result = crops([placed(x=3.0 * n - 45) for n in range(31)])
    assert np.abs(result.crops.astype(int) - expected_crop()).mean() < 2


# ---- streaming ---------------------------------------------------------------------------------


def test_the_stream_is_the_whole_with_a_bounded_look_ahead() -> None:
    places = [None if 30 <= n < 36 or 60 <= n < 90 else placed(x=n % 7) for n in range(120)]
    whole = crops(list(places))
    puppet = Puppet(list(places))
    for number, mouth in enumerate(mouth_stream(puppet.frames(), detector=puppet)):
        assert puppet.shown - number <= GAP + REACH + 1
        assert np.array_equal(mouth.crop, whole.crops[number])
        assert mouth.found == whole.found[number]
    assert number == 119


def test_all_mouths_of_a_lonely_face_are_its_mouths() -> None:
    places = [None if 30 <= n < 36 or 60 <= n < 90 else placed(x=n % 7) for n in range(120)]
    whole = crops(list(places))
    puppet = Puppet(list(places))
    number = -1
    for number, seen in enumerate(all_mouths(puppet.frames(), detector=puppet)):
        assert puppet.shown - number <= GAP + REACH + 1
        assert set(seen) <= {0}
        assert (0 in seen) == whole.found[number]
        assert 0 not in seen or np.array_equal(seen[0].crop, whole.crops[number])
    assert number == 119


def test_all_mouths_of_two_are_those_of_each(mediapipe: MediaPipeDetector, pair: Any) -> None:
    frames = pair[0].frames
    seen = list(all_mouths(frames, detector=mediapipe))
    assert [sorted(frame) for frame in seen] == [[0, 1]] * len(frames)
    for id, mouth in seen[0].items():
        x, y = mouth.box[:2] + mouth.box[2:] / 2
        alone = mouths(frames, face=f"{x - 20:.0f},{y - 20:.0f},40,40", detector=mediapipe)
        together = np.stack([frame[id].crop for frame in seen])
        assert np.abs(alone.crops.astype(int) - together).mean() < 1  # the first look differs, so not to the bit


@pytest.mark.parametrize("stream", [mouth_stream, all_mouths])
def test_memory_does_not_grow_with_the_video(stream: Any) -> None:
    puppet = Puppet([None if n % 100 > 80 else placed() for n in range(300)])
    tracemalloc.start()
    count = sum(1 for _ in stream(puppet.frames(size=(600, 400)), detector=puppet))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 300
    assert peak < 40 * 600 * 400 * 3  # some forty frames' worth; all of them would be 300


def test_no_frames_give_no_mouths() -> None:
    result = crops([])
    assert result.crops.shape == (0, MOUTH_SIZE, MOUTH_SIZE)
    assert result.boxes.shape == (0, 4)
    assert result.share == 0


# ---- with the real networks ----------------------------------------------------------------------


def test_a_rendered_face_gives_a_centred_mouth_of_half_the_crop(mediapipe: MediaPipeDetector, talker: Any) -> None:
    result = mouths(talker.frames, detector=mediapipe)
    assert result.share == 1
    assert len(result.crops) == len(talker.frames)
    for box, lips in zip(result.boxes, talker.landmarks, strict=True):
        assert (lips.mean(0) > box[:2]).all()
        assert (lips.mean(0) < box[:2] + box[2:]).all()


def test_turning_and_shrinking_a_real_scene_leaves_its_crops(mediapipe: MediaPipeDetector, talker: Any) -> None:
    height, width = talker.frames.shape[1:3]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), 20, 0.8)
    turned = [cv2.warpAffine(frame, matrix, (width, height)) for frame in talker.frames]
    plain, other = mouths(talker.frames, detector=mediapipe), mouths(turned, detector=mediapipe)
    assert other.share == 1
    unlike = np.abs(plain.crops.astype(int) - other.crops).mean()
    shifted = np.abs(plain.crops[:, :, 8:].astype(int) - plain.crops[:, :, :-8]).mean()
    assert unlike < 0.7 * shifted  # nearer than a crop that is eight pixels off


def test_the_chosen_face_is_the_one_in_the_box(mediapipe: MediaPipeDetector, pair: Any) -> None:
    frames = pair[0].frames[:8]
    for rendered in pair:
        x, y = rendered.landmarks[0].mean(0)
        boxes = mouths(frames, face=f"{max(x - 80, 0):.0f},{max(y - 150, 0):.0f},160,220", detector=mediapipe).boxes
        assert (np.abs(boxes[:, 0] + boxes[:, 2] / 2 - x) < 30).all()


def test_the_template_is_the_one_that_contracts_name() -> None:
    assert PreprocessConfig().template == TEMPLATE
