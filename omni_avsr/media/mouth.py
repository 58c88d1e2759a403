"""The mouth of one face, frame by frame: smoothed, bridged, laid on a template, cut out as 96 x 96 grey.

The chain is lazy with a bounded look-ahead (`GAP` + `REACH` frames): memory does not grow with the video.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from omni_avsr.media.face import face_policy, follow_one, load_detector
from omni_avsr.media.landmarks import MOUTH, STABLE, Detector, Face
from omni_avsr.media.template import upright, yaw
from omni_avsr.media.tracks import follow_all
from omni_avsr.media.warp import cut, patch
from omni_avsr.types import MOUTH_SIZE, Mouths

BLACK = 8  # of 255: what compression may leave of a black picture
BETWEEN = slice(40, 72), slice(28, 68)  # rows and columns of a crop between the lips
GAP = 12  # frames (0.48 s) without a face that are bridged; the frames of a longer gap are flagged
REACH = 12  # frames on either side that smoothing looks at
STEADY = 4.0  # standard deviation in frames of the smoothing of scale, turn and mouth place against the face
FOLLOW = 1.0  # the same of the face's own movement, which must not lag


@dataclass(frozen=True)
class Mouth:
    """One frame of `Mouths`."""

    crop: np.ndarray  # (96, 96) uint8 grey; black where not found
    found: bool
    box: np.ndarray  # (4,) float32 x, y, width, height of the face; NaN where not found
    width: float = math.nan  # pixels of the source, of the mouth at rest as the face's size tells
    opening: float = math.nan  # between the inner lips, over `width`
    yaw: float = math.nan  # degrees; positive looks to the right of the picture


BLIND = Mouth(np.zeros((MOUTH_SIZE, MOUTH_SIZE), np.uint8), False, np.full(4, np.nan, np.float32))


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
        openings=np.array([m.opening for m in found], np.float32),
    )


def ready_mouths(frames: Iterable[np.ndarray]) -> Mouths:
    """Pictures that are mouths already, (96, 96, 3) uint8 RGB, as other preparations leave them: only made grey.

    A black picture has no mouth: so MuAViC's preparation leaves frames in which it found no face. Where there is one,
    its opening is how dark it is between the lips, 0 to 1, which follows the opening but for the scale.
    """
    crops = [_grey(picture) for picture in frames]
    found = np.array([crop.max() > BLACK for crop in crops], bool)
    dark = [1 - crop[BETWEEN].mean() / 255 if seen else math.nan for crop, seen in zip(crops, found, strict=True)]
    return Mouths(
        crops=np.stack(crops) if crops else np.zeros((0, MOUTH_SIZE, MOUTH_SIZE), np.uint8),
        found=found,
        boxes=np.full((len(crops), 4), np.nan, np.float32),
        openings=np.array(dark, np.float32),
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
    cutter = _Cutter()
    for picture, found in follow_one(frames, policy, _loaded(detector, offline)):
        yield from cutter.push(_sight(picture, found))
    yield from cutter.end()


def all_mouths(
    frames: Iterable[np.ndarray], *, detector: str | Detector = "mediapipe", offline: bool = False
) -> Iterator[dict[int, Mouth]]:
    """For each frame the mouths of every face in it, by the id of the person; some `GAP + REACH` frames behind.

    Ids stay with people as far as place and looks tell (`media.tracks`). A mouth that is not found is not listed.
    """
    ready: deque[dict[int, Mouth]] = deque()  # frames that some face still lacks
    cutters: dict[int, _Cutter] = {}
    done = 0
    for number, (picture, faces) in enumerate(follow_all(frames, _loaded(detector, offline))):
        ready.append({})
        for id in faces:
            cutters.setdefault(id, _Cutter(number))
        for id, cutter in list(cutters.items()):
            sight = _sight(picture, faces.get(id))
            _place(cutter.push(sight), cutter, id, ready, done)
            if cutter.lost:
                _place(cutter.end(), cutters.pop(id), id, ready, done)
        while ready and all(done < cutter.position for cutter in cutters.values()):
            yield ready.popleft()
            done += 1
    for id, cutter in cutters.items():
        _place(cutter.end(), cutter, id, ready, done)
    yield from ready


def _place(mouths: list[Mouth], cutter: _Cutter, id: int, ready: deque[dict[int, Mouth]], done: int) -> None:
    """Note the newest mouths of a face at their frames."""
    for number, mouth in enumerate(mouths, cutter.position - len(mouths)):
        if mouth.found:
            ready[number - done][id] = mouth


def _loaded(detector: str | Detector, offline: bool) -> Detector:
    return load_detector(detector, offline=offline) if isinstance(detector, str) else detector


# ---- the chain ---------------------------------------------------------------------------------


def _sight(picture: np.ndarray, face: Face | None) -> _Sight:
    height, width = picture.shape[:2]
    centre = None if face is None else face.points[MOUTH].mean(0)
    if face is None or centre is None or not (0 <= centre[0] < width and 0 <= centre[1] < height):
        return _Sight(_grey(picture), np.eye(2, 3), None)  # a mouth outside the picture is not seen either
    # Keep the crop's window and half as much on every side, for what smoothing may still move.
    window = upright(face.points[STABLE], centre)
    part, to_part = patch(picture, window, (MOUTH_SIZE, MOUTH_SIZE), margin=0.5)
    linear = to_part[:, :2] @ np.linalg.inv(window[:, :2])
    to_part = np.column_stack([linear, to_part[:, 2] - linear @ window[:, 2]])
    return _Sight(_grey(part), to_part, _Place(face.points, face.box))


def _grey(picture: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)


class _Cutter:
    """Sights of one face in, its mouths out, up to `GAP + REACH` frames later.

    Places are drawn straight across gaps of up to `GAP` frames, and held still before the first and after the last.

    Attributes:
        position: number of the next mouth to come out.
        lost: the face is gone for longer than is bridged.
    """

    def __init__(self, first: int = 0) -> None:
        self.position = first
        self.lost = False
        self._before: _Place | None = None
        self._gap: list[_Sight] = []
        self._window: deque[_Sight | None] = deque([None] * (2 * REACH + 1), maxlen=2 * REACH + 1)

    def push(self, sight: _Sight) -> list[Mouth]:
        """The next frame in; what is ready out."""
        if sight.place is None:
            self._gap.append(sight)
            self.lost = self.lost or len(self._gap) > GAP
            if not self.lost:
                return []
            passed, self._gap, self._before = self._gap, [], None
            return self._shift(passed)
        passed = [*_filled(self._gap, self._before or sight.place, sight.place), sight]
        self._gap, self._before, self.lost = [], sight.place, False
        return self._shift(passed)

    def end(self) -> list[Mouth]:
        """The rest."""
        rest = _filled(self._gap, self._before, self._before) if self._before else self._gap
        return self._shift([*rest, *[None] * REACH])

    def _shift(self, sights: Iterable[_Sight | None]) -> list[Mouth]:
        """Each sight's crop, placed by the points of up to `REACH` unbroken neighbours on either side."""
        out = []
        for sight in sights:
            self._window.append(sight)
            if self._window[REACH] is not None:
                out.append(_mouth(self._window))
        self.position += len(out)
        return out


def _filled(gap: list[_Sight], before: _Place, after: _Place) -> Iterator[_Sight]:
    for number, sight in enumerate(gap, 1):
        yield replace(sight, place=before.towards(after, number / (len(gap) + 1)))


def _mouth(around: deque[_Sight | None]) -> Mouth:
    sight = around[REACH]
    assert sight is not None
    if sight.place is None:
        return BLIND
    offsets, points = _neighbours(around)
    centres = points[:, STABLE].mean(1)  # (n, 2): carried by six points, so they hardly tremble
    centre = _weights(offsets, FOLLOW) @ centres
    shape = np.tensordot(_weights(offsets, STEADY), points - centres[:, None], 1)  # (10, 2)
    matrix = upright(centre + shape[STABLE], centre + shape[MOUTH].mean(0))
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
        yaw=yaw(shape),
    )


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
