"""The mouth of one face, frame by frame: smoothed, bridged, laid on a template, cut out as 96 x 96 grey.

The chain is lazy with a bounded look-ahead (`GAP` + `REACH` frames): memory does not grow with the video.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, repeat

import cv2
import numpy as np

from omni_avsr.media.face import face_policy, follow_one, load_detector
from omni_avsr.media.landmarks import MOUTH, STABLE, Detector, Face
from omni_avsr.media.warp import cut, patch
from omni_avsr.types import MOUTH_SIZE, Mouths

TEMPLATE = "mediapipe-mesh-v1"  # name of the geometry below, stored in a model's preprocessing contract
GAP = 12  # frames (0.48 s) without a face that are bridged; the frames of a longer gap are flagged
REACH = 12  # frames on either side that smoothing looks at
STEADY = 4.0  # standard deviation in frames of the smoothing of scale, turn and mouth place against the face
FOLLOW = 1.0  # the same of the face's own movement, which must not lag

# Pixels from the point between the eyes' outer corners, at the crop's scale, in the order of KEY_POINTS: a frontal
# face of average proportions. A mouth at rest is then about half as wide as the crop.
POINTS = np.array([(-43.0, 0.0), (-18.0, 0.0), (18.0, 0.0), (43.0, 0.0), (0.0, 36.0), (0.0, -4.0)])
NOSE = 0.97  # how far its tip stands out before the eyes' outer corners, over half their distance


@dataclass(frozen=True)
class Mouth:
    """One frame of `Mouths`."""

    crop: np.ndarray  # (96, 96) uint8 grey; black where not found
    found: bool
    box: np.ndarray  # (4,) float32 x, y, width, height of the face; NaN where not found
    width: float = math.nan  # pixels of the source, of the mouth at rest as the face's size tells
    opening: float = math.nan  # between the inner lips, over `width`
    yaw: float = math.nan  # degrees; positive looks to the right of the picture


@dataclass(frozen=True)
class _Place:
    """Where the face is, in picture pixels."""

    points: np.ndarray  # (10, 2): face.KEY_POINTS
    box: np.ndarray  # (4,)

    def towards(self, other: _Place, share: float) -> _Place:
        """On the straight way to `other`: 0 = here, 1 = there."""
        return _Place(
            (1 - share) * self.points + share * other.points,
            ((1 - share) * self.box + share * other.box).astype(np.float32),
        )


@dataclass(frozen=True)
class _Sight:
    """What is kept of a frame until its neighbours are known."""

    grey: np.ndarray  # the part of the picture around the mouth, or all of it where no face was seen
    to_part: np.ndarray  # (2, 3) picture pixels -> pixels of `grey`
    place: _Place | None


def mouths(
    frames: Iterable[np.ndarray],
    *,
    face: str = "largest",
    detector: str | Detector = "mediapipe",
    offline: bool = False,
) -> Mouths:
    """The mouth of one face in all of `frames`.

    Args:
        frames: (height, width, 3) uint8 RGB at 25 fps.
        face: which of several: 'largest' or 'x,y,w,h' (`face.POLICIES`).
        detector: a row of `face.DETECTORS`, or one that is loaded.
        offline: never fetch the face networks.

    Raises:
        AssetError: the face networks are missing and may not or cannot be fetched.
        ConfigError: no such policy or detector.
    """
    found = list(mouth_stream(frames, face=face, detector=detector, offline=offline))
    return Mouths(
        crops=np.stack([m.crop for m in found]) if found else np.zeros((0, MOUTH_SIZE, MOUTH_SIZE), np.uint8),
        found=np.array([m.found for m in found], bool),
        boxes=np.stack([m.box for m in found]) if found else np.zeros((0, 4), np.float32),
    )


def ready_mouths(frames: Iterable[np.ndarray]) -> Mouths:
    """Pictures that are mouths already, (96, 96, 3) uint8 RGB, as other preparations leave them: only made grey."""
    crops = [_grey(picture) for picture in frames]
    return Mouths(
        crops=np.stack(crops) if crops else np.zeros((0, MOUTH_SIZE, MOUTH_SIZE), np.uint8),
        found=np.ones(len(crops), bool),
        boxes=np.full((len(crops), 4), np.nan, np.float32),
    )


def mouth_stream(
    frames: Iterable[np.ndarray],
    *,
    face: str = "largest",
    detector: str | Detector = "mediapipe",
    offline: bool = False,
) -> Iterator[Mouth]:
    """As `mouths`, one by one, at most `GAP + REACH` frames behind `frames`."""
    policy = face_policy(face)
    loaded = load_detector(detector, offline=offline) if isinstance(detector, str) else detector
    seen = follow_one(frames, policy, loaded)
    return _cut_out(_bridged(_sight(picture, found) for picture, found in seen))


# ---- the chain ---------------------------------------------------------------------------------


def _sight(picture: np.ndarray, face: Face | None) -> _Sight:
    height, width = picture.shape[:2]
    centre = None if face is None else face.points[MOUTH].mean(0)
    if face is None or centre is None or not (0 <= centre[0] < width and 0 <= centre[1] < height):
        return _Sight(_grey(picture), np.eye(2, 3), None)  # a mouth outside the picture is not seen either
    # Keep the crop's window and half as much on every side, for what smoothing may still move.
    window = _window(face.points[STABLE], centre)
    part, to_part = patch(picture, window, (MOUTH_SIZE, MOUTH_SIZE), margin=0.5)
    linear = to_part[:, :2] @ np.linalg.inv(window[:, :2])
    to_part = np.column_stack([linear, to_part[:, 2] - linear @ window[:, 2]])
    return _Sight(_grey(part), to_part, _Place(face.points, face.box))


def _grey(picture: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)


def _bridged(sights: Iterator[_Sight]) -> Iterator[_Sight]:
    """Places drawn straight across gaps of up to `GAP` frames; held still before the first and after the last."""
    before: _Place | None = None
    gap: list[_Sight] = []
    too_long = False
    for sight in sights:
        if sight.place is None:
            gap.append(sight)
            too_long = too_long or len(gap) > GAP
            if too_long:
                yield from gap
                gap, before = [], None
            continue
        yield from _filled(gap, before or sight.place, sight.place)
        gap, before, too_long = [], sight.place, False
        yield sight
    yield from _filled(gap, before, before) if before else gap


def _filled(gap: list[_Sight], before: _Place, after: _Place) -> Iterator[_Sight]:
    for number, sight in enumerate(gap, 1):
        yield replace(sight, place=before.towards(after, number / (len(gap) + 1)))


def _cut_out(sights: Iterator[_Sight]) -> Iterator[Mouth]:
    """Each sight's crop, placed by the points of up to `REACH` unbroken neighbours on either side."""
    window: deque[_Sight | None] = deque([None] * (2 * REACH + 1), maxlen=2 * REACH + 1)
    for sight in chain(sights, repeat(None, REACH)):
        window.append(sight)
        if window[REACH] is not None:
            yield _mouth(window)


