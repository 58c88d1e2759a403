"""Faces through time: the table of detectors, a tracker with stable ids, and the policy that picks one face."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from omni_avsr.errors import AssetError, ConfigError, nearest
from omni_avsr.media.landmarks import Detector, Face, HaarDetector, MediaPipeDetector, Region

logger = logging.getLogger(__name__)

REDETECT = 5  # frames between two looks for a lost face: 0.2 s
PATIENCE = 25  # frames for which a lost face is waited for before another may take its place: 1 s
SAME_PLACE = 1.0  # face sizes by which a face may have moved while it was lost


def _best_available(offline: bool = False) -> Detector:
    try:
        return MediaPipeDetector(offline)
    except AssetError as error:
        logger.warning("%s", error)
        return HaarDetector()


DETECTORS: dict[str, Callable[[bool], Detector]] = {
    "mediapipe": MediaPipeDetector,  # the one that models are trained with
    "haar": HaarDetector,
    "auto": _best_available,  # mediapipe, else haar with a warning
}


def load_detector(name: str = "mediapipe", *, offline: bool = False) -> Detector:
    """A row of `DETECTORS`.

    Raises:
        ConfigError: no such row.
        AssetError: its files are missing and may not or cannot be fetched.
    """
    if name not in DETECTORS:
        raise ConfigError(f"detector = '{name}' is unknown; {nearest(name, DETECTORS)}")
    return DETECTORS[name](offline)


# ---- through time ------------------------------------------------------------------------------


@dataclass
class Track:
    """One person's face through time."""

    id: int
    face: Face  # the last one seen
    missing: int = 0  # frames since then; 0 = seen now

    def near(self, region: Region) -> bool:
        """Could this track have moved to `region`?"""
        own = self.face.region
        apart = float(np.linalg.norm(own.centre - region.centre))
        return apart < SAME_PLACE * max(own.size, region.size) and 0.5 < own.size / region.size < 2


Policy = Callable[[list[Track]], "Track | None"]


def _largest(spec: str) -> Policy:
    return lambda tracks: max(tracks, key=lambda track: track.face.area, default=None)


def _in_box(spec: str) -> Policy:
    x, y, width, height = (float(number) for number in spec.split(","))

    def choose(tracks: list[Track]) -> Track | None:
        inside = [
            t for t in tracks if 0 <= t.face.region.centre[0] - x < width and 0 <= t.face.region.centre[1] - y < height
        ]
        return max(inside, key=lambda track: track.face.area, default=None)

    return choose


POLICIES: dict[str, Callable[[str], Policy]] = {"largest": _largest, "x,y,w,h": _in_box}


def face_policy(spec: str) -> Policy:
    """Which of several faces is followed: 'largest', or the one whose centre lies in the box 'x,y,w,h' (pixels).

    Raises:
        ConfigError: neither of these.
    """
    number = r"\s*\d+(\.\d+)?\s*"
    name = "x,y,w,h" if re.fullmatch(rf"{number}(,{number}){{3}}", spec) else spec
    if name not in POLICIES:
        raise ConfigError(f"face = '{spec}' is unknown; {nearest(spec, POLICIES)}")
    return POLICIES[name](spec)


class Tracker:
    """Follows faces from picture to picture; ids stay with people as far as place and size tell."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._ids = 0

    def follow(self, track: Track, picture: np.ndarray) -> bool:
        """Move `track` on to `picture`; False if the face is not where it was."""
        face = self._detector.face(picture, track.face.region)
        if face is None:
            track.missing += 1
            return False
        track.face, track.missing = face, 0
        return True

    def look(self, picture: np.ndarray, known: Iterable[Track] = ()) -> list[Track]:
        """Every face in `picture`; one near a lost track of `known` keeps its id."""
        lost = [track for track in known if track.missing]
        tracks = []
        for region in self._detector.detect(picture):
            face = self._detector.face(picture, region)
            if face is None:
                continue
            same = next((track for track in lost if track.near(face.region)), None)
            if same is None:
                same = Track(self._ids, face)
                self._ids += 1
            else:
                lost.remove(same)
                same.face, same.missing = face, 0
            tracks.append(same)
        return tracks


def follow_one(
    pictures: Iterable[np.ndarray], policy: Policy, detector: Detector
) -> Iterator[tuple[np.ndarray, Face | None]]:
    """Each picture with the chosen face; None where that face is not seen.

    The face chosen first is kept, however large another becomes. Lost, it is taken up again near its old place;
    after `PATIENCE` frames the policy chooses anew, as after a cut.
    """
    tracker, chosen, blind = Tracker(detector), None, 0
    for picture in pictures:
        if chosen is None or not tracker.follow(chosen, picture):
            if blind % REDETECT == 0:
                tracks = tracker.look(picture, [chosen] if chosen else [])
                if chosen is None or chosen.missing > PATIENCE:
                    chosen = policy(tracks) or chosen
            blind += 1
        seen = chosen is not None and chosen.missing == 0
        blind = 0 if seen else blind
        yield picture, chosen.face if chosen is not None and seen else None
