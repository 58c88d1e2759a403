"""Faces through time: tracks with stable ids, by place and by looks.

A face is followed from picture to picture where it was. One that is lost, or whose looks change at once (a cut),
is looked for again; found at its old place and alike, or anywhere and the very image, it keeps its id.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from omni_avsr.media.landmarks import STABLE, Detector, Face, Region
from omni_avsr.media.template import upright
from omni_avsr.media.warp import cut

REDETECT = 5  # frames between two looks for a lost face: 0.2 s
PATIENCE = 25  # frames for which a lost face is waited for before another may take its place: 1 s
ARRIVALS = 25  # frames between two looks for new and for small faces: 1 s
SAME_PLACE = 1.0  # face sizes by which a face may have moved while it was lost
ALIKE, TWIN = 0.8, 0.9  # correlation of looks: enough at the same place; enough anywhere
UNKNOWN = 0.85  # of a flat picture, which tells nothing
SIDE, COVER = 16, 260  # pixels of a look, and how many of the mouth crop's scale they span: the head with its hair
ADAPT = 0.2  # weight of the newest frame in a track's looks
REMEMBERED = 64  # faces that may come back


@dataclass
class Track:
    """One person's face through time."""

    id: int
    face: Face  # the last one seen
    looks: np.ndarray  # (16, 16, 3) float32, running mean of `appearance`
    missing: int = 0  # frames since then; 0 = seen now
    picture: weakref.ref[np.ndarray] | None = None  # in which it was last seen

    def near(self, region: Region) -> bool:
        """Could this track have moved to `region`?"""
        own = self.face.region
        apart = float(np.linalg.norm(own.centre - region.centre))
        return apart < SAME_PLACE * max(own.size, region.size) and 0.5 < own.size / region.size < 2

    def see(self, face: Face, looks: np.ndarray) -> None:
        """It is here now."""
        self.face, self.missing = face, 0
        self.looks = self.looks + np.float32(ADAPT) * (looks - self.looks)


def appearance(picture: np.ndarray, face: Face) -> np.ndarray:
    """(16, 16, 3) float32: the head, upright and small, of (height, width, 3) uint8."""
    stable = face.points[STABLE]
    linear = upright(stable, stable.mean(0))[:, :2]
    centre = stable.mean(0) + linear @ (0.0, 20.0)  # from between the eyes towards the middle of the face
    linear = linear * (COVER / SIDE)
    middle = (SIDE - 1) / 2
    matrix = np.column_stack([linear, centre - linear @ (middle, middle)])
    return cut(picture, matrix, (SIDE, SIDE)).astype(np.float32)


def likeness(looks: np.ndarray, others: np.ndarray) -> float:
    """Correlation of two (16, 16, 3) looks, -1 to 1, light and tint aside; `UNKNOWN` where one of them is flat.

    The same face seconds later: above 0.9. Two people: below 0.8, mostly below 0.5.
    """
    a, b = (x - x.mean((0, 1)) for x in (looks, others))
    energy = float((a * a).sum()) * float((b * b).sum())
    return float((a * b).sum()) / energy**0.5 if energy > SIDE**4 else UNKNOWN


class Tracker:
    """Follows faces from picture to picture and gives ids."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._ids = 0

    def follow(self, track: Track, picture: np.ndarray) -> bool:
        """Move `track` on to `picture`; False if the face is not where it was, or another is there."""
        if not track.missing and track.picture is not None and track.picture() is picture:
            return True  # shown again: a slow film repeats its pictures, and a damaged one for minutes
        face = self._detector.face(picture, track.face.region)
        looks = None if face is None else appearance(picture, face)
        if face is None or looks is None or likeness(track.looks, looks) < ALIKE:
            track.missing += 1
            return False
        track.see(face, looks)
        track.picture = weakref.ref(picture)
        return True

    def look(self, picture: np.ndarray, known: Iterable[Track] = (), deep: bool = False) -> list[Track]:
        """Every face in `picture`; one that is or may be of `known` keeps its id.

        Args:
            picture: (height, width, 3) uint8 RGB.
            known: those with `missing` = 0 are where they stand.
            deep: look for small faces though there are large ones.
        """
        tracks = [track for track in known if not track.missing]
        lost = [track for track in known if track.missing]
        for region in self._detector.detect(picture, deep):
            if any(covers(track.face, region) for track in tracks):
                continue
            face = self._detector.face(picture, region)
            if face is None or any(covers(track.face, face.region) for track in tracks):
                continue
            looks = appearance(picture, face)
            same = _recognised(lost, face, looks)
            if same is None:
                same = Track(self._ids, face, looks)
                self._ids += 1
            else:
                lost.remove(same)
                same.see(face, looks)
            tracks.append(same)
        return tracks


def covers(face: Face, region: Region) -> bool:
    """Is `face` in the place of `region`?"""
    return bool(np.abs(face.region.centre - region.centre).max() < face.region.size / 2)


def _recognised(lost: Sequence[Track], face: Face, looks: np.ndarray) -> Track | None:
    """Whom of `lost` this face belongs to: those who were here before those who look like it."""
    ranked = [(track.near(face.region), likeness(track.looks, looks), track) for track in lost]
    fit = [(near, alike, track) for near, alike, track in ranked if alike >= (ALIKE if near else TWIN)]
    return max(fit, key=lambda one: one[:2], default=(False, 0.0, None))[2]


def follow_all(pictures: Iterable[np.ndarray], detector: Detector) -> Iterator[tuple[np.ndarray, dict[int, Face]]]:
    """Each picture with every face seen in it, by track id.

    New faces are looked for every `ARRIVALS` frames, lost ones every `REDETECT`, and at once where one is lost.
    """
    tracker = Tracker(detector)
    known: list[Track] = []
    for number, picture in enumerate(pictures):
        for track in known:  # those seen last come first
            if track.missing <= PATIENCE:
                tracker.follow(track, picture)
            else:
                track.missing += 1
        _part(known)
        lost = any(track.missing == 1 for track in known)
        waiting = all(track.missing for track in known) or any(0 < track.missing <= PATIENCE for track in known)
        if lost or number % ARRIVALS == 0 or (waiting and number % REDETECT == 0):
            found = tracker.look(picture, known, deep=number % ARRIVALS == 0)
            known += [track for track in found if all(track is not other for other in known)]
        known = sorted(known, key=lambda track: track.missing)[:REMEMBERED]
        yield picture, {track.id: track.face for track in known if not track.missing}


def _part(tracks: Sequence[Track]) -> None:
    """Two tracks that ended on one face: the first keeps it."""
    for number, track in enumerate(tracks):
        if not track.missing and any(not o.missing and covers(o.face, track.face.region) for o in tracks[:number]):
            track.missing = 1