def _mouth(window: deque[_Sight | None]) -> Mouth:
    sight = window[REACH]
    assert sight is not None
    if sight.place is None:
        return Mouth(np.zeros((MOUTH_SIZE, MOUTH_SIZE), np.uint8), False, np.full(4, np.nan, np.float32))
    offsets, points = _neighbours(window)
    centres = points[:, STABLE].mean(1)  # (n, 2): carried by six points, so they hardly tremble
    centre = _weights(offsets, FOLLOW) @ centres
    shape = np.tensordot(_weights(offsets, STEADY), points - centres[:, None], 1)  # (10, 2)
    matrix = _window(centre + shape[STABLE], centre + shape[MOUTH].mean(0))
    to_part = sight.to_part
    composed = np.column_stack([to_part[:, :2] @ matrix[:, :2], to_part[:, :2] @ matrix[:, 2] + to_part[:, 2]])
    width = MOUTH_SIZE / 2 * math.hypot(matrix[0, 0], matrix[1, 0])  # a mouth at rest takes half the crop
    lips = sight.place.points[MOUTH]
    return Mouth(
        crop=cut(sight.grey, composed, (MOUTH_SIZE, MOUTH_SIZE)),
        found=True,
        box=sight.place.box,
        width=width,
        opening=float(np.linalg.norm(lips[3] - lips[2])) / width,
        yaw=_yaw(shape),
    )


def _yaw(points: np.ndarray) -> float:
    """Degrees by which a face of ten key points is turned: its nose leaves the middle of the eyes."""
    left, right, nose = points[0], points[3], points[4]
    across = right - left
    sideways = (nose - (left + right) / 2) @ across / (across @ across / 2)
    return math.degrees(math.atan(sideways / NOSE))


def _neighbours(window: deque[_Sight | None]) -> tuple[np.ndarray, np.ndarray]:
    """Distances (n,) in frames and points (n, 10, 2) of the middle frame and those that join it without a gap."""
    offsets, points = [], []
    for step in (1, -1):
        for offset in range(0 if step == 1 else -1, step * (REACH + 1), step):
            sight = window[REACH + offset]
            if sight is None or sight.place is None:
                break
            offsets.append(offset)
            points.append(sight.place.points)
    return np.array(offsets), np.stack(points).astype(np.float64)


def _weights(offsets: np.ndarray, deviation: float) -> np.ndarray:
    weights = np.exp(-0.5 * (offsets / deviation) ** 2)
    return weights / weights.sum()


def _window(stable: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """(2, 3) from crop pixels to picture pixels: the template's scale and turn, the mouth in the middle.

    The similarity that lays POINTS on `stable` with the least squares, in closed form (Umeyama, 1991).
    """
    template = POINTS - POINTS.mean(0)
    target = stable - stable.mean(0)
    energy = (template**2).sum()
    along = (template * target).sum() / energy
    across = (template[:, 0] * target[:, 1] - template[:, 1] * target[:, 0]).sum() / energy
    linear = np.array([[along, -across], [across, along]])
    middle = (MOUTH_SIZE - 1) / 2
    return np.column_stack([linear, centre - linear @ (middle, middle)])
