"""Face detectors: where faces are in a picture, and ten key points of each.

Whatever found it, a face is ten key points; `mouth.py` knows no more than those. To add a detector, write a class
with the two methods of `Detector` and add its row to `face.DETECTORS`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from omni_avsr.errors import AssetError
from omni_avsr.media.assets import FACE_DETECTION, FACE_MESH, ensure_face_models
from omni_avsr.media.warp import cut

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Region:
    """Where a face may be: an upright or turned square."""

    centre: np.ndarray  # (2,) x, y in pixels
    size: float  # side of the face itself, pixels
    angle: float = 0.0  # radians clockwise from upright
    score: float = 1.0


@dataclass(frozen=True)
class Face:
    """One face in one picture, in its pixels."""

    points: np.ndarray  # (10, 2) float32: `KEY_POINTS`
    box: np.ndarray  # (4,) float32 x, y, width, height
    region: Region  # where to look in the next picture

    @property
    def area(self) -> float:
        """Square pixels of the box."""
        return float(self.box[2] * self.box[3])


# Indices in MediaPipe's mesh: outer and inner corner of the eye on the left of the picture, inner and outer of
# the other one, nose tip, bridge (the six that do not move with speech), then mouth corners and inner lips.
KEY_POINTS = (33, 133, 362, 263, 1, 168, 61, 291, 13, 14)
STABLE = slice(0, 6)
MOUTH = slice(6, 10)


class Detector(Protocol):
    """Finds faces in a picture (height, width, 3) uint8 RGB."""

    def detect(self, picture: np.ndarray, deep: bool = False) -> list[Region]:
        """Regions that may hold a face, best first; `deep` = also small ones beside large ones, at a higher cost."""

    def face(self, picture: np.ndarray, region: Region) -> Face | None:
        """The face in or near `region`; None if there is none."""


class MediaPipeDetector:
    """BlazeFace short range (Bazarevsky et al., 2019) and the 468-point mesh (Kartynnik et al., 2019) by cv2.dnn."""

    MARGIN = 1.5  # side of the mesh's square / side of the face

    def __init__(self, offline: bool = False, threshold: float = 0.5) -> None:
        """Raises AssetError where the networks are missing and may not or cannot be fetched."""
        folder = ensure_face_models(offline)
        self._blaze = cv2.dnn.readNetFromTFLite(str(folder / FACE_DETECTION.name))
        self._mesh = cv2.dnn.readNetFromTFLite(str(folder / FACE_MESH.name))
        self._anchors = _anchors()
        self._threshold = threshold

    def detect(self, picture: np.ndarray, deep: bool = False) -> list[Region]:
        """Regions by score: of the whole picture; where it shows none, or if `deep`, of its parts too."""
        height, width = picture.shape[:2]
        found: list[Region] = []
        for windows in _windows(width, height):
            found += [region for window in windows for region in self._look(picture, window)]
            if found and not deep:
                break
        return _distinct(found)

    def _look(self, picture: np.ndarray, window: tuple[int, int, int]) -> list[Region]:
        x, y, side = window
        part = picture[max(y, 0) : y + side, max(x, 0) : x + side]
        scale = 128 / side
        small = _shrunk(part, scale)
        canvas = np.zeros((128, 128, 3), np.uint8)
        left, top = round(max(-x, 0) * scale), round(max(-y, 0) * scale)
        small = small[: 128 - top, : 128 - left]
        canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
        out = _forward(self._blaze, canvas, 1 / 127.5, 127.5)
        scores = _sigmoid(next(o for o in out if o.size == 896).ravel())
        keep = np.flatnonzero(scores > self._threshold)
        if not len(keep):
            return []
        # (n, 8, 2): centre and size, then eyes, nose, mouth, ears, all but the size relative to the anchor.
        boxes = next(o for o in out if o.size == 896 * 16).reshape(896, 8, 2)[keep] / 128
        sizes = boxes[:, 1].max(1)
        points = boxes + self._anchors[keep, None]
        found = []
        for group in _groups(points[:, 0], sizes, scores[keep]):
            weights = scores[keep][group] / scores[keep][group].sum()
            right_eye, left_eye, centre = (weights @ points[group, i] for i in (2, 3, 0))
            across = left_eye - right_eye
            found.append(
                Region(
                    centre=(centre * side + (x, y)).astype(np.float32),
                    size=float(weights @ sizes[group]) * side,
                    angle=math.atan2(across[1], across[0]),
                    score=float(scores[keep][group].max()),
                )
            )
        return found

    def face(self, picture: np.ndarray, region: Region) -> Face | None:
        """The mesh in `region`, None where its presence score is below the threshold."""
        side = region.size * self.MARGIN
        turn = np.array(
            [[math.cos(region.angle), -math.sin(region.angle)], [math.sin(region.angle), math.cos(region.angle)]]
        )
        linear = turn * (side / 192)
        matrix = np.column_stack([linear, region.centre - linear @ (95.5, 95.5)])
        out = _forward(self._mesh, cut(picture, matrix, (192, 192)), 1 / 255, 0)
        score = float(_sigmoid(next(o for o in out if o.size == 1).ravel())[0])
        if score < self._threshold:
            return None
        mesh = next(o for o in out if o.size == 468 * 3).reshape(468, 3)[:, :2] @ linear.T + matrix[:, 2]
        low, high = mesh.min(0), mesh.max(0)
        across = mesh[263] - mesh[33]
        return Face(
            points=mesh[list(KEY_POINTS)].astype(np.float32),
            box=np.concatenate([low, high - low]).astype(np.float32),
            region=Region((low + high) / 2, float((high - low).max()), math.atan2(across[1], across[0]), score),
        )


class HaarDetector:
    """OpenCV's frontal-face cascade: a box, from whose proportions the key points are guessed.

    The last resort: upright frontal faces only, and crops that wobble with the box.
    """

    # Of the box's width and height, measured from it, in the order of KEY_POINTS.
    PROPORTIONS = np.array(
        [
            *[(0.23, 0.39), (0.40, 0.39), (0.60, 0.39), (0.77, 0.39), (0.50, 0.58), (0.50, 0.37)],
            *[(0.36, 0.78), (0.64, 0.78), (0.50, 0.77), (0.50, 0.79)],
        ]
    )
    WIDTH = 320  # pixels to which larger pictures are shrunk

    def __init__(self, offline: bool = False) -> None:
        """`offline` is not used: the cascade comes with OpenCV. Raises AssetError where it does not."""
        path = f"{cv2.__path__[0]}/data/haarcascade_frontalface_default.xml"
        cascade = cv2.CascadeClassifier(path) if hasattr(cv2, "CascadeClassifier") else None
        if cascade is None or cascade.empty():
            raise AssetError(f"OpenCV {cv2.__version__} has no Haar cascades; install opencv-python-headless>=4.8,<5.")
        self._cascade = cascade
        logger.warning("faces by the Haar cascade: mouth crops will be rough, and lips harder to read")

    def detect(self, picture: np.ndarray, deep: bool = False) -> list[Region]:
        """Regions, largest first; always deep."""
        scale = min(1.0, self.WIDTH / picture.shape[1])
        small = _shrunk(picture, scale)
        boxes = self._cascade.detectMultiScale(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), 1.1, 5, minSize=(30, 30))
        regions = [
            Region(np.array([x + w / 2, y + h / 2], np.float32) / scale, float(w) / scale) for x, y, w, h in boxes
        ]
        return sorted(regions, key=lambda region: -region.size)

    def face(self, picture: np.ndarray, region: Region) -> Face | None:
        """The detection nearest to `region`, looked for in twice its size."""
        origin = np.maximum(region.centre - region.size, 0).astype(int)
        x, y = origin
        part = picture[y : y + int(2 * region.size), x : x + int(2 * region.size)]
        near = self.detect(part) if part.size else []
        if not near:
            return None
        best = min(near, key=lambda other: float(np.linalg.norm(origin + other.centre - region.centre)))
        corner = origin + best.centre - best.size / 2
        return Face(
            points=(corner + self.PROPORTIONS * best.size).astype(np.float32),
            box=np.array([*corner, best.size, best.size], np.float32),
            region=Region(origin + best.centre, best.size),
        )


# ---- BlazeFace's arithmetic ----------------------------------------------------------------------


def _anchors() -> np.ndarray:
    """(896, 2) centres in 0..1: two per cell of a 16 x 16 grid, six per cell of an 8 x 8 grid."""
    grids = []
    for cells, repeats in ((16, 2), (8, 6)):
        y, x = np.mgrid[:cells, :cells]
        grids.append(np.repeat(np.stack([x + 0.5, y + 0.5], -1).reshape(-1, 2) / cells, repeats, axis=0))
    return np.concatenate(grids)


def _windows(width: int, height: int) -> Iterator[list[tuple[int, int, int]]]:
    """Squares (x, y, side) to look into, coarse to fine: the padded whole; then overlapping parts of it.

    BlazeFace sees 128 x 128 pixels, in which a face must take about a tenth of the side.
    """
    side = max(width, height)
    yield [((width - side) // 2, (height - side) // 2, side)]
    short = min(width, height)
    for part in (short, short // 2):
        if part < 128:
            return
        columns, rows = (max(1, math.ceil((length - part) / (part / 2)) + 1) for length in (width, height))
        xs, ys = np.linspace(0, width - part, columns), np.linspace(0, height - part, rows)
        if part < side:
            yield [(round(x), round(y), part) for y in ys for x in xs]


def _groups(centres: np.ndarray, sizes: np.ndarray, scores: np.ndarray) -> Iterator[np.ndarray]:
    """Indices of boxes that are one face, best face first: the centre within half the best one's size."""
    left = np.argsort(-scores)
    while len(left):
        best = left[0]
        same = np.abs(centres[left] - centres[best]).max(1) < sizes[best] / 2
        yield left[same]
        left = left[~same]


def _distinct(regions: list[Region]) -> list[Region]:
    """Overlapping windows find a face several times; the best of each."""
    kept: list[Region] = []
    for region in sorted(regions, key=lambda r: -r.score):
        if all(np.abs(region.centre - other.centre).max() > other.size / 2 for other in kept):
            kept.append(region)
    return kept


def _forward(net: cv2.dnn.Net, picture: np.ndarray, scale: float, mean: float) -> list[np.ndarray]:
    net.setInput(cv2.dnn.blobFromImage(picture, scale, mean=(mean,) * 3))
    return list(net.forward(net.getUnconnectedOutLayersNames()))


def _shrunk(picture: np.ndarray, scale: float) -> np.ndarray:
    # By factor, not by size: a rounded size would move the face. One pixel must be left of a thin picture.
    x, y = (max(scale, 1 / length) for length in picture.shape[1::-1])
    return cv2.resize(picture, None, fx=x, fy=y, interpolation=cv2.INTER_AREA)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logits, -80, 80)))
