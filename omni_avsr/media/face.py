"""Which faces: the table of detectors, and the policy that picks one of several and stays with it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from omni_avsr.errors import AssetError, ConfigError, nearest
from omni_avsr.media.landmarks import Detector, Face, HaarDetector, MediaPipeDetector
from omni_avsr.media.tracks import PATIENCE, REDETECT, Track, Tracker

logger = logging.getLogger(__name__)


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


# ---- which one ---------------------------------------------------------------------------------


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


def face_policy(spec: str, others: Iterable[str] = ()) -> Policy:
    """Which of several faces is followed: 'largest', or the one whose centre lies in the box 'x,y,w,h' (pixels).

    Args:
        spec: one of these.
        others: what else the caller would have taken, for the message.

    Raises:
        ConfigError: neither of these.
    """
    number = r"\s*\d+(\.\d+)?\s*"
    name = "x,y,w,h" if re.fullmatch(rf"{number}(,{number}){{3}}", spec) else spec
    if name not in POLICIES:
        raise ConfigError(f"face = '{spec}' is unknown; {nearest(spec, (*POLICIES, *others))}")
    return POLICIES[name](spec)


def follow_one(
    pictures: Iterable[np.ndarray], policy: Policy, detector: Detector
) -> Iterator[tuple[np.ndarray, Face | None]]:
    """Each picture with the chosen face; None where that face is not seen.

    The face chosen first is kept, however large another becomes. Lost, it is taken up again near its old place;
    after `PATIENCE` frames the policy chooses anew, and at once where a cut has put another face in its place.
    """
    tracker, chosen, blind = Tracker(detector), None, 0
    for picture in pictures:
        if chosen is None or not tracker.follow(chosen, picture):
            if blind % REDETECT == 0:
                tracks = tracker.look(picture, [chosen] if chosen else [])
                if chosen is None or chosen.missing > PATIENCE or _replaced(chosen, tracks):
                    chosen = policy(tracks) or chosen
            blind += 1
        seen = chosen is not None and chosen.missing == 0
        blind = 0 if seen else blind
        yield picture, chosen.face if chosen is not None and seen else None


def _replaced(chosen: Track, tracks: list[Track]) -> bool:
    return chosen.missing > 0 and any(chosen.near(track.face.region) for track in tracks)
